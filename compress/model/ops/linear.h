// y = W x + b, or each expert's own on the rows that are routed to it.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

// in: x [rows, in]; out: [rows, out].
struct LinearOp {
  // Indices into BlockSpec::linears: one, or one an expert for a routed x.
  std::vector<std::size_t> linears{};

  bool operator==(const LinearOp&) const = default;
};

void run(const LinearOp& op, const OpContext& context,
         const OpArguments& arguments);

void backward(const LinearOp& op, const OpContext& context,
              const OpGradients& gradients);

}  // namespace llmpress
