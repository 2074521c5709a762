// Products of many tokens, and the functions of panel_kernels.h, for one
// instruction set S (simd_avx512.h, simd_avx2.h). Included once by each
// panel_kernels_*.cpp, inside its target stretch and its anonymous namespace;
// everything it needs is included there.

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
  const float* next_x;  // of the tile that comes next
};

template <class S, std::size_t M, std::size_t P>
void multiply_tile(const PanelWeight& W, const FloatTile& given) {
  const FloatTile tile = given;  // which no result is written over
  using F = typename S::F;
  const float* x = tile.x;
  const float* w = tile.w;
  const float* next = tile.next_x;
  prefetch_results<S, M, P>(tile.C, tile.ldc);
  for (std::size_t b = tile.first_block; b < tile.end_block; ++b) {
    const PanelBlock block = W.blocks[b];
    F acc[M][P];
    LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
      LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
        acc[m][p] = S::zero();
      }
    }
    for (std::size_t k = block.begin; k < block.end; ++k) {
      if constexpr (S::kPrefetchesTiles) S::prefetch(next);
      next += M;
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
  const auto* const x = reinterpret_cast<const float*>(X.data);
  const std::size_t ldc = range.groups * kGroupRows;
  C += (group - range.first_group) * kGroupRows;
  const auto inputs_of = [&](std::size_t i) {
    const std::size_t first = X.first[i], tokens = X.first[i + 1] - first;
    return x + first * W.depth + begin * tokens;
  };
  // The two panels of w stay in the first level cache, the tokens pass by.
  for (std::size_t n = 0; n < panels; n += width) {
    for (std::size_t i = range.first_tile; i < range.end_tile; ++i) {
      const std::size_t first = X.first[i], tokens = X.first[i + 1] - first;
      const FloatTile tile{
          W.first_panel(group) + n,
          first_block,
          end_block,
          inputs_of(i),
          w + n * kPanelRows * depth,
          sums,
          first,
          C + (first - X.first[range.first_tile]) * ldc + n * kPanelRows,
          ldc,
          inputs_of(i + 1 < range.end_tile ? i + 1 : range.first_tile)};
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
  const auto* const x = reinterpret_cast<const float*>(X.data);
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
            ldc,
            nullptr};
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
