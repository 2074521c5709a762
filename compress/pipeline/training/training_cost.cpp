#include "compress/pipeline/training/training_cost.h"

#include <algorithm>

namespace llmpress {
namespace {

// Of the logits that TrainableEnds makes at a time, and their gradient.
constexpr std::size_t kLogitBytes = std::size_t{2} << 24;

// Of embedding and head, of the blocks' Linears, and of the largest of them.
struct WeightCounts {
  std::size_t ends = 0, linears = 0, largest = 0;

  std::size_t all() const { return ends + linears; }
};

WeightCounts weights_of(const Architecture& arch) {
  WeightCounts weights{.ends = arch.vocabulary * arch.input_width() *
                               (arch.tied_head ? 1 : 2)};
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (const LinearSpec& linear : arch.block(layer).linears) {
      weights.linears += linear.out * linear.in;
      weights.largest = std::max(weights.largest, linear.out * linear.in);
    }
  }
  return weights;
}

std::size_t state_bytes(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::kAdamW:
      return 8;
    case OptimizerKind::kAdamW8Bit:
      return 2;
    case OptimizerKind::kSgd:
      return 4;
  }
  return 8;
}

// Columns of all values of a block, and of their gradients while it runs in
// reverse.
std::size_t value_columns(const BlockSpec& block) {
  std::size_t columns = 0;
  for (const ValueSpec& value : block.values) columns += value.width;
  return columns;
}

double written_share(const Stage& stage) {
  const auto* const distill = std::get_if<DistillStage>(&stage);
  return distill != nullptr ? distill->loss.on_policy : 0;
}

// Keys and values of what a student writes itself.
std::size_t written_bytes(const Architecture& arch, const DistillStage& stage) {
  if (stage.loss.on_policy == 0) return 0;
  std::size_t columns = 0;
  for (const auto& layer : arch.cache_slots()) {
    for (const CacheSlot& slot : layer) {
      columns += slot.kv_heads * (slot.key_dim + slot.value_dim);
    }
  }
  return stage.train.config.batch_size * stage.train.config.sequence_length *
         columns * sizeof(float);
}

// Weights with all that is kept for each while it learns.
std::size_t learning_bytes(const WeightCounts& weights, const Stage& stage,
                           TrainedForm form, std::size_t grid_end_weights) {
  const TrainStage& train = *training_of(stage);
  const std::size_t learned =
      2 * sizeof(float) + state_bytes(train.config.optimizer);
  if (form == TrainedForm::kPacked) {
    const std::size_t of_ends = train.learn.empty() ? learned : sizeof(float);
    return weights.ends * of_ends + weights.linears * (sizeof(float) + 1) +
           weights.largest * sizeof(float);
  }
  // An adapter is small beside its frozen base.
  if (const auto* const tune = std::get_if<TuneStage>(&stage)) {
    // A difference and its gates are not: see difference_linear.h.
    const std::size_t difference =
        tune->adapter.method == AdapterKind::kDiffPruning
            ? 7 * sizeof(float) + 2 * state_bytes(train.config.optimizer)
            : 0;
    return weights.all() * 2 * sizeof(float) + weights.linears * difference;
  }
  const std::size_t on_grid =
      train.aware
          ? sizeof(float) * (weights.linears + grid_end_weights +
                             std::max(weights.largest, grid_end_weights))
          : 0;
  return weights.all() * learned + on_grid;
}

}  // namespace

std::size_t training_peak_bytes(const Architecture& arch, const Stage& stage,
                                TrainedForm form,
                                std::size_t grid_end_weights) {
  const TrainConfig& config = training_of(stage)->config;
  const WeightCounts weights = weights_of(arch);
  const std::size_t tokens = config.batch_size * config.sequence_length;
  std::size_t all = 0, largest = 0;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    const std::size_t columns = value_columns(arch.block(layer));
    all += columns;
    largest = std::max(largest, columns);
  }
  const std::size_t kept =
      config.keep_activations ? all : largest + arch.layers * arch.hidden;
  const auto* const distill = std::get_if<DistillStage>(&stage);
  const std::size_t student =
      learning_bytes(weights, stage, form, grid_end_weights) +
      tokens * (kept + largest) * sizeof(float) + kLogitBytes;
  if (distill == nullptr) return student;
  const std::size_t teacher = weights.all() * sizeof(float);
  if (distill->teacher_cache.empty()) {
    return student + teacher + written_bytes(arch, *distill);
  }
  // The teacher comes and goes before the student; what is stored is mapped.
  return std::max(student,
                  teacher + tokens * largest * sizeof(float) + kLogitBytes);
}

double training_flops(const Architecture& arch, const Stage& stage) {
  const TrainConfig& config = training_of(stage)->config;
  const auto step = static_cast<double>(
      config.batch_size * config.accumulation * config.sequence_length);
  const double tokens = config.tokens != 0
                            ? static_cast<double>(config.tokens)
                            : static_cast<double>(config.steps) * step;
  const double passes = (config.keep_activations ? 6 : 8) +
                        (std::holds_alternative<DistillStage>(stage) ? 2 : 0) +
                        2 * written_share(stage);
  return passes * static_cast<double>(weights_of(arch).all()) * tokens;
}

}  // namespace llmpress
