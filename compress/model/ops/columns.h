// Columns of a value dealt out to several values, and back.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

// in: x [tokens, groups * sum of widths], each of `groups` groups holding the
// pieces one after another; out: one value a piece [tokens, groups * width].
// One group cuts a row into parts (q | k | v); heads as groups take apart what
// GPT-NeoX lays side by side (q, k, v of head 0, of head 1, ...).
struct SplitOp {
  std::size_t groups = 1;
  std::vector<std::size_t> widths{};  // of the pieces

  bool operator==(const SplitOp&) const = default;
};

// The inverse: in: values [tokens, groups * width]; out: x. A value of one
// group only, [tokens, width], is repeated in every group (the rotated part of
// a key that all heads share, DeepSeek-V2).
struct JoinOp {
  std::size_t groups = 1;
  std::vector<std::size_t> widths{};

  bool operator==(const JoinOp&) const = default;
};

// in: x [tokens, layers * width]; out: the columns of the layer that runs.
struct LayerColumnsOp {
  std::size_t width = 1;

  bool operator==(const LayerColumnsOp&) const = default;
};

void run(const SplitOp& op, const OpContext& context,
         const OpArguments& arguments);
void run(const JoinOp& op, const OpContext& context,
         const OpArguments& arguments);
void run(const LayerColumnsOp& op, const OpContext& context,
         const OpArguments& arguments);

void backward(const SplitOp& op, const OpContext& context,
              const OpGradients& gradients);
void backward(const JoinOp& op, const OpContext& context,
              const OpGradients& gradients);
void backward(const LayerColumnsOp& op, const OpContext& context,
              const OpGradients& gradients);

}  // namespace llmpress
