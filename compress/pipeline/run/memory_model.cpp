#include "compress/pipeline/run/memory_model.h"

#include <algorithm>
#include <string>
#include <variant>

#include "compress/calibration/calibration_states.h"
#include "compress/model/live_widths.h"
#include "compress/pipeline/evaluation/evaluation_need.h"
#include "compress/pipeline/run/auto_precision.h"
#include "compress/pipeline/run/block_memory.h"
#include "compress/pipeline/run/block_rounding.h"
#include "compress/pipeline/run/kept_inputs.h"
#include "compress/pipeline/run/plan_needs.h"
#include "compress/pipeline/run/variant_compressor.h"
#include "compress/pipeline/training/grid_linears.h"
#include "compress/pipeline/training/training_cost.h"
#include "compress/surgery/structured_experts.h"

namespace llmpress {
namespace {

constexpr std::size_t kFloat = sizeof(float);
constexpr double kProgram = kProgramBytes;
// Of files that two threads copy.
constexpr double kPieces = 32.0 * (1 << 20);
// What calibration adds to it.
constexpr double kCalibrating = 28.0 * (1 << 20);
// Matrices [in, in] of float32 that healing a Linear holds, as measured.
constexpr double kMomentsOfHealing = 3;
// What an allocator holds beyond what is asked for, as measured.
constexpr double kSlack = 1.02;

// What removing experts by the error of the output keeps of a mixture.
double expert_products(const StagePlan& plan, const Architecture& arch) {
  const RouteOp* const route = first_route(arch);
  if (route == nullptr) return 0;
  const std::size_t experts = route->experts;
  const bool measured =
      std::ranges::any_of(plan.transforms(), [](const Stage* stage) {
        const auto* const prune = std::get_if<PruneStage>(stage);
        return prune != nullptr &&
               prune->config.method == PruneMethod::kExperts &&
               prune->config.expert_importance ==
                   ExpertImportance::kOutputError;
      });
  return measured ? static_cast<double>(expert_probe_tokens(experts) * experts *
                                        experts * kFloat)
                  : 0;
}

class ModelMemory {
 public:
  explicit ModelMemory(const MemoryJob& job) : job_(job) {}

  MemoryNeed need() {
    pruning();
    compressing();
    // From file to file in pieces.
    const bool as_stored =
        job_.copies_in_files && job_.plan->transforms().empty();
    const auto largest = static_cast<double>(job_.largest_tensor);
    add("writing the largest tensor",
        as_stored ? std::min(largest, kPieces) : 2 * largest);
    if (wants_auto_precision(*job_.plan)) {
      add("choosing widths",
          static_cast<double>(auto_precision_bytes(*job_.arch)));
    }
    training();
    rotating();
    evaluating();
    const double fixed =
        kProgram + (job_.calibration.tokens != 0 ? kCalibrating : 0);
    return {.in_memory = static_cast<std::size_t>(fixed + kSlack * in_memory_),
            .evaluating = evaluating_ == 0 ? 0
                                           : static_cast<std::size_t>(
                                                 fixed + kSlack * evaluating_),
            .spilled = static_cast<std::size_t>(fixed + kSlack * spilled_),
            .scratch = static_cast<std::size_t>(scratch_),
            .phase = phase_};
  }

 private:
  void add(const std::string& phase, double bytes) { add(phase, bytes, bytes); }
  void add(const std::string& phase, double in_memory, double spilled) {
    in_memory_ = std::max(in_memory_, in_memory);
    if (spilled > spilled_) {
      spilled_ = spilled;
      phase_ = phase;
    }
  }

  // A block as it was and as it becomes, both in float32 beside their stored
  // form; with calibration what runs them, the healed one in float32, the second
  // moment of a healed Linear's input and what solves with it, and both streams.
  void pruning() {
    if (job_.reduced == nullptr) return;
    const bool calibrated = job_.calibration.tokens != 0;
    const auto tokens = static_cast<double>(job_.calibration.tokens);
    const auto batch = static_cast<double>(
        std::min(job_.calibration.tokens,
                 tokens_of_batch(job_.calibration.sequence_tokens)));
    const double stored_each =
        job_.stored.linear_weights == 0
            ? kFloat
            : static_cast<double>(job_.stored.linear_bytes) /
                  static_cast<double>(job_.stored.linear_weights);
    // Blocks that go whole leave the others as they are.
    const bool same_blocks = job_.reduced->layers == job_.arch->layers;
    for (std::size_t layer = 0; layer < job_.arch->layers; ++layer) {
      const BlockSpec& before = job_.arch->block(layer);
      const BlockSpec& after =
          same_blocks ? job_.reduced->block(layer) : before;
      const double was = weights_of(before), is = weights_of(after);
      double bytes = (kFloat + stored_each) * (was + is);
      double states = 0, batches = 0;
      if (calibrated) {
        double in = 0, out = 0;
        for (const LinearSpec& linear : after.linears) {
          in = std::max(in, static_cast<double>(linear.in));
          out = std::max(out, static_cast<double>(linear.out));
        }
        const LiveWidths widths = live_widths(before);
        const auto live = static_cast<double>(std::ranges::max(widths.towards));
        const auto kept = static_cast<double>(widths.at_stage.back() * kFloat);
        bytes += stored_each * was + kFloat * is +
                 kFloat * (kMomentsOfHealing * in * in + 2 * out * in) +
                 2 * batch * live * kFloat;
        states = 2 * tokens * kept;
        batches = 2 * batch * kept;
      }
      add("pruning " + job_.arch->block_name(layer), bytes + states,
          bytes + batches);
      scratch_ = std::max(scratch_, states);
    }
    pruning_by_loss();
  }

  static double weights_of(const BlockSpec& block) {
    double weights = 0;
    for (const LinearSpec& linear : block.linears) {
      weights +=
          static_cast<double>(linear.out) * static_cast<double>(linear.in);
    }
    return weights;
  }

  // The model in float32 with its gradients or its gates, weights that learn with
  // two moments more. What ranks by gradients copies both of a block.
  void pruning_by_loss() {
    for (const Stage* stage : job_.plan->transforms()) {
      const auto* const prune = std::get_if<PruneStage>(stage);
      if (prune == nullptr) continue;
      const bool gradients = prune->config.importance == Importance::kGradients;
      const double copies = gradients                        ? 2
                            : prune->config.learns_weights() ? 4
                            : prune->config.learns_masks()   ? 1
                                                             : 0;
      if (copies == 0) continue;
      const double copied = gradients ? 2 * largest_block() : 0;
      add("ranking units by the loss",
          kFloat *
              (copies * static_cast<double>(job_.stored.weights) + copied));
    }
  }

  // In numbers.
  double largest_block() const {
    double largest = 0;
    for (std::size_t layer = 0; layer < job_.arch->layers; ++layer) {
      largest = std::max(largest, weights_of(job_.arch->block(layer)));
    }
    return largest;
  }

  void compressing() {
    MemoryJob reduced_job = job_;
    if (job_.reduced != nullptr) reduced_job.arch = job_.reduced;
    const Architecture& arch = *reduced_job.arch;
    const bool reference = wants_reference(*job_.plan, arch);
    const double streams = reference ? 2 : 1;
    const double beside =
        static_cast<double>(block_rounding_bytes(
            *job_.plan, arch, job_.calibration.sequence_tokens)) +
        expert_products(*job_.plan, arch);
    const auto tokens = static_cast<double>(job_.calibration.tokens);
    const KeptInputs in_memory(job_.calibration.tokens * (reference ? 2 : 1));
    for (std::size_t layer = 0; layer < arch.layers; ++layer) {
      const BlockMemory block(reduced_job, layer, reference, in_memory);
      const BlockMemory spilling(reduced_job, layer, reference, {});
      packed_ += block.packed();
      // In a file they still come in, one batch of each stream.
      add("compressing " + arch.block_name(layer),
          block.peak(streams * tokens * kFloat) + beside,
          spilling.peak(streams * spilling.batch_bytes()) + beside);
      scratch_ = std::max(
          scratch_, streams * tokens *
                        static_cast<double>(spilling.kept_width() * kFloat));
    }
  }

  void training() {
    const StagePlan& plan = *job_.plan;
    for (const Stage* stage : plan.training()) {
      const bool packed = std::ranges::count(plan.recovery(), stage) != 0;
      add("training", static_cast<double>(training_peak_bytes(
                          *job_.arch, *stage,
                          packed ? TrainedForm::kPacked : TrainedForm::kDense,
                          grid_end_weights(plan, *job_.arch))));
    }
  }

  // The rotation of the stream and a Linear before and behind it.
  void rotating() {
    const bool rotates =
        std::ranges::any_of(job_.plan->transforms(), [](const Stage* stage) {
          return std::holds_alternative<RotateStage>(*stage);
        });
    if (!rotates) return;
    const auto hidden = static_cast<double>(job_.arch->hidden);
    in_memory_ += hidden * hidden * kFloat;
    spilled_ += hidden * hidden * kFloat;
  }

  // Whole models, and the logits of a window of each; or, streamed, a block.
  void evaluating() {
    if (job_.evaluated_tokens == 0) return;
    const auto base = static_cast<double>(job_.stored.weight_bytes);
    const double output =
        base - static_cast<double>(job_.stored.linear_bytes) + packed_;
    const auto variants = static_cast<double>(job_.variants);
    const double together =
        variants * output <= static_cast<double>(kCompareAtOnceBytes) ? variants
                                                                      : 1;
    const EvaluationNeed need =
        evaluation_need(*job_.arch, job_.stored, job_.variants + 1,
                        job_.evaluated_tokens, job_.scored_tokens);
    evaluating_ = base + together * output +
                  static_cast<double>(need.loaded - need.models);
    add("evaluating", evaluating_,
        std::min(evaluating_, static_cast<double>(need.streamed)));
    scratch_ = std::max(scratch_, static_cast<double>(need.scratch));
  }

  const MemoryJob& job_;
  double in_memory_ = 0, spilled_ = 0, scratch_ = 0, evaluating_ = 0;
  double packed_ = 0;  // of all blocks
  std::string phase_{};
};

}  // namespace

std::size_t groups_at_once(const BlockSpec& block, const StageSpec& stage,
                           const StatsNeeds& needs) {
  if (!needs.second_moment) return stage.groups;
  std::size_t weights = 0;
  for (const LinearSpec& linear : block.linears) {
    weights += linear.out * linear.in;
  }
  const std::size_t of_group = stage.in * stage.in * kFloat;
  return std::clamp<std::size_t>(weights * 2 / of_group, 1, stage.groups);
}

MemoryNeed memory_need(const MemoryJob& job) { return ModelMemory(job).need(); }

}  // namespace llmpress
