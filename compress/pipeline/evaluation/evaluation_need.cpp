#include "compress/pipeline/evaluation/evaluation_need.h"

#include <algorithm>

#include "compress/core/checked.h"
#include "compress/model/live_widths.h"
#include "compress/pipeline/evaluation/evaluation_text.h"

namespace llmpress {
namespace {

constexpr std::size_t kFloat = sizeof(float);
// A head while its kernel is prepared: as it was read, and in panels twice.
constexpr std::size_t kPreparingHead = 2;

}  // namespace

EvaluationNeed evaluation_need(const Architecture& arch,
                               const ModelSize& stored, std::size_t models,
                               std::size_t window_tokens,
                               std::size_t scored_tokens) {
  const std::size_t tokens =
      std::min(scored_tokens, evaluation_batch_tokens(window_tokens));
  std::size_t weights = 0, widest = 0, kept = arch.hidden;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    const BlockSpec& spec = arch.block(layer);
    std::size_t of_block = 0;
    for (const LinearSpec& linear : spec.linears) {
      of_block += linear.out * linear.in;
    }
    weights = std::max(weights, of_block);
    const LiveWidths widths = live_widths(spec);
    widest = std::max(widest, std::ranges::max(widths.towards));
    kept = std::max(kept, widths.at_stage.back());
  }
  const auto bytes_of = [](std::size_t bytes, std::size_t all,
                           std::size_t part) {
    return all == 0 ? 0
                    : static_cast<std::size_t>(static_cast<double>(bytes) /
                                               static_cast<double>(all) *
                                               static_cast<double>(part));
  };
  const std::size_t head = bytes_of(stored.weight_bytes - stored.linear_bytes,
                                    stored.weights - stored.linear_weights,
                                    arch.vocabulary * arch.hidden);
  const std::size_t logits =
      models * kEvaluatedLogitRows * arch.vocabulary * kFloat;
  const std::size_t block =
      bytes_of(stored.linear_bytes, stored.linear_weights, weights);
  const std::size_t running = tokens * (kept + widest) * kFloat;
  const std::size_t all = models * stored.weight_bytes;
  return {.loaded = all + running + logits,
          .streamed = models * head +
                      std::max({block + running,
                                models * tokens * arch.hidden * kFloat + logits,
                                kPreparingHead * head}),
          .scratch = models * scored_tokens * kept * kFloat,
          .models = all,
          .head = models * head};
}

std::size_t loaded_on_rank(const EvaluationNeed& whole,
                           const Architecture& arch, const ModelSize& stored,
                           std::size_t stages, std::size_t rows) {
  if (arch.layers == 0 || stored.linear_weights == 0) return whole.loaded;
  std::size_t largest = 0;  // Linear: some forms are read whole by a rank
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (const LinearSpec& linear : arch.block(layer).linears) {
      largest = std::max(largest, linear.out * linear.in);
    }
  }
  const auto blocks = static_cast<double>(ceil_div(arch.layers, stages)) /
                      static_cast<double>(arch.layers);
  const auto linears = static_cast<double>(stored.linear_bytes);
  const double own = linears * blocks / static_cast<double>(rows);
  const double reading =
      rows == 1 ? 0.0
                : linears / static_cast<double>(stored.linear_weights) *
                      static_cast<double>(largest);
  const std::size_t ends = stored.weight_bytes - stored.linear_bytes -
                           (whole.head - whole.head / rows);
  return whole.loaded - whole.models + ends +
         static_cast<std::size_t>(own + reading);
}

}  // namespace llmpress
