#include "compress/tool/model_ranks.h"

#include <CLI/CLI.hpp>

#include "compress/core/formatted.h"
#include "compress/tool/option_checks.h"

namespace llmpress {

void add_model_rank_options(CLI::App& command, ModelRankOptions& options) {
  command
      .add_option("--pipeline", options.pipeline,
                  "spread the blocks of the model over so many MPI ranks")
      ->check(whole_number(1))
      ->capture_default_str();
  command
      .add_option("--tensor-parallel", options.tensor_parallel,
                  "spread the rows of every Linear over so many MPI ranks")
      ->check(whole_number(1))
      ->capture_default_str();
}

namespace {

void check(const Ranks& ranks, const ModelRankOptions& options,
           bool has_adapters) {
  if (has_adapters && options.tensor_parallel > 1) {
    fail(ErrorCode::kInvalidArgument,
         "--adapter: not beside Linears whose rows are spread "
         "(--tensor-parallel); merge it first, or use --pipeline");
  }
  const std::size_t all = options.of_model();
  if (all <= ranks.size() && ranks.size() % all == 0) return;
  fail(ErrorCode::kInvalidArgument,
       "--pipeline {} --tensor-parallel {}: {} ranks or a multiple of them, "
       "found {}; start llmpress with mpirun -n {}",
       options.pipeline, options.tensor_parallel, all, ranks.size(), all);
}

}  // namespace

ModelRanks share_model(const Ranks& ranks, const ModelRankOptions& options,
                       bool has_adapters) {
  if (!options.is_spread()) return {.copies = ranks};
  ranks.first_then_others([&] {
    check(ranks, options, has_adapters);
    return 0;
  });
  const std::size_t rank = ranks.rank(), wide = options.tensor_parallel;
  const std::size_t all = options.of_model();
  return {.model = ranks.split(rank / all),
          .tensor = ranks.split(rank / wide),
          .stages = ranks.split(rank / all * wide + rank % wide),
          .copies = ranks.split(rank % all)};
}

}  // namespace llmpress
