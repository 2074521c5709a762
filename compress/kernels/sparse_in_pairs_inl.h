// 2:4 in pairs of rows (sparse_kernels.h) for one instruction set S.

LLMPRESS_INLINE std::uint32_t columns_at(const SparsePanels& W,
                                         std::size_t pair, std::size_t step) {
  std::uint32_t columns = 0;
  std::memcpy(&columns,
              W.masks.data() + (pair * W.steps + step) * sizeof columns,
              sizeof columns);
  return columns;
}

// 16 numbers of both rows of a pair.
template <class S, SparseValues Type>
LLMPRESS_INLINE typename S::F pair_values(const SparsePanels& W,
                                          std::size_t pair, std::size_t step) {
  const std::byte* const p =
      W.values.data() + (pair * W.steps + step) * kLanes * value_bytes<Type>();
  if constexpr (Type == SparseValues::kF32) return S::load(p);
  if constexpr (Type == SparseValues::kF16) return S::load_f16(p);
  if constexpr (Type == SparseValues::kBF16) return S::load_bf16(p);
  if constexpr (Type == SparseValues::kCodes) {
    const std::size_t slot = 4 * (pair * W.groups + W.group_of[step]);
    return S::mul(S::sub(S::load_u8(p), S::broadcast_four(&W.zeros[slot])),
                  S::broadcast_four(&W.scales[slot]));
  }
}

// Lanes 0 and 1 of each four are the first row's, in a fixed order.
template <class S>
void add_lanes(typename S::F sums, float& first, float& second) {
  float lanes[kLanes];
  S::store(lanes, sums);
  first = second = 0;
  for (std::size_t i = 0; i < kLanes; i += 4) {
    first += lanes[i] + lanes[i + 1];
    second += lanes[i + 2] + lanes[i + 3];
  }
}

template <class S, SparseValues Type, std::size_t T>
void multiply_pairs(const SparsePanels& W, std::size_t begin, std::size_t end,
                    const float* const* rows, std::size_t tokens, float* y,
                    std::size_t y_stride) {
  constexpr std::size_t kSums = T == 1 ? 4 : 2;
  for (std::size_t pair = begin / 2; 2 * pair < end; ++pair) {
    typename S::F acc[kSums][T];
    LLMPRESS_UNROLL for (std::size_t c = 0; c < kSums; ++c) {
      LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
        acc[c][t] = S::zero();
      }
    }
    std::size_t step = 0;
    const auto add_step = [&](auto c) LLMPRESS_LAMBDA {
      const auto columns = S::two_bit_fields(columns_at(W, pair, step));
      const auto w = pair_values<S, Type>(W, pair, step);
      LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
        const auto x =
            S::pick_in_fours(S::load(rows[t] + step * kLanes), columns);
        acc[c][t] = S::fma(x, w, acc[c][t]);
      }
      ++step;
    };
    while (step + kSums <= W.steps) {
      const std::byte* const next = W.values.data() + (pair * W.steps + step) *
                                                          kLanes *
                                                          value_bytes<Type>();
      for (std::size_t line = 0; line < kSums * kLanes * value_bytes<Type>();
           line += 64) {
        S::prefetch(next + kPrefetchBytes + line);
      }
      unrolled<kSums>(add_step);
    }
    while (step < W.steps) add_step(std::integral_constant<std::size_t, 0>{});
    for (std::size_t t = 0; t < tokens; ++t) {
      auto sums = S::add(acc[0][t], acc[1][t]);
      if constexpr (kSums == 4) {
        sums = S::add(sums, S::add(acc[2][t], acc[3][t]));
      }
      float first, second;
      add_lanes<S>(sums, first, second);
      y[t * y_stride + 2 * pair] = first;
      if (2 * pair + 1 < end) y[t * y_stride + 2 * pair + 1] = second;
    }
  }
}

template <class S, SparseValues Type>
void expand_pairs(const SparsePanels& W, SparseCursor& cursor,
                  std::size_t steps, float* dense) {
  const std::size_t pair = cursor.row / 2, lane = cursor.row % 2 * 2;
  std::fill_n(dense, steps * kLanes, 0.0f);
  for (std::size_t i = 0; i < steps; ++i, ++cursor.step) {
    float values[kLanes];
    S::store(values, pair_values<S, Type>(W, pair, cursor.step));
    const std::uint32_t columns = columns_at(W, pair, cursor.step);
    float* const to = dense + i * kLanes;
    LLMPRESS_UNROLL for (std::size_t four = 0; four < kLanes; four += 4) {
      const std::size_t at = four + lane;
      to[four + (columns >> 2 * at & 3)] = values[at];
      to[four + (columns >> 2 * (at + 1) & 3)] = values[at + 1];
    }
  }
}
