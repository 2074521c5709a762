// Products of many tokens with rounded inputs (rounded_kernels.h) for one
// instruction set S: decode a tile of W once, multiply from the cache. Included
// after rounded_kernels_inl.h.

// FP4's numbers, of which four products with octets fit into 16 bits.
constexpr int kFewHalves = 31;

// with_octets() and a type of its own for small tables.
template <class S, class F>
LLMPRESS_INLINE void with_tile_octets(const PanelWeight& W, F f) {
  if constexpr (S::kSumsWords) {
    if (W.codes == PanelCodes::kMapped &&
        *std::max_element(W.map_high, std::end(W.map_high)) <= kFewHalves) {
      return f(MappedOctets<S, 1, kFewHalves>{});
    }
  }
  with_octets<S>(W, f);
}

// How the numbers of a decoder stand in the decoded tile of a panel group:
//   octets: [pass][register tile][inputs / 4, width, 16 lanes of four octets]
//   words:  [register tile][inputs / 2, width, 16 lanes of two words of 16 bits]
// of the passes put together: where a product with an octet is too large for
// another one beside it in 16 bits, and where codes have two parts.
template <class S, class D>
struct TileForm {
  static constexpr bool kWords =
      S::kSumsWords && (D::kLargest > kSmallOctet || D::kParts == 2);
  static constexpr std::size_t kLaneInputs = kWords ? 2 : 4;
  static constexpr std::size_t kParts = kWords ? 1 : D::kParts;
  // Inputs of a tile.
  static constexpr std::size_t kDepth =
      S::kRoundedTileDepth * kLaneInputs / 4 / kParts;
};

template <class S>
bool takes_words(const PanelWeight& W) {
  bool words = false;
  with_octets<S>(W, [&](auto octets) LLMPRESS_LAMBDA {
    words = TileForm<S, decltype(octets)>::kWords;
  });
  return words;
}

// The four numbers of every lane of vector V as two vectors of words.
template <class S, class D, std::size_t V, class Store>
LLMPRESS_INLINE void decode_words(typename S::I lanes, typename D::Table table,
                                  Store store) {
  const auto first = D::template get<0, V>(lanes, table);
  auto low = S::low_words(first), high = S::high_words(first);
  if constexpr (D::kParts == 2) {
    const auto second = D::template get<1, V>(lanes, table);
    low = S::add_words(S::template shift_left_words<kPartBits>(low),
                       S::low_words(second));
    high = S::add_words(S::template shift_left_words<kPartBits>(high),
                        S::high_words(second));
  }
  store(low, high);
}

template <class S, class D>
void decode_rounded_tile(const PanelWeight& W, std::size_t group,
                         std::size_t begin, std::size_t end,
                         std::int32_t* tile) {
  using Form = TileForm<S, D>;
  constexpr std::size_t kBytes = 4 * kPanelRows;
  const auto table = D::Table::of(W);
  const std::size_t panels = W.panels_in_group(group);
  const std::size_t row = tile_width<S>(panels) * kPanelRows;
  const std::size_t steps = (end - begin) / Form::kLaneInputs;
  unrolled<Form::kParts>([&](auto pass) LLMPRESS_LAMBDA {
    constexpr std::size_t kPass = decltype(pass)::value;
    const std::byte* p =
        W.group_data(group) + begin / D::kInputs * panels * kBytes;
    std::int32_t* const part = tile + kPass * panels * kPanelRows * steps;
    for (std::size_t k = 0; k < end - begin; k += D::kInputs) {
      for (std::size_t n = 0; n < panels; ++n, p += kBytes) {
        const std::size_t column = n * kPanelRows;
        std::int32_t* const to = part + column / row * row * steps +
                                 k / Form::kLaneInputs * row + column % row;
        const auto lanes = S::load_lanes(p);
        unrolled<D::kVectors>([&](auto v) LLMPRESS_LAMBDA {
          constexpr std::size_t V = decltype(v)::value;
          if constexpr (Form::kWords) {
            decode_words<S, D, V>(
                lanes, table, [&](auto low, auto high) LLMPRESS_LAMBDA {
                  S::store_lanes(to + 2 * V * row, low);
                  S::store_lanes(to + (2 * V + 1) * row, high);
                });
          } else {
            S::store_lanes(to + V * row,
                           D::template get<kPass, V>(lanes, table));
          }
        });
      }
    }
  });
}

// The ends of blocks [first, end) of a panel group, decoded like the tile:
// [panel][block][scale, offset][16].
constexpr std::size_t kEndFloats = 2 * kPanelRows;
template <class S>
void decode_ends(const PanelWeight& W, std::size_t group, std::size_t first,
                 std::size_t end, float* ends) {
  for (std::size_t n = 0; n < W.panels_in_group(group); ++n) {
    for (std::size_t b = first; b < end; ++b, ends += kEndFloats) {
      const auto e =
          RoundedEnd<S>::load(W, W.first_panel(group) + n, W.blocks[b].group);
      S::store(ends, e.scale);
      S::store(ends + kPanelRows, e.offset);
    }
  }
}

// One register tile: M tokens times P panels over the blocks [first, end).
struct RoundedTile {
  std::size_t first_block, end_block;
  const std::int8_t* x;   // [inputs / 4, M, 4], or words [inputs / 2, M, 2]
  const std::int32_t* w;  // [inputs / 4 or 2, P, 16] of the first pass
  std::size_t part;       // from one pass to the next, in lanes
  const float* ends;      // of the first panel
  RoundedSums sums;
  std::size_t first_token;
  float* C;
  std::size_t ldc;
  const std::int8_t* next_x;  // of the tile that comes next
};

// acc[M][P] += the products of one block and pass.
template <class S, class D, std::size_t M, std::size_t P>
LLMPRESS_INLINE void rounded_tile_block(const std::int8_t* x,
                                        const std::int32_t* w,
                                        std::size_t steps,
                                        typename S::I (&acc)[M][P]) {
  constexpr bool kTwo = D::kLargest <= kSmallOctet;
  constexpr std::size_t kStep = kTwo ? 2 : 1;
  constexpr std::size_t kRow = P * kPanelRows;
  for (std::size_t s = 0; s < steps; s += kStep) {
    typename S::I column[kStep][P];
    LLMPRESS_UNROLL for (std::size_t v = 0; v < kStep; ++v) {
      LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
        column[v][p] = S::load_lanes(w + v * kRow + p * kPanelRows);
      }
    }
    LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
      if constexpr (kTwo) {
        const auto x0 = S::broadcast_small(x + 4 * m);
        const auto x1 = S::broadcast_small(x + 4 * (M + m));
        LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
          acc[m][p] =
              S::dot_two(acc[m][p], column[0][p], x0, column[kStep - 1][p], x1);
        }
      } else {
        const auto x0 = S::broadcast_octets(x + 4 * m);
        LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
          acc[m][p] = S::dot(acc[m][p], column[0][p], x0);
        }
      }
    }
    x += 4 * M * kStep;
    w += kRow * kStep;
  }
}

// sums[M][P] = or += the products of four inputs, in words.
template <class S, std::size_t M, std::size_t P>
LLMPRESS_INLINE void add_in_words(const std::int8_t* x, const std::int32_t* w,
                                  bool first, typename S::I (&sums)[M][P]) {
  LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
    const auto column = S::load_lanes(w + p * kPanelRows);
    LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
      const auto octets = S::broadcast_small(x + 4 * m);
      sums[m][p] = first ? S::multiply_small(column, octets)
                         : S::add_small(sums[m][p], column, octets);
    }
  }
}

template <class S, std::size_t M, std::size_t P>
LLMPRESS_INLINE void widen_words(const typename S::I (&sums)[M][P],
                                 typename S::I (&acc)[M][P]) {
  LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
    LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
      acc[m][p] = S::add_word_pairs(acc[m][p], sums[m][p]);
    }
  }
}

// The same as rounded_tile_block() with the sums of as many products as fit in
// 16 bits.
template <class S, class D, std::size_t M, std::size_t P>
LLMPRESS_INLINE void rounded_tile_block_in_words(const std::int8_t* x,
                                                 const std::int8_t* next_x,
                                                 const std::int32_t* w,
                                                 std::size_t steps,
                                                 typename S::I (&acc)[M][P]) {
  constexpr std::size_t kDeepest = 8;
  constexpr std::size_t kDepth =
      std::min<std::size_t>(kDeepest, INT16_MAX / (2 * 127 * D::kLargest));
  constexpr std::size_t kInputs = 4 * M, kRow = P * kPanelRows;
  typename S::I sums[M][P];
  std::size_t s = 0;
  for (; s + kDepth <= steps; s += kDepth) {
    for (std::size_t i = 0; i < kInputs * kDepth; i += kLineBytes) {
      S::prefetch(next_x + i);
    }
    next_x += kInputs * kDepth;
    add_in_words<S, M, P>(x, w, true, sums);
    unrolled<kDepth - 1>([&](auto i) LLMPRESS_LAMBDA {
      constexpr std::size_t kStep = decltype(i)::value + 1;
      add_in_words<S, M, P>(x + kInputs * kStep, w + kRow * kStep, false, sums);
    });
    x += kInputs * kDepth;
    w += kRow * kDepth;
    widen_words<S, M, P>(sums, acc);
  }
  if (s == steps) return;
  add_in_words<S, M, P>(x, w, true, sums);
  for (std::size_t i = 1; s + i < steps; ++i) {
    add_in_words<S, M, P>(x + kInputs * i, w + kRow * i, false, sums);
  }
  widen_words<S, M, P>(sums, acc);
}

// acc[M][P] += the products of one block of words.
template <class S, std::size_t M, std::size_t P>
LLMPRESS_INLINE void word_tile_block(const std::int8_t* x,
                                     const std::int8_t* next_x,
                                     const std::int32_t* w, std::size_t steps,
                                     typename S::I (&acc)[M][P]) {
  for (std::size_t s = 0; s < steps; ++s) {
    S::prefetch(next_x + 4 * M * s);
    LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
      const auto column = S::load_lanes(w + p * kPanelRows);
      LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
        acc[m][p] =
            S::dot_words(acc[m][p], column, S::broadcast_small(x + 4 * m));
      }
    }
    x += 4 * M;
    w += P * kPanelRows;
  }
}

// acc[M][P] = the sums of one block. `part`: see RoundedTile.
template <class S, class D, std::size_t M, std::size_t P>
LLMPRESS_INLINE void sum_block(const std::int8_t* x, const std::int8_t* next_x,
                               const std::int32_t* w, std::size_t part,
                               std::size_t steps, typename S::I (&acc)[M][P]) {
  using Form = TileForm<S, D>;
  LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
    LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
      acc[m][p] = S::zero_lanes();
    }
  }
  if constexpr (Form::kWords) {
    word_tile_block<S, M, P>(x, next_x, w, steps, acc);
    return;
  }
  if constexpr (S::kSumsWords && D::kLargest <= kFewHalves) {
    rounded_tile_block_in_words<S, D, M, P>(x, next_x, w, steps, acc);
    return;
  }
  unrolled<Form::kParts>([&](auto pass) LLMPRESS_LAMBDA {
    constexpr std::size_t kPass = decltype(pass)::value;
    LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
      LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
        if (kPass > 0) acc[m][p] = S::template shift_left<kPartBits>(acc[m][p]);
      }
    }
    rounded_tile_block<S, D, M, P>(x, w + kPass * part, steps, acc);
  });
}

template <class S, class D, std::size_t M, std::size_t P>
void multiply_rounded_tile(const PanelWeight& W, const RoundedTile& given) {
  const RoundedTile tile = given;  // which no result is written over
  constexpr std::size_t kLaneInputs = TileForm<S, D>::kLaneInputs;
  const std::size_t blocks = tile.end_block - tile.first_block;
  const std::int8_t* x = tile.x;
  const std::int32_t* w = tile.w;
  const float* ends = tile.ends;
  prefetch_results<S, M, P>(tile.C, tile.ldc);
  for (std::size_t b = tile.first_block; b < tile.end_block; ++b) {
    const PanelBlock block = W.blocks[b];
    const std::size_t steps = (block.end - block.begin) / kLaneInputs;
    typename S::I acc[M][P];
    sum_block<S, D, M, P>(x, tile.next_x + (x - tile.x), w, tile.part, steps,
                          acc);
    x += steps * 4 * M;
    w += steps * P * kPanelRows;
    LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
      const float* const e = ends + p * blocks * kEndFloats;
      const RoundedEnd<S> end{S::load(e), S::load(e + kPanelRows)};
      LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
        float* const c = tile.C + m * tile.ldc + p * kPanelRows;
        S::store(c, end.apply(S::load(c), acc[m][p], tile.sums,
                              b * tile.sums.tokens + tile.first_token + m));
      }
    }
    ends += kEndFloats;
  }
}

// The sizes of tiles of octets and of words.
template <class S>
constexpr std::size_t next_rounded_tile(std::size_t remaining) {
  return next_token_tile(remaining, S::kRoundedTileTokens);
}
template <class S>
constexpr std::size_t next_word_tile(std::size_t remaining) {
  return next_token_tile(remaining, S::kWordTileTokens);
}

// What is decoded of a panel group: blocks [first, end).
struct DecodedGroup {
  std::size_t group, first_block, end_block;
  const std::int32_t* w;
  const float* ends;
};

// One decoded tile of a panel group times all tokens of the range.
template <class S, class D>
void multiply_rounded_group(const PanelWeight& W, const TileRange& range,
                            const DecodedGroup& decoded, const TokenTiles& X,
                            const RoundedSums& sums, float* C) {
  using Form = TileForm<S, D>;
  constexpr std::size_t kLargest =
      Form::kWords ? S::kWordTileTokens : S::kRoundedTileTokens;
  constexpr std::size_t kInputBytes = 4 / Form::kLaneInputs;
  const std::size_t first_block = decoded.first_block;
  const std::size_t blocks = decoded.end_block - first_block;
  const std::size_t begin = W.blocks[first_block].begin;
  const std::size_t steps =
      (W.blocks[decoded.end_block - 1].end - begin) / Form::kLaneInputs;
  const std::size_t panels = W.panels_in_group(decoded.group);
  const std::size_t width = tile_width<S>(panels);
  const auto* const x = reinterpret_cast<const std::int8_t*>(X.data);
  const std::size_t ldc = range.groups * kGroupRows;
  C += (decoded.group - range.first_group) * kGroupRows;
  const auto inputs_of = [&](std::size_t i) {
    const std::size_t first = X.first[i], tokens = X.first[i + 1] - first;
    return x + (first * W.depth + begin * tokens) * kInputBytes;
  };
  for (std::size_t n = 0; n < panels; n += width) {
    for (std::size_t i = range.first_tile; i < range.end_tile; ++i) {
      const std::size_t first = X.first[i], tokens = X.first[i + 1] - first;
      const RoundedTile tile{
          first_block,
          decoded.end_block,
          inputs_of(i),
          decoded.w + n * kPanelRows * steps,
          panels * kPanelRows * steps,
          decoded.ends + n * blocks * kEndFloats,
          sums,
          first,
          C + (first - X.first[range.first_tile]) * ldc + n * kPanelRows,
          ldc,
          inputs_of(i + 1 < range.end_tile ? i + 1 : range.first_tile)};
      with_tile_size_of<kLargest>(tokens, [&](auto m) LLMPRESS_LAMBDA {
        constexpr std::size_t M = decltype(m)::value;
        if (width == S::kTilePanels) {
          multiply_rounded_tile<S, D, M, S::kTilePanels>(W, tile);
        } else {
          multiply_rounded_tile<S, D, M, 1>(W, tile);
        }
      });
    }
  }
}

template <class S>
void multiply_tiles_rounded(const PanelWeight& W, const TileRange& range,
                            const TokenTiles& X, const RoundedSums& sums,
                            float* C) {
  static thread_local AlignedBuffer tile_buffer(kGroupRows *
                                                S::kRoundedTileDepth);
  static thread_local std::vector<float> ends;
  auto* const tile = reinterpret_cast<std::int32_t*>(tile_buffer.data());
  with_tile_octets<S>(W, [&](auto octets) {
    using D = decltype(octets);
    for (std::size_t b = 0; b < W.blocks.size();) {
      const std::size_t end =
          end_of_stretch(W.blocks, b, TileForm<S, D>::kDepth);
      ends.resize(std::max(ends.size(), (end - b) * kGroupPanels * kEndFloats));
      for (std::size_t g = 0; g < range.groups; ++g) {
        const std::size_t group = range.first_group + g;
        decode_rounded_tile<S, D>(W, group, W.blocks[b].begin,
                                  W.blocks[end - 1].end, tile);
        decode_ends<S>(W, group, b, end, ends.data());
        multiply_rounded_group<S, D>(
            W, range, {group, b, end, tile, ends.data()}, X, sums, C);
      }
      b = end;
    }
  });
}
