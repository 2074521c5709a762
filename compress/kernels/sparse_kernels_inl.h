// The functions of sparse_kernels.h for one instruction set S.

template <class S, class F>
LLMPRESS_INLINE void with_type(SparseValues type, F f) {
  switch (type) {
    case SparseValues::kF32:
      return f(std::integral_constant<SparseValues, SparseValues::kF32>{});
    case SparseValues::kF16:
      return f(std::integral_constant<SparseValues, SparseValues::kF16>{});
    case SparseValues::kBF16:
      return f(std::integral_constant<SparseValues, SparseValues::kBF16>{});
    case SparseValues::kCodes:
      return f(std::integral_constant<SparseValues, SparseValues::kCodes>{});
  }
}

template <class S>
void multiply_sparse_few(const SparsePanels& W, std::size_t begin,
                         std::size_t end, const float* const* rows,
                         std::size_t tokens, float* y, std::size_t y_stride) {
  with_type<S>(W.type, [&](auto type) LLMPRESS_LAMBDA {
    with_few(tokens, [&](auto t) LLMPRESS_LAMBDA {
      if (W.in_pairs) {
        multiply_pairs<S, decltype(type)::value, decltype(t)::value>(
            W, begin, end, rows, tokens, y, y_stride);
      } else {
        multiply_sparse_rows<S, decltype(type)::value, decltype(t)::value>(
            W, begin, end, rows, tokens, y, y_stride);
      }
    });
  });
}

template <class S>
void expand_sparse(const SparsePanels& W, SparseCursor& cursor,
                   std::size_t steps, float* dense) {
  with_type<S>(W.type, [&](auto type) LLMPRESS_LAMBDA {
    if (W.in_pairs) {
      expand_pairs<S, decltype(type)::value>(W, cursor, steps, dense);
    } else {
      expand_steps<S, decltype(type)::value>(W, cursor, steps, dense);
    }
  });
}

template <class S>
void add_product(const float* A, std::size_t a_stride, std::size_t rows,
                 std::size_t depth, const float* B, std::size_t width,
                 float* C) {
  outer_product<S>({.a = A,
                    .row = a_stride,
                    .step = 1,
                    .depth = depth,
                    .b = B,
                    .c = C,
                    .rows = width,
                    .accumulate = true},
                   rows);
}
