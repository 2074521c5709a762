// The functions of panel_kernels.h for one instruction set S (simd_avx512.h,
// simd_avx2.h). Included once by each panel_kernels_*.cpp, inside its target
// stretch and its anonymous namespace; everything it needs is included there.

// --- decoding: one step of a panel, 16 rows, into floats --------------------

// What decoders that need none are given.
struct NoTable {
  static LLMPRESS_INLINE NoTable of(const PanelWeight&) { return {}; }
};

// The formats whose step is one input.
template <class S, PanelFormat Format, std::size_t LaneBytes>
struct DecodeElement {
  static constexpr std::size_t kInputs = 1;
  static constexpr std::size_t kBytes = LaneBytes * kPanelRows;
  static constexpr bool kDense = false;
  using State = typename S::F;
  using Table = NoTable;
  static LLMPRESS_INLINE State load(const std::byte* p, Table) {
    if constexpr (Format == PanelFormat::kF16) return S::load_f16(p);
    if constexpr (Format == PanelFormat::kBF16) return S::load_bf16(p);
    if constexpr (Format == PanelFormat::kE4M3) return S::load_e4m3(p);
    if constexpr (Format == PanelFormat::kE5M2) return S::load_e5m2(p);
    return S::load(p);
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F get(State s, Table) {
    return s;
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F in_place(State s, Table) {
    return s;
  }
};

// Where the code of input J stands in a lane of 32 / Bits codes.
template <unsigned Bits>
constexpr unsigned place_of(std::size_t j) {
  if (Bits == 4) {
    return static_cast<unsigned>(8 * (j % 4) + (j < 4 ? 0 : 4));
  }
  return static_cast<unsigned>(Bits * j);
}

// Codes that are their values but for PanelWeight::least.
template <class S, unsigned Bits>
struct DecodePlain {
  static constexpr std::size_t kInputs = 32 / Bits, kBytes = 4 * kPanelRows;
  static constexpr bool kDense = Bits <= 4;
  using State = typename S::I;
  using Table = NoTable;
  static LLMPRESS_INLINE State load(const std::byte* p, Table) {
    return S::load_lanes(p);
  }
  // 2^place code, to be multiplied with x / 2^place (place_factors()).
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F in_place(State s, Table) {
    constexpr unsigned kPlace = place_of<Bits>(J);
    if constexpr (kPlace + Bits == 32) {
      return S::to_float(S::template shift_right<kPlace>(s));
    } else {
      constexpr auto kMask =
          static_cast<std::int32_t>(((1u << Bits) - 1) << kPlace);
      return S::to_float(S::and_(s, S::broadcast_lanes(kMask)));
    }
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F get(State s, Table) {
    constexpr auto kMask = static_cast<std::int32_t>((1u << Bits) - 1);
    const State low = S::template shift_right<place_of<Bits>(J)>(s);
    return S::to_float(S::and_(low, S::broadcast_lanes(kMask)));
  }
};

// Codes of a table of floats.
template <class S, unsigned Bits>
struct DecodeTable {
  static constexpr std::size_t kInputs = 32 / Bits, kBytes = 4 * kPanelRows;
  static constexpr bool kDense = Bits <= 4;
  using State = typename S::I;
  struct Table {
    typename S::Table values;
    static LLMPRESS_INLINE Table of(const PanelWeight& W) {
      return {S::load_table(W.table)};
    }
  };
  static LLMPRESS_INLINE State load(const std::byte* p, Table) {
    return S::load_lanes(p);
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F get(State s, Table table) {
    return S::look_up(table.values,
                      S::template shift_right<place_of<Bits>(J)>(s));
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F in_place(State s, Table table) {
    return get<J>(s, table);
  }
};

// Nibbles that stand for small whole numbers: all of a lane are looked up at
// once, then they are octets.
template <class S>
struct DecodeMapped {
  static constexpr std::size_t kInputs = 8, kBytes = 4 * kPanelRows;
  static constexpr bool kDense = false;
  using Octets = DecodePlain<S, 8>;
  struct State {
    typename S::I low, high;
  };
  struct Table {
    typename S::OctetTable numbers;
    static LLMPRESS_INLINE Table of(const PanelWeight& W) {
      return {S::load_octet_table(W.map_high)};
    }
  };
  static LLMPRESS_INLINE State load(const std::byte* p, Table table) {
    const auto lanes = S::load_lanes(p);
    const auto mask = S::broadcast_lanes(0x0f0f0f0f);
    return {
        S::look_up_octets(table.numbers, S::and_(lanes, mask)),
        S::look_up_octets(table.numbers,
                          S::and_(S::template shift_right<4>(lanes), mask))};
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F get(State s, Table) {
    return Octets::template get<J % 4>(J < 4 ? s.low : s.high, NoTable{});
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F in_place(State s, Table) {
    return Octets::template in_place<J % 4>(J < 4 ? s.low : s.high, NoTable{});
  }
};

// Calls f with the decoder of W's codes as a type.
template <class S, class F>
LLMPRESS_INLINE void with_decoder(const PanelWeight& W, F f) {
  const bool plain = W.codes == PanelCodes::kPlain;
  switch (W.format) {
    case PanelFormat::kF32:
      return f(DecodeElement<S, PanelFormat::kF32, 4>{});
    case PanelFormat::kF16:
      return f(DecodeElement<S, PanelFormat::kF16, 2>{});
    case PanelFormat::kBF16:
      return f(DecodeElement<S, PanelFormat::kBF16, 2>{});
    case PanelFormat::kE4M3:
      return f(DecodeElement<S, PanelFormat::kE4M3, 1>{});
    case PanelFormat::kE5M2:
      return f(DecodeElement<S, PanelFormat::kE5M2, 1>{});
    case PanelFormat::kByte:
      return f(DecodePlain<S, 8>{});
    case PanelFormat::kNibble:
      if (W.codes == PanelCodes::kMapped) return f(DecodeMapped<S>{});
      return plain ? f(DecodePlain<S, 4>{}) : f(DecodeTable<S, 4>{});
    case PanelFormat::kCrumb:
      return plain ? f(DecodePlain<S, 2>{}) : f(DecodeTable<S, 2>{});
  }
}

// --- the end of a block -----------------------------------------------------

// The zeros less what whole numbers leave out.
template <class S>
LLMPRESS_INLINE typename S::F load_offsets(const PanelWeight& W,
                                           std::size_t slot) {
  const typename S::F zeros = load_zeros<S>(W, slot);
  return W.multiplies_in_place() ? S::sub(zeros, S::broadcast(W.least)) : zeros;
}

// total + s (acc - z sum), the same operations wherever a block ends; z is the
// zero less what plain codes leave out.
template <class S>
struct BlockEnd {
  typename S::F scale, scaled_zero;
  bool has_zero;

  static LLMPRESS_INLINE BlockEnd load(const PanelWeight& W, std::size_t panel,
                                       std::size_t group) {
    const std::size_t slot = W.slot(panel, group);
    BlockEnd e{load_scales<S>(W, slot), S::zero(), W.needs_sums()};
    if (e.has_zero) {
      e.scaled_zero = S::mul(e.scale, load_offsets<S>(W, slot));
    }
    if (W.codes == PanelCodes::kMapped) {
      e.scale = S::mul(e.scale, S::broadcast(W.unit));
    }
    return e;
  }
  // `slot` of the sums belongs to the block and the token.
  LLMPRESS_INLINE typename S::F apply(typename S::F total, typename S::F acc,
                                      const float* sums,
                                      std::size_t slot) const {
    total = S::fma(scale, acc, total);
    if (has_zero) {
      total = S::fnma(scaled_zero, S::broadcast(sums[slot]), total);
    }
    return total;
  }
};

// --- few tokens: decode and multiply in registers ---------------------------

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

// --- many tokens: decode a tile of W once, multiply from the cache ----------

// The decoded tile of a panel group: register tiles of `width` panels one after
// the other, each [inputs, width, 16].
template <class S, class D>
void decode_tile(const PanelWeight& W, std::size_t group, std::size_t begin,
                 std::size_t end, float* tile) {
  const auto table = D::Table::of(W);
  const std::size_t panels = W.panels_in_group(group);
  const std::size_t row = tile_width<S>(panels) * kPanelRows;
  const std::byte* p =
      W.group_data(group) + begin / D::kInputs * panels * D::kBytes;
  for (std::size_t k = 0; k < end - begin; k += D::kInputs) {
    for (std::size_t n = 0; n < panels; ++n, p += D::kBytes) {
      const std::size_t column = n * kPanelRows;
      float* const to =
          tile + column / row * row * (end - begin) + k * row + column % row;
      const typename D::State state = D::load(p, table);
      unrolled<D::kInputs>([&](auto j) LLMPRESS_LAMBDA {
        S::store(to + j * row,
                 D::template get<decltype(j)::value>(state, table));
      });
    }
  }
}

// One register tile: M tokens times P panels over the blocks [first, end).
struct FloatTile {
  std::size_t panel, first_block, end_block;
  const float* x;  // [inputs, M]
  const float* w;  // [inputs, P, 16]
  FloatSums sums;
  std::size_t first_token;
  float* C;
  std::size_t ldc;
};

template <class S, std::size_t M, std::size_t P>
void multiply_tile(const PanelWeight& W, const FloatTile& tile) {
  using F = typename S::F;
  const float* x = tile.x;
  const float* w = tile.w;
  for (std::size_t b = tile.first_block; b < tile.end_block; ++b) {
    const PanelBlock block = W.blocks[b];
    F acc[M][P];
    LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
      LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
        acc[m][p] = S::zero();
      }
    }
    for (std::size_t k = block.begin; k < block.end; ++k) {
      F column[P];
      LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
        column[p] = S::load(w + p * kPanelRows);
      }
      LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
        const F value = S::broadcast(x[m]);
        LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
          acc[m][p] = S::fma(value, column[p], acc[m][p]);
        }
      }
      x += M;
      w += P * kPanelRows;
    }
    LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
      const auto end = BlockEnd<S>::load(W, tile.panel + p, block.group);
      LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
        float* const c = tile.C + m * tile.ldc + p * kPanelRows;
        S::store(c, end.apply(S::load(c), acc[m][p], tile.sums.sums,
                              b * tile.sums.tokens + tile.first_token + m));
      }
    }
  }
}

// One decoded tile of a panel group times all tokens of the range.
template <class S>
void multiply_group(const PanelWeight& W, const TileRange& range,
                    std::size_t group, std::size_t first_block,
                    std::size_t end_block, const TokenTiles& X,
                    const FloatSums& sums, const float* w, float* C) {
  const std::size_t begin = W.blocks[first_block].begin;
  const std::size_t depth = W.blocks[end_block - 1].end - begin;
  const std::size_t panels = W.panels_in_group(group);
  const std::size_t width = tile_width<S>(panels);
  const auto* const x = reinterpret_cast<const float*>(X.data.data());
  const std::size_t ldc = range.groups * kGroupRows;
  C += (group - range.first_group) * kGroupRows;
  // The two panels of w stay in the first level cache, the tokens pass by.
  for (std::size_t n = 0; n < panels; n += width) {
    for (std::size_t i = range.first_tile; i < range.end_tile; ++i) {
      const std::size_t first = X.first[i], tokens = X.first[i + 1] - first;
      const FloatTile tile{
          W.first_panel(group) + n,
          first_block,
          end_block,
          x + first * W.depth + begin * tokens,
          w + n * kPanelRows * depth,
          sums,
          first,
          C + (first - X.first[range.first_tile]) * ldc + n * kPanelRows,
          ldc};
      with_tile_size<S>(tokens, [&](auto m) LLMPRESS_LAMBDA {
        constexpr std::size_t M = decltype(m)::value;
        if (width == S::kTilePanels) {
          multiply_tile<S, M, S::kTilePanels>(W, tile);
        } else {
          multiply_tile<S, M, 1>(W, tile);
        }
      });
    }
  }
}

template <class S>
constexpr std::size_t next_panel_tile(std::size_t remaining) {
  return next_token_tile(remaining, S::kTileTokens);
}

// --- some tokens: decode and multiply in registers, tile after tile ---------

// One register tile, M tokens times P of the N panels side by side, over one
// block: `p` is where the block of the first one begins.
template <class S, class D, std::size_t N, std::size_t M, std::size_t P>
void multiply_fused(const PanelWeight& W, const FloatTile& tile,
                    const std::byte* p) {
  using F = typename S::F;
  const auto table = D::Table::of(W);
  const PanelBlock block = W.blocks[tile.first_block];
  const float* x = tile.x;
  F acc[M][P];
  LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
    LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
      acc[m][n] = S::zero();
    }
  }
  for (std::size_t k = block.begin; k < block.end; k += D::kInputs) {
    typename D::State state[P];
    LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
      S::prefetch(p + n * D::kBytes + kPrefetchBytes);
      state[n] = D::load(p + n * D::kBytes, table);
    }
    unrolled<D::kInputs>([&](auto j) LLMPRESS_LAMBDA {
      F column[P];
      LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
        column[n] = D::template get<decltype(j)::value>(state[n], table);
      }
      LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
        const F value = S::broadcast(x[j * M + m]);
        LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
          acc[m][n] = S::fma(value, column[n], acc[m][n]);
        }
      }
    });
    x += D::kInputs * M;
    p += N * D::kBytes;
  }
  LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
    const auto end = BlockEnd<S>::load(W, tile.panel + n, block.group);
    LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
      float* const c = tile.C + m * tile.ldc + n * kPanelRows;
      S::store(c, end.apply(S::load(c), acc[m][n], tile.sums.sums,
                            tile.first_block * tile.sums.tokens +
                                tile.first_token + m));
    }
  }
}

// A whole panel group times the tokens of the range, block after block.
template <class S, class D>
void multiply_group_fused(const PanelWeight& W, const TileRange& range,
                          std::size_t group, const TokenTiles& X,
                          const FloatSums& sums, float* C) {
  constexpr std::size_t N = kGroupPanels, P = S::kTilePanels;
  const auto* const x = reinterpret_cast<const float*>(X.data.data());
  const std::size_t ldc = range.groups * kGroupRows;
  const std::byte* p = W.group_data(group);
  C += (group - range.first_group) * kGroupRows;
  for (std::size_t b = 0; b < W.blocks.size(); ++b) {
    const PanelBlock block = W.blocks[b];
    for (std::size_t n = 0; n < N; n += P) {
      for (std::size_t i = range.first_tile; i < range.end_tile; ++i) {
        const std::size_t first = X.first[i], tokens = X.first[i + 1] - first;
        const FloatTile tile{
            W.first_panel(group) + n,
            b,
            b + 1,
            x + first * W.depth + block.begin * tokens,
            nullptr,
            sums,
            first,
            C + (first - X.first[range.first_tile]) * ldc + n * kPanelRows,
            ldc};
        with_tile_size<S>(tokens, [&](auto m) LLMPRESS_LAMBDA {
          multiply_fused<S, D, N, decltype(m)::value, P>(W, tile,
                                                         p + n * D::kBytes);
        });
      }
    }
    p += (block.end - block.begin) / D::kInputs * N * D::kBytes;
  }
}

template <class S>
void multiply_stretch(const PanelWeight& W, const TileRange& range,
                      std::size_t group, std::size_t first_block,
                      std::size_t end_block, const TokenTiles& X,
                      const FloatSums& sums, float* tile, float* C) {
  with_decoder<S>(W, [&](auto decoder) LLMPRESS_LAMBDA {
    decode_tile<S, decltype(decoder)>(W, group, W.blocks[first_block].begin,
                                      W.blocks[end_block - 1].end, tile);
  });
  multiply_group<S>(W, range, group, first_block, end_block, X, sums, tile, C);
}

template <class S>
void multiply_tiles(const PanelWeight& W, const TileRange& range,
                    const TokenTiles& X, const FloatSums& sums, float* C) {
  // Kept for the life of the thread: a tile of this size would be mapped and
  // unmapped by the allocator at every call.
  static thread_local AlignedBuffer tile_buffer(kGroupRows * kBlockDepth *
                                                sizeof(float));
  auto* const tile = reinterpret_cast<float*>(tile_buffer.data());
  const bool fused = range.end_tile - range.first_tile <= S::kFusedTiles;
  for (std::size_t g = 0; g < range.groups && fused; ++g) {
    const std::size_t group = range.first_group + g;
    if (W.panels_in_group(group) != kGroupPanels) continue;
    with_decoder<S>(W, [&](auto decoder) {
      multiply_group_fused<S, decltype(decoder)>(W, range, group, X, sums, C);
    });
  }
  for (std::size_t b = 0; b < W.blocks.size();) {
    const std::size_t end = end_of_stretch(W.blocks, b, kBlockDepth);
    for (std::size_t g = 0; g < range.groups; ++g) {
      const std::size_t group = range.first_group + g;
      if (fused && W.panels_in_group(group) == kGroupPanels) continue;
      multiply_stretch<S>(W, range, group, b, end, X, sums, tile, C);
    }
    b = end;
  }
}
