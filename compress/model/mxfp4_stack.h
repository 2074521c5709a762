// Stacks of experts in MXFP4, as gpt-oss is published (quant_method "mxfp4"), in
// the place of a plain stack that LinearStorage names:
//   <tensor>_blocks  U8 [experts, rows, groups, 16], even input low nibble
//   <tensor>_scales  U8 [experts, rows, groups] (E8M0), groups of 32 inputs
// Rows are outputs, also where the plain stack is transposed.
#pragma once

#include <optional>
#include <string>

#include "compress/model/program.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

struct Mxfp4Stack {
  const TensorInfo* blocks = nullptr;
  const TensorInfo* scales = nullptr;
};

// In which the Linear of a block lies, if it does.
std::optional<Mxfp4Stack> find_mxfp4_stack(const Checkpoint& checkpoint,
                                           const std::string& block_name,
                                           const LinearSpec& spec);

}  // namespace llmpress
