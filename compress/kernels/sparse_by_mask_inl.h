// Rows of numbers under a mask (sparse_kernels.h) for one instruction set S.

template <SparseValues Type>
constexpr std::size_t value_bytes() {
  if constexpr (Type == SparseValues::kF32) return 4;
  if constexpr (Type == SparseValues::kCodes) return 1;
  return 2;
}

// 16 columns of a row, zeros where the mask has no bit.
template <class S, SparseValues Type>
LLMPRESS_INLINE typename S::F expand_step(const SparsePanels& W,
                                          const std::byte* p, unsigned mask,
                                          std::size_t row, std::size_t step) {
  if constexpr (Type == SparseValues::kF32) return S::load_expanded(p, mask);
  if constexpr (Type == SparseValues::kF16) {
    return S::load_expanded_f16(p, mask);
  }
  if constexpr (Type == SparseValues::kBF16) {
    return S::load_expanded_bf16(p, mask);
  }
  if constexpr (Type == SparseValues::kCodes) {
    const std::size_t slot = row * W.groups + W.group_of[step];
    const auto steps =
        S::sub(S::load_expanded_u8(p, mask), S::broadcast(W.zeros[slot]));
    return S::keep(S::mul(steps, S::broadcast(W.scales[slot])), mask);
  }
}

LLMPRESS_INLINE unsigned mask_at(const SparsePanels& W, std::size_t row,
                                 std::size_t step) {
  std::uint16_t mask = 0;
  std::memcpy(&mask, W.masks.data() + (row * W.steps + step) * sizeof mask,
              sizeof mask);
  return mask;
}

// Independent sums of a row hide the latency of the multiplier.
constexpr std::size_t kChains = 4;

template <class S, SparseValues Type, std::size_t T>
void multiply_sparse_rows(const SparsePanels& W, std::size_t begin,
                          std::size_t end, const float* const* rows,
                          std::size_t tokens, float* y, std::size_t y_stride) {
  const std::byte* p =
      W.values.data() + W.row_offsets[begin] * value_bytes<Type>();
  for (std::size_t o = begin; o < end; ++o) {
    typename S::F acc[kChains][T];
    LLMPRESS_UNROLL for (std::size_t c = 0; c < kChains; ++c) {
      LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
        acc[c][t] = S::zero();
      }
    }
    std::size_t step = 0;
    const auto add_step = [&](auto c) LLMPRESS_LAMBDA {
      const unsigned mask = mask_at(W, o, step);
      const auto w = expand_step<S, Type>(W, p, mask, o, step);
      p += static_cast<std::size_t>(__builtin_popcount(mask)) *
           value_bytes<Type>();
      LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
        acc[c][t] = S::fma(S::load(rows[t] + step * kLanes), w, acc[c][t]);
      }
      ++step;
    };
    while (step + kChains <= W.steps) {
      S::prefetch(p + kPrefetchBytes);
      S::prefetch(p + kPrefetchBytes + 64);
      unrolled<kChains>(add_step);
    }
    while (step < W.steps) add_step(std::integral_constant<std::size_t, 0>{});
    for (std::size_t t = 0; t < tokens; ++t) {
      y[t * y_stride + o] = S::sum(
          S::add(S::add(acc[0][t], acc[1][t]), S::add(acc[2][t], acc[3][t])));
    }
  }
}

template <class S, SparseValues Type>
void expand_steps(const SparsePanels& W, SparseCursor& cursor,
                  std::size_t steps, float* dense) {
  for (std::size_t i = 0; i < steps; ++i, ++cursor.step) {
    const unsigned mask = mask_at(W, cursor.row, cursor.step);
    S::store(dense + i * kLanes, expand_step<S, Type>(W, cursor.next, mask,
                                                      cursor.row, cursor.step));
    cursor.next += static_cast<std::size_t>(__builtin_popcount(mask)) *
                   value_bytes<Type>();
  }
}
