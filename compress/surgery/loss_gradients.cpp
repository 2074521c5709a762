#include "compress/surgery/loss_gradients.h"

#include <cstdint>
#include <span>
#include <utility>

#include "compress/core/formatted.h"
#include "distill/objective.h"
#include "pruning/importance.h"
#include "pruning/unit_selection.h"

namespace llmpress {
namespace {

TrainingBatch batch_of(std::span<const TokenId> tokens) {
  TrainingBatch batch;
  batch.input = {{tokens.begin(), tokens.end()}, {tokens.size()}};
  for (std::size_t t = 1; t < tokens.size(); ++t) {
    batch.targets.push_back(static_cast<std::int32_t>(tokens[t]));
  }
  batch.targets.push_back(-1);
  return batch;
}

}  // namespace

LossGradients::LossGradients(const Checkpoint& checkpoint,
                             const CalibrationSet& calibration, Isa isa,
                             ThreadPool& pool, const Progress& progress)
    : model_(std::make_unique<TrainableModel>(
          checkpoint, TrainableOptions{.isa = isa, .progress = progress})) {
  const auto objective = text_objective(0, isa);
  const auto& sequences = calibration.sequences;
  const double each = 1.0 / static_cast<double>(sequences.size());
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    report(progress, {"gradients", s, sequences.size(), ""});
    (void)objective->run(*model_, batch_of(sequences[s]), each, Gradients::kAdd,
                         pool);
  }
  report(progress, {"gradients", sequences.size(), sequences.size(), ""});
  for (const Parameter& parameter : model_->parameters()) {
    if (parameter.shape.size() != 2) continue;
    const std::size_t rows = parameter.shape[0], cols = parameter.shape[1];
    matrices_[parameter.name] = {{parameter.value, rows, cols},
                                 {parameter.gradient, rows, cols}};
  }
}

const LossGradients::Learned& LossGradients::linear(std::size_t layer,
                                                    std::size_t index) const {
  return matrices_.at(model_->architecture().linear_name(layer, index) +
                      ".weight");
}

std::vector<double> LossGradients::unit_importance(const BlockUnits& units,
                                                   std::size_t layer) const {
  std::vector<std::pair<MatrixF, MatrixF>> parts;  // weights, gradients
  std::vector<UnitSlice> slices;
  parts.reserve(units.parts.size());
  for (const UnitPart& part : units.parts) {
    const Learned& learned = linear(layer, part.linear);
    const bool rows = part.axis == WeightAxis::kRows;
    const auto select = [&](ConstMatrixView W) {
      return rows ? select_rows(W, part.index) : select_columns(W, part.index);
    };
    parts.emplace_back(select(learned.weight), select(learned.gradient));
    slices.push_back({.W = parts.back().first.view(),
                      .axis = rows ? UnitAxis::kRows : UnitAxis::kColumns,
                      .width = part.width,
                      .gradient = parts.back().second.view()});
  }
  return gradient_importance(slices, units.count);
}

std::vector<double> LossGradients::hidden_importance() const {
  const Architecture& arch = model_->architecture();
  std::vector<UnitSlice> slices;
  const auto add = [&](const Learned& learned, UnitAxis axis) {
    slices.push_back(
        {.W = learned.weight, .axis = axis, .gradient = learned.gradient});
  };
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    const StreamFacts facts = stream_facts(arch.block(layer));
    for (const std::size_t l : facts.writers) {
      add(linear(layer, l), UnitAxis::kRows);
    }
    for (const StreamReader& reader : facts.readers) {
      for (const std::size_t l : reader.linears) {
        add(linear(layer, l), UnitAxis::kColumns);
      }
    }
  }
  for (const std::string& module : {arch.embedding, arch.head}) {
    const auto found = matrices_.find(module + ".weight");
    if (found != matrices_.end()) add(found->second, UnitAxis::kColumns);
  }
  return gradient_importance(slices, arch.hidden);
}

}  // namespace llmpress
