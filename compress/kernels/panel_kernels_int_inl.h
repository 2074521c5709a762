// The integer products of panel_kernels.h for one instruction set S; see
// panel_kernels_inl.h, which comes first.

// --- decoding: one step of a panel into unsigned octets, four a lane --------

template <class S>
struct OctetsOfByte {
  static constexpr std::size_t kInputs = 4, kBytes = 4 * kPanelRows;
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::I get(typename S::I lanes) {
    return lanes;
  }
};

template <class S>
struct OctetsOfNibble {
  static constexpr std::size_t kInputs = 8, kBytes = 4 * kPanelRows;
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::I get(typename S::I lanes) {
    const typename S::I low = S::template shift_right<4 * J>(lanes);
    return S::and_(low, S::broadcast_lanes(0x0f0f0f0f));
  }
};

// --- the end of a block -----------------------------------------------------

// total + s float(acc - code_zero sum - token_zero (weight sum)), where acc is
// the sum of unsigned codes times activation codes.
template <class S>
struct IntBlockEnd {
  typename S::F scale;
  typename S::I code_zero, weight_sum;
  bool has_zero;

  static LLMPRESS_INLINE IntBlockEnd load(const PanelWeight& W,
                                          const IntSums& sums,
                                          std::size_t panel, std::size_t block,
                                          std::size_t group) {
    const std::size_t slot = W.slot(panel, group);
    IntBlockEnd e{load_scales<S>(W, slot), S::broadcast_lanes(W.centre),
                  S::zero_lanes(), W.zero_type != PanelZeroType::kNone};
    switch (W.zero_type) {
      case PanelZeroType::kNone:
        break;
      case PanelZeroType::kI8:
        e.code_zero =
            S::add(e.code_zero, S::load_i8_lanes(W.zeros.data() + slot));
        break;
      case PanelZeroType::kF32:
        e.code_zero = S::add(e.code_zero,
                             S::to_lanes(S::load(W.zeros.data() + slot * 4)));
        break;
    }
    if (sums.token_zeros != nullptr) {
      e.weight_sum =
          S::load_lanes(sums.weight_sums +
                        (panel * W.int_blocks.size() + block) * kPanelRows);
    }
    return e;
  }
  LLMPRESS_INLINE typename S::F apply(typename S::F total, typename S::I acc,
                                      const IntSums& sums, std::size_t block,
                                      std::size_t token) const {
    const auto sum = S::broadcast_lanes(sums.sums[block * sums.tokens + token]);
    acc = S::sub(acc, has_zero ? S::mul(code_zero, sum) : sum);
    if (sums.token_zeros != nullptr) {
      const auto zero = S::broadcast_lanes(sums.token_zeros[token]);
      acc = S::sub(acc, S::mul(weight_sum, zero));
    }
    return S::fma(scale, S::to_float(acc), total);
  }
};

// --- few tokens -------------------------------------------------------------

template <class S, class D, std::size_t N, std::size_t T>
void few_tokens_int(const PanelWeight& W, std::size_t group,
                    const std::int8_t* const* rows, const IntSums& sums,
                    float* C) {
  const std::byte* p = W.group_data(group);
  const std::size_t panel = W.first_panel(group);
  typename S::F total[N][T];
  LLMPRESS_UNROLL for (std::size_t n = 0; n < N; ++n) {
    LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
      total[n][t] = S::zero();
    }
  }
  for (std::size_t b = 0; b < W.int_blocks.size(); ++b) {
    const PanelBlock block = W.int_blocks[b];
    typename S::I acc[N][T];
    LLMPRESS_UNROLL for (std::size_t n = 0; n < N; ++n) {
      LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
        acc[n][t] = S::zero_lanes();
      }
    }
    for (std::size_t k = block.begin; k < block.end; k += D::kInputs) {
      LLMPRESS_UNROLL for (std::size_t n = 0; n < N; ++n) {
        S::prefetch(p + kPrefetchBytes);
        const typename S::I lanes = S::load_lanes(p);
        unrolled<D::kInputs / 4>([&](auto j) LLMPRESS_LAMBDA {
          const auto w = D::template get<decltype(j)::value>(lanes);
          LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
            acc[n][t] =
                S::dot(acc[n][t], w, S::broadcast_octets(rows[t] + k + 4 * j));
          }
        });
        p += D::kBytes;
      }
    }
    LLMPRESS_UNROLL for (std::size_t n = 0; n < N; ++n) {
      const auto end = IntBlockEnd<S>::load(W, sums, panel + n, b, block.group);
      LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
        total[n][t] = end.apply(total[n][t], acc[n][t], sums, b,
                                std::min(t, sums.tokens - 1));
      }
    }
  }
  LLMPRESS_UNROLL for (std::size_t n = 0; n < N; ++n) {
    LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
      S::store(C + t * kGroupRows + n * kPanelRows, total[n][t]);
    }
  }
}

template <class S, class D>
void multiply_few_int_as(const PanelWeight& W, std::size_t group,
                         const std::int8_t* const* rows, const IntSums& sums,
                         float* C) {
  with_few(sums.tokens, [&](auto t) LLMPRESS_LAMBDA {
    constexpr std::size_t T = decltype(t)::value;
    if (W.panels_in_group(group) == kGroupPanels) {
      few_tokens_int<S, D, kGroupPanels, T>(W, group, rows, sums, C);
    } else {
      few_tokens_int<S, D, 1, T>(W, group, rows, sums, C);
    }
  });
}

template <class S>
void multiply_few_int(const PanelWeight& W, std::size_t group,
                      const std::int8_t* const* rows, const IntSums& sums,
                      float* C) {
  if (W.format == PanelFormat::kNibble) {
    multiply_few_int_as<S, OctetsOfNibble<S>>(W, group, rows, sums, C);
  } else {
    assert(W.format == PanelFormat::kByte);
    multiply_few_int_as<S, OctetsOfByte<S>>(W, group, rows, sums, C);
  }
}

// --- many tokens ------------------------------------------------------------

// Inputs of the decoded tile: 64 rows of octets are 128 KiB.
constexpr std::size_t kIntTileDepth = 2048;

// A part of a block that lies in one decoded tile. Between the pieces of a
// block the integer sums wait in memory.
struct IntPiece {
  std::size_t begin, end, block;
  bool first, last;
};

inline std::vector<IntPiece> cut_int_blocks(
    const std::vector<PanelBlock>& blocks) {
  std::vector<IntPiece> pieces;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const std::size_t begin = blocks[b].begin, end = blocks[b].end;
    for (std::size_t k = begin; k < end; k += kIntTileDepth) {
      const std::size_t stop = std::min(k + kIntTileDepth, end);
      pieces.push_back({k, stop, b, k == begin, stop == end});
    }
  }
  return pieces;
}

template <class S, class D>
void decode_int_tile(const PanelWeight& W, std::size_t group, std::size_t begin,
                     std::size_t end, std::int32_t* tile) {
  const std::size_t panels = W.panels_in_group(group);
  const std::size_t row = tile_width<S>(panels) * kPanelRows;
  const std::byte* p =
      W.group_data(group) + begin / D::kInputs * panels * D::kBytes;
  for (std::size_t k = 0; k < end - begin; k += D::kInputs) {
    for (std::size_t n = 0; n < panels; ++n, p += D::kBytes) {
      const std::size_t column = n * kPanelRows;
      std::int32_t* const to = tile + column / row * row * ((end - begin) / 4) +
                               k / 4 * row + column % row;
      const typename S::I lanes = S::load_lanes(p);
      unrolled<D::kInputs / 4>([&](auto j) LLMPRESS_LAMBDA {
        S::store_lanes(to + j * row,
                       D::template get<decltype(j)::value>(lanes));
      });
    }
  }
}

// One register tile: M tokens times P panels over the pieces.
struct IntTile {
  std::size_t panel, first_token;
  std::span<const IntPiece> pieces;
  const std::int8_t* x;   // [inputs / 4, M, 4]
  const std::int32_t* w;  // [inputs / 4, P, 16] of four octets
  float* C;
  std::int32_t* partial;  // of the shape of C
  std::size_t ldc;
};

template <class S, std::size_t M, std::size_t P>
void multiply_int_tile(const PanelWeight& W, const IntSums& sums,
                       const IntTile& tile) {
  using I = typename S::I;
  const std::int8_t* x = tile.x;
  const std::int32_t* w = tile.w;
  for (const IntPiece& piece : tile.pieces) {
    I acc[M][P];
    LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
      LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
        acc[m][p] = S::zero_lanes();
      }
    }
    for (std::size_t k = piece.begin; k < piece.end; k += 4) {
      I column[P];
      LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
        column[p] = S::load_lanes(w + p * kPanelRows);
      }
      LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
        const auto octets = S::broadcast_octets(x + 4 * m);
        LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
          acc[m][p] = S::dot(acc[m][p], column[p], octets);
        }
      }
      x += 4 * M;
      w += P * kPanelRows;
    }
    LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
      const auto end =
          IntBlockEnd<S>::load(W, sums, tile.panel + p, piece.block,
                               W.int_blocks[piece.block].group);
      LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
        const std::size_t place = m * tile.ldc + p * kPanelRows;
        I sum = acc[m][p];
        if (!piece.first) {
          sum = S::add(sum, S::load_lanes(tile.partial + place));
        }
        if (piece.last) {
          S::store(tile.C + place,
                   end.apply(S::load(tile.C + place), sum, sums, piece.block,
                             tile.first_token + m));
        } else {
          S::store_lanes(tile.partial + place, sum);
        }
      }
    }
  }
}

template <class S>
void multiply_int_group(const PanelWeight& W, const TileRange& range,
                        std::size_t group, std::span<const IntPiece> pieces,
                        const TokenTiles& X, const IntSums& sums,
                        const std::int32_t* w, float* C,
                        std::int32_t* partial) {
  const std::size_t begin = pieces.front().begin;
  const std::size_t depth = pieces.back().end - begin;
  const std::size_t panels = W.panels_in_group(group);
  const std::size_t width = tile_width<S>(panels);
  const auto* const x = reinterpret_cast<const std::int8_t*>(X.data);
  const std::size_t ldc = range.groups * kGroupRows;
  for (std::size_t n = 0; n < panels; n += width) {
    for (std::size_t i = range.first_tile; i < range.end_tile; ++i) {
      const std::size_t first = X.first[i], tokens = X.first[i + 1] - first;
      const std::size_t place = (first - X.first[range.first_tile]) * ldc +
                                (group - range.first_group) * kGroupRows +
                                n * kPanelRows;
      const IntTile tile{W.first_panel(group) + n,
                         first,
                         pieces,
                         x + first * W.depth + begin * tokens,
                         w + n * kPanelRows * (depth / 4),
                         C + place,
                         partial + place,
                         ldc};
      with_tile_size<S>(tokens, [&](auto m) LLMPRESS_LAMBDA {
        constexpr std::size_t M = decltype(m)::value;
        if (width == S::kTilePanels) {
          multiply_int_tile<S, M, S::kTilePanels>(W, sums, tile);
        } else {
          multiply_int_tile<S, M, 1>(W, sums, tile);
        }
      });
    }
  }
}

template <class S>
void multiply_tiles_int(const PanelWeight& W, const TileRange& range,
                        const TokenTiles& X, const IntSums& sums, float* C) {
  static thread_local AlignedBuffer tile_buffer(kGroupRows * kIntTileDepth);
  auto* const tile = reinterpret_cast<std::int32_t*>(tile_buffer.data());
  const std::size_t tokens =
      X.first[range.end_tile] - X.first[range.first_tile];
  const std::vector<IntPiece> pieces = cut_int_blocks(W.int_blocks);
  // Blocks that do not end with their piece need a place for the sums.
  const bool whole =
      std::all_of(pieces.begin(), pieces.end(),
                  [](const IntPiece& p) { return p.first && p.last; });
  const std::size_t sums_needed =
      whole ? 0 : tokens * range.groups * kGroupRows;
  static thread_local AlignedBuffer partial_buffer;
  if (partial_buffer.size() < sums_needed * sizeof(std::int32_t)) {
    partial_buffer = AlignedBuffer(sums_needed * sizeof(std::int32_t));
  }
  auto* const partial = reinterpret_cast<std::int32_t*>(partial_buffer.data());
  for (std::size_t i = 0; i < pieces.size();) {
    std::size_t end = i + 1;
    while (end < pieces.size() &&
           pieces[end].end - pieces[i].begin <= kIntTileDepth) {
      ++end;
    }
    const auto stretch = std::span(pieces).subspan(i, end - i);
    for (std::size_t g = 0; g < range.groups; ++g) {
      const std::size_t group = range.first_group + g;
      if (W.format == PanelFormat::kNibble) {
        decode_int_tile<S, OctetsOfNibble<S>>(W, group, stretch.front().begin,
                                              stretch.back().end, tile);
      } else {
        assert(W.format == PanelFormat::kByte);
        decode_int_tile<S, OctetsOfByte<S>>(W, group, stretch.front().begin,
                                            stretch.back().end, tile);
      }
      multiply_int_group<S>(W, range, group, stretch, X, sums, tile, C,
                            partial);
    }
    i = end;
  }
}
