// Sparse Linears, which only this program reads. Plain numbers lie as
// compressed-tensors' compressors wrote them before it dropped them (0.19); bit
// c % 8 of octet c / 8 of a bitmask row says whether column c is kept.
//
//   2:4                p.compressed [out, in / 2], p.bitmask U8 [out,
//   ceil(in/8)],
//                      p.shape I64 [2, 1]
//   any mask           p.weight.compressed [kept], p.weight.bitmask U8,
//                      p.weight.row_offsets I64 [out] (where each row begins),
//                      p.weight.shape I64 [2]
//   codes (ours)       the same mask and shape under p.weight,
//   p.weight.compressed
//                      I32 [ceil(kept bits / 32)] packed from the low bits up,
//                      p.weight_scale [out, groups], p.weight_zero_point I32
//                      [ceil(out bits / 32), groups]; row_offsets for a bitmask
#pragma once

#include <string>

#include "formats/linears/encoded_linear.h"
#include "formats/linears/linear_form.h"

namespace llmpress {

void encode_sparse(const std::string& name, const SparseWeight& weight,
                   EncodedLinear& encoded);

bool is_sparse_linear(const StoredLinear& linear);
PackedWeight read_sparse_linear(const StoredLinear& linear);

}  // namespace llmpress
