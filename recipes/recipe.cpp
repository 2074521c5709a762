#include "recipes/recipe.h"

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

}  // namespace

std::string SourcePosition::to_string() const {
  if (line == 0) return file;
  return formatted("{}:{}:{}", file, line, column);
}

std::string_view stage_name(const Stage& stage) {
  return std::visit(
      Overloaded{
          [](const MergeLoraStage&) { return std::string_view("merge_lora"); },
          [](const PruneStage&) { return std::string_view("prune"); },
          [](const SmoothStage&) { return std::string_view("smooth"); },
          [](const RotateStage&) { return std::string_view("rotate"); },
          [](const InjectOutliersStage&) {
            return std::string_view("inject_outliers");
          },
          [](const QuantizeStage&) { return std::string_view("quantize"); },
          [](const QuantizeKvCacheStage&) {
            return std::string_view("quantize_kv_cache");
          },
          [](const TrainStage&) { return std::string_view("train"); },
          [](const DistillStage&) { return std::string_view("distill"); },
          [](const TuneStage&) { return std::string_view("tune"); },
      },
      stage);
}

const SourcePosition& position_of(const Stage& stage) {
  return std::visit(
      [](const auto& s) -> const SourcePosition& { return s.position; }, stage);
}

const TrainStage* training_of(const Stage& stage) {
  if (const auto* const distill = std::get_if<DistillStage>(&stage)) {
    return &distill->train;
  }
  const auto* const tune = std::get_if<TuneStage>(&stage);
  return tune != nullptr ? &tune->train : std::get_if<TrainStage>(&stage);
}

bool Recipe::operator==(const Recipe& other) const {
  return name == other.name && description == other.description &&
         model == other.model && calibration == other.calibration &&
         stages == other.stages && output == other.output &&
         variants == other.variants && evaluate == other.evaluate &&
         report == other.report && isa == other.isa;
}

}  // namespace llmpress
