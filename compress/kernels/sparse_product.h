// Y = X W^T for a sparse weight: up to four tokens multiply the kept numbers
// where they stand; more take W expanded a tile at a time. The two ways add in
// different orders.
#pragma once

#include <optional>

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"
#include "compress/kernels/sparse_kernels.h"

namespace llmpress {

std::size_t bytes_of_value(SparseValues type);

// Behind the numbers of SparsePanels by masks: a load takes 16 of them wherever a
// row ends.
inline constexpr std::size_t kSparseSlackBytes = 32 * sizeof(float);

// nullopt for quantized values whose groups are not whole steps of 16 columns.
std::optional<SparsePanels> make_sparse_panels(const SparseWeight& weight);

// X [tokens, in], Y [tokens, out]. `isa` is not kScalar.
void multiply_sparse(const SparsePanels& W, ConstMatrixView X,
                     MatrixView<float> Y, ThreadPool& pool, Isa isa);

}  // namespace llmpress
