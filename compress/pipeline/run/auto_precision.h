// Automatic mixed precision: measures what each Linear costs the model at each
// width and spends a budget of bytes where it helps most.
//
//   loss[l][b] = mean KL(base || model with Linear l alone rounded to b bits)
//
// over calibration tokens; the losses of single Linears are taken to add up,
// and quantizers/bit_allocation.h picks a width for each; one width for Linears
// of one input (q, k, v; gate, up), which engines fuse. The model stays in
// memory for this. Cost: for every Linear and width, the blocks from its own to
// the last, and the head, over kProbeTokens tokens.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "compress/calibration/model_pass.h"

namespace llmpress {

struct AutoPrecision {
  // By full name: the stage with its method and bits filled in.
  std::map<std::string, std::optional<QuantizeStage>> stages{};
  double predicted_loss = 0;  // sum of the chosen Linears' losses, in nats
  std::size_t bytes = 0;      // of the chosen Linears
  std::vector<std::string> notes{};
};

bool wants_auto_precision(const StagePlan& plan);

// What it keeps beside a run's other memory: every block, the input of each,
// and logits.
std::size_t auto_precision_bytes(const Architecture& arch);

// Throws Error(kInvalidArgument) with the stage's place if not even the
// narrowest widths fit the budget.
AutoPrecision choose_precision(const ModelPass& job);

}  // namespace llmpress
