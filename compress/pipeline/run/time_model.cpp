#include "compress/pipeline/run/time_model.h"

#include <algorithm>
#include <chrono>

#include "compress/core/linalg.h"
#include "compress/pipeline/run/linear_compressor.h"
#include "compress/pipeline/run/memory_model.h"
#include "compress/pipeline/run/variant_compressor.h"
#include "compress/surgery/block_smoothing.h"

namespace llmpress {
namespace {

// Of the speed of products: packed kernels, operations between Linears and the
// solver's columns are slower.
constexpr double kShareOfProducts = 0.7;
// Of rounding a weight to nearest, with its error measured.
constexpr double kSecondsPerWeight = 5e-9;
// Hashing, reading, writing and comparing.
constexpr double kBytesPerSecond = 5e8;
// Scales that a search tries on its sample.
constexpr double kCandidates = 20;

class BlockWork {
 public:
  BlockWork(const StagePlan& plan, const Architecture& arch, std::size_t layer,
            std::size_t tokens)
      : plan_(plan),
        arch_(arch),
        layer_(layer),
        spec_(arch.block(layer)),
        tokens_(static_cast<double>(tokens)) {
    for (const Operation& op : spec_.operations) {
      if (const auto* const route = std::get_if<RouteOp>(&op.kind)) {
        top_ = static_cast<double>(route->top);
      }
    }
  }

  RunWork count() {
    for (std::size_t s = 0; s < spec_.stages.size(); ++s) add_stage(s);
    if (tokens_ != 0 && searches_scales(plan_, arch_, layer_)) {
      work_.products +=
          kCandidates * 2 * static_cast<double>(kSmoothingTokens) * numbers_;
    }
    return work_;
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

  void add_stage(std::size_t s) {
    const StageSpec& stage = spec_.stages[s];
    const StatsNeeds needs = needs_of_stage(s);
    const auto in = static_cast<double>(stage.in);
    const auto groups = static_cast<double>(stage.groups);
    const double tokens = tokens_of(stage);
    const bool again = s + 1 < spec_.stages.size() &&
                       is_wide(spec_.stages[s + 1], arch_) &&
                       any(needs_of_stage(s + 1));
    const double passes =
        (again ? 2 : 1) * (wants_reference(plan_, arch_) ? 2 : 1);
    if (needs.second_moment) {
      work_.products += groups * (tokens * in * in + 2.0 / 3 * in * in * in);
    }
    if (needs.reference_moment) {
      work_.products += groups * (2 * tokens * in * in + 4 * in * in * in);
    }
    for (const std::size_t l : stage.linears) {
      const auto out = static_cast<double>(spec_.linears[l].out);
      numbers_ += out * in;
      work_.products += passes * 2 * tokens * out * in;
      const LinearTreatment wanted = treatment(l);
      if (needs_of(wanted).second_moment) work_.products += out * in * in;
      if (wanted.changes()) work_.weights += out * in;
    }
  }

  const StagePlan& plan_;
  const Architecture& arch_;
  std::size_t layer_;
  const BlockSpec& spec_;
  double tokens_, top_ = 1, numbers_ = 0;
  RunWork work_;
};

}  // namespace

RunWork work_of(const StagePlan& plan, const Architecture& arch,
                std::size_t tokens, std::size_t model_bytes,
                std::size_t output_bytes) {
  RunWork work{.bytes = 2.0 * static_cast<double>(model_bytes) +
                        3.0 * static_cast<double>(output_bytes)};
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    const RunWork block = BlockWork(plan, arch, layer, tokens).count();
    work.products += block.products;
    work.weights += block.weights;
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

double seconds_of(const RunWork& work, double product_rate,
                  std::size_t threads) {
  return work.products / (kShareOfProducts * product_rate) +
         kSecondsPerWeight * work.weights / static_cast<double>(threads) +
         work.bytes / kBytesPerSecond;
}

}  // namespace llmpress
