// The loops of machine_limits.h for one instruction set S.

// Enough to hide the latency of the multiplier, few enough for the registers.
template <class S>
constexpr std::size_t kChains = S::kTileTokens;
// The octets of one chain are the sums of another one, so these wait longer.
constexpr std::size_t kOctetChains = 12;
constexpr std::size_t kLaneBytes = 64;

template <class S>
std::size_t sum_of(const typename S::I* chains, std::size_t count) {
  auto sum = S::zero_lanes();
  for (std::size_t j = 0; j < count; ++j) sum = S::add(sum, chains[j]);
  std::uint32_t lanes[16];
  S::store_lanes(lanes, sum);
  // All of them: what nobody reads would not be computed.
  std::size_t all = 0;
  for (const std::uint32_t lane : lanes) all += lane;
  return all;
}

template <class S>
std::size_t read_bytes(const std::byte* p, std::size_t bytes) {
  constexpr std::size_t kAtOnce = 4;
  typename S::I sum[kAtOnce];
  LLMPRESS_UNROLL for (std::size_t j = 0; j < kAtOnce; ++j) {
    sum[j] = S::zero_lanes();
  }
  for (std::size_t i = 0; i + kLaneBytes * kAtOnce <= bytes;
       i += kLaneBytes * kAtOnce) {
    LLMPRESS_UNROLL for (std::size_t j = 0; j < kAtOnce; ++j) {
      S::prefetch(p + i + kLaneBytes * j + 4096);
      sum[j] = S::add(sum[j], S::load_lanes(p + i + kLaneBytes * j));
    }
  }
  return sum_of<S>(sum, kAtOnce);
}

// Sixteen numbers that differ for every chain and lane: a compiler would
// multiply two equal halves of a vector only once.
inline std::array<std::int32_t, 16> lanes_of_chain(std::size_t chain) {
  std::array<std::int32_t, 16> lanes{};
  for (std::size_t i = 0; i < lanes.size(); ++i) {
    lanes[i] = static_cast<std::int32_t>(chain * lanes.size() + i);
  }
  return lanes;
}

template <class S>
std::size_t multiply_floats(std::size_t rounds) {
  typename S::F acc[kChains<S>];
  LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains<S>; ++j) {
    acc[j] = S::to_float(S::load_lanes(lanes_of_chain(j).data()));
  }
  const auto v = S::broadcast(static_cast<float>(rounds) * 1e-9f);
  for (std::size_t r = 0; r < rounds; ++r) {
    LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains<S>; ++j) {
      acc[j] = S::fma(acc[j], v, v);
    }
  }
  typename S::I bits[kChains<S>];
  for (std::size_t j = 0; j < kChains<S>; ++j) bits[j] = S::bits_of(acc[j]);
  return sum_of<S>(bits, kChains<S>);
}

template <class S>
std::size_t multiply_octets(std::size_t rounds) {
  typename S::I acc[kOctetChains];
  LLMPRESS_UNROLL for (std::size_t j = 0; j < kOctetChains; ++j) {
    acc[j] = S::load_lanes(lanes_of_chain(j).data());
  }
  const auto octets = static_cast<std::int32_t>(rounds & 0x0f0f0f0f);
  const auto w = S::broadcast_lanes(octets);
  std::int8_t four[4];
  std::memcpy(four, &octets, sizeof four);
  const auto x = S::broadcast_small(four);
  for (std::size_t r = 0; r < rounds; ++r) {
    LLMPRESS_UNROLL for (std::size_t j = 0; j < kOctetChains; ++j) {
      acc[j] = S::dot_two(acc[j], w, x, acc[(j + 1) % kOctetChains], x);
    }
  }
  return sum_of<S>(acc, kOctetChains);
}

template <class S>
constexpr LimitLoops loops_of() {
  return {.read = &read_bytes<S>,
          .multiply_floats = &multiply_floats<S>,
          .multiply_octets = &multiply_octets<S>,
          .float_operations = 2 * 16 * kChains<S>,
          .octet_operations = 2 * 2 * 64 * kOctetChains};
}
