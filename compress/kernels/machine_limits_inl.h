// The loops of machine_limits.h for one instruction set S.

constexpr std::size_t kChains = 12;  // hide the latency of the multiplier
constexpr std::size_t kLaneBytes = 64;

template <class S>
std::size_t sum_of(const typename S::I* chains) {
  auto sum = S::zero_lanes();
  for (std::size_t j = 0; j < kChains; ++j) sum = S::add(sum, chains[j]);
  std::uint32_t lanes[16];
  S::store_lanes(lanes, sum);
  return lanes[0];
}

template <class S>
std::size_t read_bytes(const std::byte* p, std::size_t bytes) {
  constexpr std::size_t kAtOnce = 4;
  typename S::I sum[kChains];
  LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains; ++j) {
    sum[j] = S::zero_lanes();
  }
  for (std::size_t i = 0; i + kLaneBytes * kAtOnce <= bytes;
       i += kLaneBytes * kAtOnce) {
    LLMPRESS_UNROLL for (std::size_t j = 0; j < kAtOnce; ++j) {
      S::prefetch(p + i + kLaneBytes * j + 4096);
      sum[j] = S::add(sum[j], S::load_lanes(p + i + kLaneBytes * j));
    }
  }
  return sum_of<S>(sum);
}

template <class S>
std::size_t multiply_floats(std::size_t rounds) {
  typename S::F acc[kChains];
  LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains; ++j) {
    acc[j] = S::broadcast(static_cast<float>(j));  // chains must differ
  }
  const auto v = S::broadcast(static_cast<float>(rounds) * 1e-9f);
  for (std::size_t r = 0; r < rounds; ++r) {
    LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains; ++j) {
      acc[j] = S::fma(acc[j], v, v);
    }
  }
  typename S::I bits[kChains];
  for (std::size_t j = 0; j < kChains; ++j) bits[j] = S::bits_of(acc[j]);
  return sum_of<S>(bits);
}

template <class S>
std::size_t multiply_octets(std::size_t rounds) {
  typename S::I acc[kChains];
  LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains; ++j) {
    acc[j] = S::broadcast_lanes(static_cast<std::int32_t>(j));
  }
  const auto octets = static_cast<std::int32_t>(rounds & 0x0f0f0f0f);
  const auto v = S::broadcast_lanes(octets);
  std::int8_t four[4];
  std::memcpy(four, &octets, sizeof four);
  const auto x = S::broadcast_octets(four);
  for (std::size_t r = 0; r < rounds; ++r) {
    LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains; ++j) {
      acc[j] = S::dot(acc[j], v, x);
    }
  }
  return sum_of<S>(acc);
}

template <class S>
constexpr LimitLoops loops_of() {
  return {.read = &read_bytes<S>,
          .multiply_floats = &multiply_floats<S>,
          .multiply_octets = &multiply_octets<S>,
          .float_operations = 2 * 16 * kChains,
          .octet_operations = 2 * 64 * kChains};
}
