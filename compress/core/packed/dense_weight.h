// Plain numbers. data: [out, in] little-endian elements of F32, F16 or BF16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compress/core/dtype.h"
#include "compress/core/matrix.h"

namespace llmpress {

class PackedChecker;

struct DenseWeight {
  std::size_t out = 0, in = 0;
  DType dtype = DType::kF32;
  std::vector<std::byte> data{};
};

// Facts that packed_weight.h asks of every type.
void decode_row(const DenseWeight& w, std::size_t o, std::span<float> row);
std::size_t stored_bytes(const DenseWeight& w);
std::string describe(const DenseWeight& w);
void check(const DenseWeight& w, const PackedChecker& c);
inline std::span<const float> scales_of(const DenseWeight&) { return {}; }
inline DType scale_type_of(const DenseWeight&) { return DType::kF32; }

DenseWeight make_dense(ConstMatrixView W, DType dtype);

// "bf16": the type's name in small letters.
std::string word_of(DType dtype);

}  // namespace llmpress
