// How the ranks of a command share a model that is larger than one machine.
#pragma once

#include <cstddef>

#include "compress/core/ranks.h"

namespace CLI {
class App;
}

namespace llmpress {

struct ModelRankOptions {
  std::size_t pipeline = 1, tensor_parallel = 1;

  std::size_t of_model() const { return pipeline * tensor_parallel; }
  bool is_spread() const { return of_model() > 1; }
};
void add_model_rank_options(CLI::App& command, ModelRankOptions& options);

// Of one rank: who has the same copy of the model, of them who has the other
// rows of its Linears and who has the blocks before and behind its own; and who
// has the same part of other copies.
struct ModelRanks {
  Ranks model{}, tensor{}, stages{}, copies{};
};

// Ranks side by side share Linears, as they exchange the most. Collective.
// Throws Error(kInvalidArgument) where the ranks are no multiple of what one
// model takes, or adapters would run beside Linears that are spread.
ModelRanks share_model(const Ranks& ranks, const ModelRankOptions& options,
                       bool has_adapters);

}  // namespace llmpress
