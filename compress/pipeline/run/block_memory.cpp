#include "compress/pipeline/run/block_memory.h"

#include <algorithm>

#include "compress/calibration/calibration_states.h"
#include "compress/pipeline/run/linear_compressor.h"
#include "compress/surgery/block_smoothing.h"
#include "quantizers/method.h"

namespace llmpress {
namespace {

constexpr std::size_t kFloat = sizeof(float);

double packed_bytes(const QuantizeStage& stage) {
  const double bits = stage.target_bits.value_or(stage.config.weights.bits);
  return bits / 8 + 0.05;
}

}  // namespace

BlockMemory::BlockMemory(const MemoryJob& job, std::size_t layer,
                         bool reference, const KeptInputs& kept)
    : job_(job),
      layer_(layer),
      kept_(kept),
      spec_(job.arch->block(layer)),
      widths_(live_widths(spec_)),
      calibrated_(job.calibration.tokens != 0),
      streams_(calibrated_ && reference ? 2 : 1) {
  const double bytes_per_weight =
      job.stored.linear_weights == 0
          ? 4
          : static_cast<double>(job.stored.linear_bytes) /
                static_cast<double>(job.stored.linear_weights);
  for (std::size_t l = 0; l < spec_.linears.size(); ++l) {
    LinearCost cost;
    cost.numbers = static_cast<double>(spec_.linears[l].out) *
                   static_cast<double>(spec_.linears[l].in);
    cost.stored = cost.numbers * bytes_per_weight;
    const LinearTreatment treatment = treatment_of(l);
    cost.packed = treatment.quantize == nullptr
                      ? cost.stored
                      : cost.numbers * packed_bytes(*treatment.quantize);
    linears_.push_back(cost);
    numbers_ += cost.numbers;
    stored_ += cost.stored;
  }
}

std::size_t BlockMemory::kept_width() const {
  std::size_t kept = widths_.at_stage.back();
  for (std::size_t s = 0; s < spec_.stages.size(); ++s) {
    if (!is_made_by_batches(s)) kept = std::max(kept, widths_.at_stage[s]);
  }
  return kept;
}

std::size_t BlockMemory::width_at(std::size_t s) const {
  return widths_.at_stage[is_made_by_batches(s) ? s - 1 : s];
}

double BlockMemory::peak(double state) const {
  if (!calibrated_) return without_calibration();
  const bool smooths = this->smooths();
  // A block whose scales moved stays in float32 until a Linear is done.
  double dense = smooths ? numbers_ * kFloat + stored_ : 0;
  double most =
      smooths ? smoothing() + state * static_cast<double>(width_at(0)) : 0;
  // What runs the Linears, and those that are packed.
  double kernels = smooths ? numbers_ * kFloat : stored_;
  const double reference = streams_ == 2 ? kernels : 0;
  double done = 0;
  for (std::size_t s = 0; s < spec_.stages.size(); ++s) {
    most = std::max(most, dense + kernels + reference + done +
                              std::max(collecting(s), solving(s)) +
                              state * static_cast<double>(width_at(s)));
    for (const std::size_t l : spec_.stages[s].linears) {
      const double of_linear = linears_[l].numbers * kFloat;
      if (smooths) dense -= of_linear + linears_[l].stored;
      done += linears_[l].packed;
      kernels +=
          linears_[l].packed - (smooths ? of_linear : linears_[l].stored);
    }
  }
  const auto after = static_cast<double>(widths_.at_stage.back());
  return std::max(most, kernels + reference + done + state * after);
}

double BlockMemory::packed() const {
  double bytes = 0;
  for (const LinearCost& linear : linears_) bytes += linear.packed;
  return bytes;
}

double BlockMemory::batch_bytes() const {
  return static_cast<double>(batch_tokens() * kFloat);
}

LinearTreatment BlockMemory::treatment_of(std::size_t l) const {
  return llmpress::treatment_of(*job_.plan, *job_.arch, layer_, l);
}

bool BlockMemory::smooths() const {
  return calibrated_ && wants_smoothing(*job_.plan, *job_.arch, layer_);
}

StatsNeeds BlockMemory::needs_of_stage(std::size_t s) const {
  StatsNeeds needs;
  for (const std::size_t l : spec_.stages[s].linears) {
    needs = needs | needs_of(treatment_of(l));
  }
  return needs;
}

bool BlockMemory::is_made_by_batches(std::size_t s) const {
  return any(needs_of_stage(s)) && kept_.remakes(spec_, s, *job_.arch);
}

std::size_t BlockMemory::batch_tokens() const {
  return std::min(job_.calibration.tokens,
                  tokens_of_batch(job_.calibration.sequence_tokens));
}

double BlockMemory::moments(std::size_t s) const {
  const StatsNeeds needs = needs_of_stage(s);
  const StageSpec& stage = spec_.stages[s];
  const double matrix =
      static_cast<double>(stage.in) * static_cast<double>(stage.in) * kFloat;
  const std::size_t groups = groups_at_once(spec_, stage, needs);
  return matrix * static_cast<double>(groups) *
         ((needs.second_moment ? 1 : 0) + (needs.reference_moment ? 1 : 0));
}

double BlockMemory::collecting(std::size_t s) const {
  const auto tokens = static_cast<double>(batch_tokens());
  double numbers = static_cast<double>(widths_.towards[s]);
  if (is_made_by_batches(s)) {
    numbers += static_cast<double>(widths_.at_stage[s - 1]);
  }
  return moments(s) + static_cast<double>(streams_) * tokens * numbers * kFloat;
}

double BlockMemory::solving(std::size_t s) const {
  double most = 0;
  for (const std::size_t l : spec_.stages[s].linears) {
    most = std::max(most, work(l));
  }
  return moments(s) + most;
}

double BlockMemory::work(std::size_t l) const {
  const LinearTreatment treatment = treatment_of(l);
  const LinearCost& cost = linears_[l];
  // What a stage changes as it is read comes in float32.
  if (compresses_by_rows(treatment, spec_.linears[l].in, nullptr) &&
      !smooths() && job_.plan->transforms().empty()) {
    return cost.stored + 2 * cost.packed;  // its rows, and those joined
  }
  double bytes = cost.stored + cost.numbers * kFloat + cost.packed;
  const StatsNeeds needs = needs_of(treatment);
  const auto in = static_cast<double>(spec_.linears[l].in);
  if (needs.second_moment) bytes += in * in * kFloat;  // the inverse
  if (needs.reference_moment) bytes += 3 * in * in * kFloat;
  if (treatment.prune != nullptr) bytes += cost.numbers * (kFloat + 1);
  if (treatment.quantize != nullptr && needs.second_moment) {
    // Rows that are being solved, codes.
    bytes +=
        std::min(cost.numbers * kFloat, static_cast<double>(kSolvedBytes)) +
        cost.numbers * 3;
  }
  return bytes;
}

double BlockMemory::without_calibration() const {
  double most = 0;
  for (std::size_t l = 0; l < linears_.size(); ++l) {
    most = std::max(most, work(l));
  }
  // The block before may still be on its way to its file.
  return (job_.arch->layers > 1 ? 2 : 1) * packed() + most;
}

double BlockMemory::smoothing() const {
  if (!searches_scales(*job_.plan, *job_.arch, layer_)) {
    return numbers_ * kFloat + 2 * stored_;
  }
  double sample = 0;
  for (const std::size_t width : widths_.at_stage) {
    sample += static_cast<double>(kSmoothingTokens * width * kFloat);
  }
  return 3 * numbers_ * kFloat + stored_ + sample;
}

}  // namespace llmpress
