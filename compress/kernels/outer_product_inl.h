// Products whose left side is broadcast from rows as they lie in memory and
// whose right side is read by vectors, for one instruction set S.

constexpr std::size_t kLanes = 16;

// C [M, P vectors] = or += A B: A's element (m, k) is a[m * row + k * step], B
// [k, rows], C [m, rows].
struct OuterTile {
  const float* a;
  std::size_t row, step, depth;
  const float* b;
  float* c;
  std::size_t rows;
  bool accumulate;
};

template <class S, std::size_t M, std::size_t P>
void outer_tile(const OuterTile& t) {
  using F = typename S::F;
  F acc[M][P];
  LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
    LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
      acc[m][p] =
          t.accumulate ? S::load(t.c + m * t.rows + p * kLanes) : S::zero();
    }
  }
  const float* a = t.a;
  const float* b = t.b;
  for (std::size_t k = 0; k < t.depth; ++k, a += t.step, b += t.rows) {
    F column[P];
    LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
      column[p] = S::load(b + p * kLanes);
    }
    LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
      const F value = S::broadcast(a[m * t.row]);
      LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
        acc[m][p] = S::fma(value, column[p], acc[m][p]);
      }
    }
  }
  LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
    LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
      S::store(t.c + m * t.rows + p * kLanes, acc[m][p]);
    }
  }
}

// The same for any number of rows of A and of vectors.
template <class S>
void outer_product(OuterTile t, std::size_t rows_of_a) {
  for (std::size_t m = 0, count = 0; m < rows_of_a; m += count) {
    count = next_tile<S>(rows_of_a - m);
    for (std::size_t p = 0; p < t.rows; p += S::kTilePanels * kLanes) {
      OuterTile part = t;
      part.a += m * t.row;
      part.b += p;
      part.c += m * t.rows + p;
      const bool wide = t.rows - p >= S::kTilePanels * kLanes;
      with_tile_size<S>(count, [&](auto n) LLMPRESS_LAMBDA {
        constexpr std::size_t M = decltype(n)::value;
        if (wide) {
          outer_tile<S, M, S::kTilePanels>(part);
        } else {
          outer_tile<S, M, 1>(part);
        }
      });
    }
  }
}
