// Products of dense float32 matrices whose numbers lie as they are, for
// matrices that change from one product to the next: nothing is prepared
// beforehand. After Goto and van de Geijn, "Anatomy of High-Performance Matrix
// Multiplication" (2008): B, and A where it is transposed, are copied panel by
// panel once for all threads, rows of an A that is not are read in place.
//
// Every element is the sum of its products in their order, rounded once each,
// in stretches of kDepth: the same bits at any number of threads and rows, and
// with every vector instruction set. With Isa::kScalar: linalg.h's.
#pragma once

#include "compress/core/linalg.h"
#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"

namespace llmpress {

// C [m, n] (+)= A [m, k] B^T, B [n, k].
void dense_product_transposed(ConstMatrixView A, ConstMatrixView B,
                              MatrixView<float> C, Accumulate mode,
                              ThreadPool& pool, Isa isa = best_isa());

// C [m, n] (+)= A [m, k] B [k, n].
void dense_product(ConstMatrixView A, ConstMatrixView B, MatrixView<float> C,
                   Accumulate mode, ThreadPool& pool, Isa isa = best_isa());

// C [m, n] += A^T B, A [k, m], B [k, n].
void add_dense_cross_product(ConstMatrixView A, ConstMatrixView B,
                             MatrixView<float> C, ThreadPool& pool,
                             Isa isa = best_isa());

}  // namespace llmpress
