// y = W x + b, or each expert's own on the rows that are routed to it.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/model/ops/op_context.h"

namespace llmpress {

// in: x [rows, in]; out: [rows, out].
struct LinearOp {
  // Indices into BlockSpec::linears: one, or one an expert for a routed x.
  std::vector<std::size_t> linears{};

  bool operator==(const LinearOp&) const = default;
};

void run(const LinearOp& op, const OpContext& context,
         const OpArguments& arguments);

}  // namespace llmpress
