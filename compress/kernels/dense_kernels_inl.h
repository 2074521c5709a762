// The functions of dense_kernels.h for one instruction set S.

constexpr std::size_t kLanes = 16;
constexpr std::size_t kTileRows = S::kTileTokens;
constexpr std::size_t kPanelCols = S::kTilePanels * kLanes;

struct DenseTile {
  const float* a;
  std::size_t a_stride;
  const float* b;
  float* c;
  std::size_t c_stride, depth;
  bool accumulate;
};

// Row m of A in place. Every fourth row has a pointer of its own and the three
// behind it are reached by the processor's addressing, so that the pointers of
// twelve rows fit its registers.
template <std::size_t M>
struct RowsInPlace {
  static constexpr std::size_t kPointers = (M + 3) / 4;
  const float* base[kPointers];
  std::size_t stride, three;

  LLMPRESS_INLINE RowsInPlace(const float* a, std::size_t row)
      : stride(row), three(3 * row) {
    LLMPRESS_UNROLL for (std::size_t i = 0; i < kPointers; ++i) {
      base[i] = a + 4 * i * row;
    }
  }
  LLMPRESS_INLINE float at(std::size_t m, std::size_t k) const {
    const float* const p = base[m / 4] + k;
    return m % 4 == 0 ? p[0]
                      : (m % 4 == 1 ? p[stride]
                                    : (m % 4 == 2 ? p[2 * stride] : p[three]));
  }
  LLMPRESS_INLINE void advance(std::size_t steps) {
    LLMPRESS_UNROLL for (std::size_t i = 0; i < kPointers; ++i) {
      base[i] += steps;
    }
  }
};

// A panel [depth, kTileRows].
template <std::size_t M>
struct RowsOfPanel {
  const float* base;
  LLMPRESS_INLINE RowsOfPanel(const float* a, std::size_t) : base(a) {}
  LLMPRESS_INLINE float at(std::size_t m, std::size_t k) const {
    return base[k * kTileRows + m];
  }
  LLMPRESS_INLINE void advance(std::size_t steps) { base += steps * kTileRows; }
};

// Columns of A in place, row m of the tile m floats into each.
template <std::size_t M>
struct ColumnsInPlace {
  const float* base;
  std::size_t stride;
  LLMPRESS_INLINE ColumnsInPlace(const float* a, std::size_t column)
      : base(a), stride(column) {}
  LLMPRESS_INLINE float at(std::size_t m, std::size_t k) const {
    return base[k * stride + m];
  }
  LLMPRESS_INLINE void advance(std::size_t steps) { base += steps * stride; }
};

template <std::size_t M>
struct Accumulators {
  static constexpr std::size_t kPanels = S::kTilePanels;
  S::F sum[M][kPanels];

  LLMPRESS_INLINE void clear() {
    LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
      LLMPRESS_UNROLL for (std::size_t p = 0; p < kPanels; ++p) {
        sum[m][p] = S::zero();
      }
    }
  }
  template <class Rows>
  LLMPRESS_INLINE void step(const Rows& rows, std::size_t k, const float* b) {
    S::F column[kPanels];
    LLMPRESS_UNROLL for (std::size_t p = 0; p < kPanels; ++p) {
      column[p] = S::load(b + p * kLanes);
    }
    LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
      const S::F value = S::broadcast(rows.at(m, k));
      LLMPRESS_UNROLL for (std::size_t p = 0; p < kPanels; ++p) {
        sum[m][p] = S::fma(value, column[p], sum[m][p]);
      }
    }
  }
  LLMPRESS_INLINE void store(float* c, std::size_t stride, bool accumulate) {
    LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
      LLMPRESS_UNROLL for (std::size_t p = 0; p < kPanels; ++p) {
        float* const to = c + m * stride + p * kLanes;
        S::store(to, accumulate ? S::add(S::load(to), sum[m][p]) : sum[m][p]);
      }
    }
  }
};

// C [M, kPanelCols]
template <std::size_t M, template <std::size_t> class Rows>
void dense_tile(const DenseTile& t) {
  LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
    S::prefetch(t.c + m * t.c_stride);
    S::prefetch(t.c + m * t.c_stride + kPanelCols - 1);
  }
  Accumulators<M> sums;
  sums.clear();
  Rows<M> rows(t.a, t.a_stride);
  const float* b = t.b;
  std::size_t k = 0;
  for (; k + 4 <= t.depth; k += 4, b += 4 * kPanelCols) {
    LLMPRESS_UNROLL for (std::size_t j = 0; j < 4; ++j) {
      sums.step(rows, j, b + j * kPanelCols);
    }
    rows.advance(4);
  }
  for (; k < t.depth; ++k, b += kPanelCols) {
    sums.step(rows, 0, b);
    rows.advance(1);
  }
  sums.store(t.c, t.c_stride, t.accumulate);
}

// The last columns, fewer than a panel's, through a whole tile beside C.
template <std::size_t M, template <std::size_t> class Rows>
void narrow_tile(const DenseTile& t, std::size_t cols) {
  float whole[M * kPanelCols];
  DenseTile part = t;
  part.c = whole;
  part.c_stride = kPanelCols;
  part.accumulate = false;
  dense_tile<M, Rows>(part);
  for (std::size_t m = 0; m < M; ++m) {
    float* const c = t.c + m * t.c_stride;
    for (std::size_t j = 0; j < cols; ++j) {
      c[j] = t.accumulate ? c[j] + whole[m * kPanelCols + j]
                          : whole[m * kPanelCols + j];
    }
  }
}

inline const float* row_of_a(const DenseBlock& block, std::size_t m) {
  switch (block.layout) {
    case DenseLayout::kRows:
      return block.a + m * block.a_stride;
    case DenseLayout::kColumns:
      return block.a + m;
    case DenseLayout::kPanels:
      break;
  }
  return block.a + m / kTileRows * kTileRows * block.depth + m % kTileRows;
}

template <template <std::size_t> class Rows>
void multiply_panel(const DenseBlock& block, std::size_t column) {
  const std::size_t cols = std::min(kPanelCols, block.cols - column);
  for (std::size_t m = 0, count = 0; m < block.rows; m += count) {
    count = next_tile<S>(block.rows - m);
    const float* const a = row_of_a(block, m);
    const DenseTile t{a,
                      block.a_stride,
                      block.b + column / kPanelCols * block.b_panel,
                      block.c + m * block.c_stride + column,
                      block.c_stride,
                      block.depth,
                      block.accumulate};
    with_tile_size<S>(count, [&](auto n) LLMPRESS_LAMBDA {
      constexpr std::size_t M = decltype(n)::value;
      if (cols == kPanelCols) {
        dense_tile<M, Rows>(t);
      } else {
        narrow_tile<M, Rows>(t, cols);
      }
    });
  }
}

void multiply_block(const DenseBlock& block) {
  for (std::size_t c = 0; c < block.cols; c += kPanelCols) {
    switch (block.layout) {
      case DenseLayout::kRows:
        multiply_panel<RowsInPlace>(block, c);
        break;
      case DenseLayout::kColumns:
        multiply_panel<ColumnsInPlace>(block, c);
        break;
      case DenseLayout::kPanels:
        multiply_panel<RowsOfPanel>(block, c);
        break;
    }
  }
}

// One row of a panel: `used` numbers and zeros up to `width`.
LLMPRESS_INLINE void pack_row(const float* from, std::size_t used,
                              std::size_t width, float* to) {
  std::size_t c = 0;
  for (; c + 4 <= used; c += 4) {
    _mm_storeu_ps(to + c, _mm_loadu_ps(from + c));
  }
  for (; c < used; ++c) to[c] = from[c];
  for (; c < width; ++c) to[c] = 0;
}

// Row by row, so that memory is read in its order, but few panels at a time:
// they lie a multiple of 4 KiB apart and would push each other out of the first
// level cache.
template <std::size_t Width>
void pack_columns(const DensePacking& p) {
  constexpr std::size_t kTogether = 8;
  float* group = p.to;
  for (std::size_t first = 0; first < p.columns;
       first += kTogether * Width, group += kTogether * p.panel) {
    const std::size_t end = std::min(p.columns, first + kTogether * Width);
    for (std::size_t k = 0; k < p.depth; ++k) {
      const float* const from = p.from + k * p.stride;
      float* to = group + k * Width;
      std::size_t c = first;
      for (; c + Width <= end; c += Width, to += p.panel) {
        pack_row(from + c, Width, Width, to);
      }
      if (c < end) pack_row(from + c, end - c, Width, to);
    }
  }
}

// Four rows and four steps at a time.
void pack_rows_of_panel(const float* from, std::size_t stride,
                        std::size_t depth, std::size_t used, float* panel) {
  std::size_t r = 0;
  for (; r + 4 <= used; r += 4) {
    const float* const row = from + r * stride;
    std::size_t k = 0;
    for (; k + 4 <= depth; k += 4) {
      __m128 x0 = _mm_loadu_ps(row + k);
      __m128 x1 = _mm_loadu_ps(row + stride + k);
      __m128 x2 = _mm_loadu_ps(row + 2 * stride + k);
      __m128 x3 = _mm_loadu_ps(row + 3 * stride + k);
      _MM_TRANSPOSE4_PS(x0, x1, x2, x3);
      float* const to = panel + k * kPanelCols + r;
      _mm_storeu_ps(to, x0);
      _mm_storeu_ps(to + kPanelCols, x1);
      _mm_storeu_ps(to + 2 * kPanelCols, x2);
      _mm_storeu_ps(to + 3 * kPanelCols, x3);
    }
    for (; k < depth; ++k) {
      for (std::size_t j = 0; j < 4; ++j) {
        panel[k * kPanelCols + r + j] = row[j * stride + k];
      }
    }
  }
  for (; r < kPanelCols; ++r) {
    for (std::size_t k = 0; k < depth; ++k) {
      panel[k * kPanelCols + r] = r < used ? from[r * stride + k] : 0.0f;
    }
  }
}

void pack_rows(const DensePacking& p) {
  for (std::size_t c = 0; c < p.columns; c += kPanelCols) {
    pack_rows_of_panel(p.from + c * p.stride, p.stride, p.depth,
                       std::min(kPanelCols, p.columns - c),
                       p.to + c / kPanelCols * p.panel);
  }
}

constexpr DenseKernels kDenseKernels{
    .tile_rows = kTileRows,
    .panel_cols = kPanelCols,
    .multiply = &multiply_block,
    .pack_a_transposed = &pack_columns<kTileRows>,
    .pack_b = &pack_columns<kPanelCols>,
    .pack_b_transposed = &pack_rows,
};
