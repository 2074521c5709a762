// One Linear of every packed kind, with odd sizes where the kind allows them.
#pragma once

#include <string>
#include <vector>

#include "compress/core/packed_weight.h"

namespace llmpress {

struct SampleLinear {
  std::string what;
  LinearWeights linear{};
};
std::vector<SampleLinear> sample_linears();

// By kind, for tests of one format.
GroupedIntWeight sample_grouped(int bits, std::size_t out, std::size_t in,
                                std::size_t group_size, bool symmetric);
Int8Weight sample_int8(std::size_t out, std::size_t in, bool whole_tensor,
                       bool zeros);
Fp8Weight sample_fp8(std::size_t out, std::size_t in, std::size_t block_rows,
                     std::size_t block_cols);
Table4Weight sample_table4(Table4Kind kind, std::size_t out, std::size_t in,
                           bool nested);
MicroFp4Weight sample_micro_fp4(MicroFp4Kind kind, std::size_t out,
                                std::size_t in);
MatrixF sample_matrix(std::size_t rows, std::size_t cols);

// Fails the test unless both are the same Linear: kind, octets and values.
void expect_same_linear(const LinearWeights& a, const LinearWeights& b,
                        const std::string& what);

}  // namespace llmpress
