// Products of few tokens with panels (panel_kernels.h) for one instruction set S.
// Included once by each panel_kernels_*.cpp, inside its target stretch and its
// anonymous namespace; everything it needs is included there.

// The block `b` of panels [first, first + P) of N side by side. `p` is where the
// block begins in the stream.
template <class S, class D, std::size_t N, std::size_t P, std::size_t T>
LLMPRESS_INLINE void few_of_block(const PanelWeight& W, PanelBlock block,
                                  const std::byte* p, std::size_t first,
                                  const float* const* rows,
                                  typename S::F (&acc)[P][T]) {
  using F = typename S::F;
  const auto table = D::Table::of(W);
  LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
    LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
      acc[n][t] = S::zero();
    }
  }
  p += first * D::kBytes;
  for (std::size_t k = block.begin; k < block.end; k += D::kInputs) {
    typename D::State state[P];
    LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
      S::prefetch(p + n * D::kBytes + kPrefetchBytes);
      state[n] = D::load(p + n * D::kBytes, table);
    }
    unrolled<D::kInputs>([&](auto j) LLMPRESS_LAMBDA {
      F x[T];
      LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
        x[t] = S::broadcast(rows[t][k + j]);
      }
      LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
        const F w = D::template in_place<decltype(j)::value>(state[n], table);
        LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
          acc[n][t] = S::fma(x[t], w, acc[n][t]);
        }
      }
    });
    p += N * D::kBytes;
  }
}

// N panels side by side, T tokens.
template <class S, class D, std::size_t N, std::size_t T>
void few_tokens(const PanelWeight& W, std::size_t group,
                const float* const* rows, const FloatSums& sums, float* C) {
  using F = typename S::F;
  constexpr std::size_t P = panels_at_once<S>(N, T);
  const std::byte* p = W.group_data(group);
  const std::size_t panel = W.first_panel(group);
  F total[N][T];
  LLMPRESS_UNROLL for (std::size_t n = 0; n < N; ++n) {
    LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
      total[n][t] = S::zero();
    }
  }
  for (std::size_t g = 0; g < std::min(kScalesAhead, W.groups); ++g) {
    prefetch_scales<S, N>(W, panel, g);
  }
  for (std::size_t b = 0; b < W.blocks.size(); ++b) {
    const PanelBlock block = W.blocks[b];
    prefetch_scales<S, N>(W, panel, block.group + kScalesAhead);
    LLMPRESS_UNROLL for (std::size_t first = 0; first < N; first += P) {
      F acc[P][T];
      few_of_block<S, D, N, P, T>(W, block, p, first, rows, acc);
      LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
        const auto end = BlockEnd<S>::load(W, panel + first + n, block.group);
        LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
          F& sum = total[first + n][t];
          sum = end.apply(sum, acc[n][t], sums.sums,
                          b * sums.tokens + std::min(t, sums.tokens - 1));
        }
      }
    }
    p += (block.end - block.begin) / D::kInputs * N * D::kBytes;
  }
  LLMPRESS_UNROLL for (std::size_t n = 0; n < N; ++n) {
    LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
      S::store(C + t * kGroupRows + n * kPanelRows, total[n][t]);
    }
  }
}

// Whether blocks are summed in pairs, so that enough sums are under way to hide
// the latency of a multiplication: only where a vector holds many codes, since
// a second stream costs others more, and where a block is long.
template <class S, class D>
constexpr bool sums_pairs(std::size_t panels, std::size_t tokens) {
  return D::kDense && 2 * panels * tokens <= S::kFewestSums;
}
inline bool make_a_pair(PanelBlock a, PanelBlock b) {
  constexpr std::size_t kLeastDepth = 64;
  return a.end - a.begin == b.end - b.begin && a.end - a.begin >= kLeastDepth;
}

// B blocks of equal depth from block `b` on, of panels [first, first + P) of N
// side by side. `p` is where the first one begins in the stream.
template <class S, class D, std::size_t N, std::size_t P, std::size_t T,
          std::size_t B>
LLMPRESS_INLINE void few_of_blocks(const PanelBlock* blocks, const std::byte* p,
                                   std::size_t first, typename D::Table table,
                                   const float* const* rows,
                                   typename S::F (&acc)[B][P][T]) {
  using F = typename S::F;
  LLMPRESS_UNROLL for (std::size_t b = 0; b < B; ++b) {
    LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
      LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
        acc[b][n][t] = S::zero();
      }
    }
  }
  p += first * D::kBytes;
  const std::size_t depth = blocks[0].end - blocks[0].begin;
  const std::size_t stride = depth / D::kInputs * N * D::kBytes;
  // The same places of the next blocks: nothing is asked for twice.
  const std::size_t ahead =
      B == 1 ? kPrefetchBytes : std::max(kPrefetchBytes, B * stride);
  for (std::size_t k = blocks[0].begin; k < blocks[0].end; k += D::kInputs) {
    typename D::State state[B][P];
    LLMPRESS_UNROLL for (std::size_t b = 0; b < B; ++b) {
      LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
        const std::byte* const q = p + b * stride + n * D::kBytes;
        S::prefetch(q + ahead);
        state[b][n] = D::load(q, table);
      }
    }
    unrolled<D::kInputs>([&](auto j) LLMPRESS_LAMBDA {
      LLMPRESS_UNROLL for (std::size_t b = 0; b < B; ++b) {
        F x[T];
        LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
          x[t] = S::broadcast(rows[t][b * depth + k + j]);
        }
        LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
          const F w =
              D::template in_place<decltype(j)::value>(state[b][n], table);
          LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
            acc[b][n][t] = S::fma(x[t], w, acc[b][n][t]);
          }
        }
      }
    });
    p += N * D::kBytes;
  }
}

// One panel group and where its stream stands.
template <class S, std::size_t N, std::size_t T>
struct FewSums {
  const PanelWeight& W;
  std::size_t panel;
  const float* const* rows;
  const FloatSums& sums;
  const std::byte* p;
  typename S::F total[N][T];
};

// Adds blocks [b, b + B) of equal depth to the totals, in order.
template <class S, class D, std::size_t B, std::size_t N, std::size_t T>
LLMPRESS_INLINE void add_blocks(FewSums<S, N, T>& few, std::size_t b) {
  constexpr std::size_t P = panels_at_once<S>(N, T);
  const PanelWeight& W = few.W;
  const auto table = D::Table::of(W);
  const PanelBlock* const blocks = W.blocks.data() + b;
  LLMPRESS_UNROLL for (std::size_t first = 0; first < N; first += P) {
    typename S::F acc[B][P][T];
    few_of_blocks<S, D, N, P, T, B>(blocks, few.p, first, table, few.rows, acc);
    LLMPRESS_UNROLL for (std::size_t i = 0; i < B; ++i) {
      LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
        const auto end =
            BlockEnd<S>::load(W, few.panel + first + n, blocks[i].group);
        LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
          auto& sum = few.total[first + n][t];
          sum = end.apply(
              sum, acc[i][n][t], few.sums.sums,
              (b + i) * few.sums.tokens + std::min(t, few.sums.tokens - 1));
        }
      }
    }
  }
  few.p += (blocks[B - 1].end - blocks[0].begin) / D::kInputs * N * D::kBytes;
}

// The same as few_tokens(), two blocks at a time.
template <class S, class D, std::size_t N, std::size_t T>
void few_tokens_in_pairs(const PanelWeight& W, std::size_t group,
                         const float* const* rows, const FloatSums& sums,
                         float* C) {
  FewSums<S, N, T> few{W,    W.first_panel(group), rows,
                       sums, W.group_data(group),  {}};
  LLMPRESS_UNROLL for (std::size_t n = 0; n < N; ++n) {
    LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
      few.total[n][t] = S::zero();
    }
  }
  for (std::size_t g = 0; g < std::min(kScalesAhead, W.groups); ++g) {
    prefetch_scales<S, N>(W, few.panel, g);
  }
  for (std::size_t b = 0; b < W.blocks.size();) {
    prefetch_scales<S, N>(W, few.panel, W.blocks[b].group + kScalesAhead);
    if (b + 2 <= W.blocks.size() && make_a_pair(W.blocks[b], W.blocks[b + 1])) {
      add_blocks<S, D, 2>(few, b);
      b += 2;
    } else {
      add_blocks<S, D, 1>(few, b);
      ++b;
    }
  }
  LLMPRESS_UNROLL for (std::size_t n = 0; n < N; ++n) {
    LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
      S::store(C + t * kGroupRows + n * kPanelRows, few.total[n][t]);
    }
  }
}

template <class S>
void multiply_few(const PanelWeight& W, std::size_t group,
                  const float* const* rows, const FloatSums& sums, float* C) {
  with_decoder<S>(W, [&](auto decoder) LLMPRESS_LAMBDA {
    using D = decltype(decoder);
    with_few(sums.tokens, [&](auto t) LLMPRESS_LAMBDA {
      constexpr std::size_t T = decltype(t)::value;
      constexpr std::size_t N = kGroupPanels;
      if (W.panels_in_group(group) == N) {
        if constexpr (sums_pairs<S, D>(panels_at_once<S>(N, T), T)) {
          if (W.blocks.size() > 1 && make_a_pair(W.blocks[0], W.blocks[1])) {
            return few_tokens_in_pairs<S, D, N, T>(W, group, rows, sums, C);
          }
        }
        few_tokens<S, D, N, T>(W, group, rows, sums, C);
      } else {
        few_tokens<S, D, 1, T>(W, group, rows, sums, C);
      }
    });
  });
}
