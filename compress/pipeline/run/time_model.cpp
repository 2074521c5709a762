#include "compress/pipeline/run/time_model.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "compress/calibration/calibration_states.h"
#include "compress/core/checked.h"
#include "compress/core/linalg.h"
#include "compress/pipeline/run/linear_compressor.h"
#include "compress/pipeline/run/plan_needs.h"
#include "compress/pipeline/run/variant_compressor.h"
#include "compress/surgery/block_smoothing.h"

namespace llmpress {
namespace {

// Of the speed of products: packed kernels, operations between Linears and the
// solver's columns are slower.
constexpr double kShareOfProducts = 0.7;
// Of rounding a weight to nearest, with its error measured.
constexpr double kSecondsPerWeight = 5e-9;
// Passes over its sample that a search of scales takes, what clips included: as
// measured.
constexpr double kCandidates = 60;
// A moment travels as its triangle, with squares of this side on the diagonal.
constexpr double kPanel = 512;

class BlockWork {
 public:
  // `streams`: models that the tokens run through.
  BlockWork(const StagePlan& plan, const Architecture& arch, std::size_t layer,
            std::size_t tokens, double streams, const KeptInputs& kept)
      : plan_(plan),
        arch_(arch),
        layer_(layer),
        spec_(arch.block(layer)),
        tokens_(static_cast<double>(tokens)),
        streams_(streams),
        kept_(kept) {
    for (const Operation& op : spec_.operations) {
      if (const auto* const route = std::get_if<RouteOp>(&op.kind)) {
        top_ = static_cast<double>(route->top);
      }
    }
  }

  void add_to(RunWork& work) {
    for (std::size_t s = 0; s < spec_.stages.size(); ++s) add_stage(s, work);
    if (tokens_ != 0 && searches_scales(plan_, arch_, layer_)) {
      work.searches +=
          kCandidates * 2 * static_cast<double>(kSmoothingTokens) * numbers_;
    }
  }

 private:
  LinearTreatment treatment(std::size_t l) const {
    return treatment_of(plan_, arch_, layer_, l);
  }

  StatsNeeds needs_of_stage(std::size_t s) const {
    StatsNeeds needs;
    for (const std::size_t l : spec_.stages[s].linears) {
      needs = needs | needs_of(treatment(l));
    }
    return needs;
  }

  // Tokens that a Linear of the stage sees.
  double tokens_of(const StageSpec& stage) const {
    return stage.groups == 1
               ? tokens_
               : tokens_ * top_ / static_cast<double>(stage.groups);
  }

  void add_stage(std::size_t s, RunWork& work) {
    const StageSpec& stage = spec_.stages[s];
    const StatsNeeds needs = needs_of_stage(s);
    const auto in = static_cast<double>(stage.in);
    const auto groups = static_cast<double>(stage.groups);
    const double tokens = tokens_of(stage);
    const bool again = s + 1 < spec_.stages.size() &&
                       any(needs_of_stage(s + 1)) &&
                       kept_.remakes(spec_, s + 1, arch_);
    const double passes = (again ? 2 : 1) * streams_;
    const auto add_moment = [&](double products) {
      work.passes += groups * products;
      work.moments += groups * 2 * in * (in + kPanel);
    };
    if (needs.second_moment) add_moment(tokens * in * in);
    if (needs.reference_moment) add_moment(2 * tokens * in * in);
    for (const std::size_t l : stage.linears) {
      const auto out = static_cast<double>(spec_.linears[l].out);
      numbers_ += out * in;
      work.passes += passes * 2 * tokens * out * in;
      const LinearTreatment wanted = treatment(l);
      if (wanted.changes()) work.weights += out * in;
    }
    SolveWork solve = solve_work(plan_, arch_, layer_, s);
    if (!solve.linears.empty()) work.solves.push_back(std::move(solve));
  }

  const StagePlan& plan_;
  const Architecture& arch_;
  std::size_t layer_;
  const BlockSpec& spec_;
  double tokens_, streams_, top_ = 1, numbers_ = 0;
  KeptInputs kept_;
};

}  // namespace

RunWork work_of(const StagePlan& plan, const Architecture& arch,
                std::size_t tokens, std::size_t sequence_tokens,
                std::size_t model_bytes, std::size_t output_bytes,
                std::size_t packed_bytes, const KeptInputs& kept) {
  RunWork work{.read = 2.0 * static_cast<double>(model_bytes),
               .written = static_cast<double>(output_bytes),
               .shards = std::max<std::size_t>(
                   1, ceil_div(output_bytes, OutputConfig{}.max_shard_size)),
               .packed = static_cast<double>(packed_bytes),
               .blocks = arch.layers};
  if (tokens != 0) {
    work.batches = ceil_div(tokens, tokens_of_batch(sequence_tokens));
  }
  const double streams = wants_reference(plan, arch) ? 2 : 1;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    BlockWork(plan, arch, layer, tokens, streams, kept).add_to(work);
  }
  return work;
}

double product_rate(ThreadPool& pool) {
  constexpr std::size_t kSide = 1600;
  const MatrixF A(kSide, kSide), B(kSide, kSide);
  MatrixF C(kSide, kSide);
  double best = 0;
  for (int round = 0; round < 3; ++round) {
    const auto start = std::chrono::steady_clock::now();
    matmul_transposed(A.view(), B.view(), C.view(), pool);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count();
    best = std::max(best, 2.0 * kSide * kSide * kSide / seconds);
  }
  return best;
}

SpreadCost cost_on(const RunWork& work, const Machine& machine,
                   std::size_t ranks) {
  const bool calibrated = work.batches != 0;
  const std::size_t rounds = ceil_div(work.batches, ranks);
  const double others =
      static_cast<double>(ranks - 1) / static_cast<double>(ranks);
  double products = work.searches;
  if (calibrated) {
    products += work.passes * static_cast<double>(rounds) /
                static_cast<double>(work.batches);
  }
  for (const SolveWork& solve : work.solves) {
    products += slowest_share(solve, ranks);
  }
  const auto dealt = [ranks](std::size_t items) {
    return static_cast<double>(ceil_div(items, ranks)) /
           static_cast<double>(items);
  };
  // Blocks are dealt out where nothing runs through them; with calibration
  // every rank reads all, and one writes them. Shards are dealt out always.
  const double share = calibrated ? 1 : dealt(work.blocks);
  SpreadCost cost;
  if (ranks > 1 && calibrated) {
    cost.traffic = work.moments * others * static_cast<double>(rounds + 1) +
                   work.packed * others;
    for (const SolveWork& solve : work.solves) {
      if (solved_together(solve, ranks))
        cost.traffic += joint_bytes(solve) * others;
    }
  }
  cost.seconds =
      products / (kShareOfProducts * machine.products) +
      kSecondsPerWeight * work.weights /
          (machine.threads * static_cast<double>(calibrated ? 1 : ranks)) +
      (work.read * share + work.packed * share +
       work.written * dealt(work.shards)) /
          machine.disk +
      cost.traffic / machine.network;
  return cost;
}

}  // namespace llmpress
