#include "compress/surgery/learned_masks.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/rng.h"
#include "compress/model/facts.h"
#include "compress/model/training/gated_linear.h"
#include "compress/model/training/trainable_model.h"
#include "distill/memory_store.h"
#include "distill/objective.h"
#include "distill/trainer.h"
#include "pruning/hard_concrete.h"

namespace llmpress {
namespace {

// The gate of no noise is 0.98.
constexpr double kFirstLogAlpha = 2.2;
// Checkpoints of all steps, each as large as what learns three times.
constexpr std::size_t kCheckpoints = 4;
// Of the steps in which the target falls to what is to stay.
constexpr double kFalling = 1.0 / 3;

// The gates of one shape and what they learn by.
struct Shape {
  Gates gates;
  std::vector<float> log_alpha, d_log_alpha;
  float multipliers[2] = {0, 0}, d_multipliers[2] = {0, 0};

  explicit Shape(std::size_t units)
      : gates(units),
        log_alpha(units, static_cast<float>(kFirstLogAlpha)),
        d_log_alpha(units) {}
};

// Where the units of a part stand among the columns that it reads.
std::vector<std::uint32_t> columns_to_units(const UnitPart& part,
                                            std::size_t columns) {
  std::vector<std::uint32_t> unit(columns);
  for (std::size_t i = 0; i < part.index.size(); ++i) {
    unit[part.index[i]] = static_cast<std::uint32_t>(i / part.width);
  }
  return unit;
}

class Masks {
 public:
  Masks(const Architecture& arch, PruneMethod method) : arch_(arch) {
    method_ = method;
    switch (method) {
      case PruneMethod::kFfn:
      case PruneMethod::kHeads:
        for (std::size_t l = 0; l < arch.layers; ++l) {
          shapes_.push_back(std::make_unique<Shape>(units(l).count));
        }
        break;
      case PruneMethod::kHidden:
        shapes_.push_back(std::make_unique<Shape>(arch.hidden));
        break;
      default:
        shapes_.push_back(std::make_unique<Shape>(arch.layers));
        break;
    }
  }

  std::vector<std::unique_ptr<Shape>>& shapes() { return shapes_; }

  std::unique_ptr<TrainableLinear> wrap(
      std::size_t layer, std::size_t linear,
      std::unique_ptr<TrainableLinear> inner) {
    GateSide in, out;
    if (layer == arch_.layers) {
      if (method_ == PruneMethod::kHidden) in = stream_side(inner->in());
    } else if (method_ == PruneMethod::kHidden) {
      if (reads_stream(layer, linear)) in = stream_side(inner->in());
    } else if (method_ == PruneMethod::kDepth) {
      if (writes_stream(layer, linear)) out = block_side(layer, inner->out());
    } else {
      const UnitPart part = units(layer).parts.back();
      if (part.linear == linear) {
        in = {&shapes_[layer]->gates, columns_to_units(part, inner->in())};
      }
    }
    if (in.gates == nullptr && out.gates == nullptr) return inner;
    return std::make_unique<GatedLinear>(std::move(inner), std::move(in),
                                         std::move(out));
  }

 private:
  BlockUnits units(std::size_t layer) const {
    return method_ == PruneMethod::kFfn ? ffn_units(arch_.block(layer))
                                        : head_units(arch_.block(layer));
  }
  GateSide stream_side(std::size_t width) {
    std::vector<std::uint32_t> all(width);
    std::iota(all.begin(), all.end(), 0u);
    return {&shapes_.front()->gates, std::move(all)};
  }
  GateSide block_side(std::size_t layer, std::size_t width) {
    return {&shapes_.front()->gates,
            std::vector(width, static_cast<std::uint32_t>(layer))};
  }
  bool reads_stream(std::size_t layer, std::size_t linear) const {
    const StreamFacts facts = stream_facts(arch_.block(layer));
    return std::ranges::any_of(facts.readers, [&](const StreamReader& r) {
      return std::ranges::count(r.linears, linear) != 0;
    });
  }
  bool writes_stream(std::size_t layer, std::size_t linear) const {
    return std::ranges::count(stream_facts(arch_.block(layer)).writers,
                              linear) != 0;
  }

  const Architecture& arch_;
  PruneMethod method_;
  std::vector<std::unique_ptr<Shape>> shapes_{};
};

class MaskObjective final : public Objective {
 public:
  MaskObjective(Masks& masks, double kept_share, std::size_t batch,
                std::size_t steps, Isa isa)
      : masks_(masks),
        text_(text_objective(0, isa)),
        kept_share_(kept_share),
        batch_(batch),
        falling_(std::max(1.0, kFalling * static_cast<double>(steps))) {}

  std::vector<Parameter> parameters() override {
    std::vector<Parameter> all;
    for (const auto& shape : masks_.shapes()) {
      const std::string name = formatted("mask.{}", all.size() / 2);
      all.push_back({name + ".log_alpha",
                     {shape->log_alpha.size()},
                     shape->log_alpha,
                     shape->d_log_alpha});
      all.push_back({name + ".multipliers",
                     {2},
                     shape->multipliers,
                     shape->d_multipliers});
    }
    return all;
  }

  LossTerms run(TrainableModel& model, const TrainingBatch& batch,
                double factor, Gradients gradients, ThreadPool& pool) override {
    if (gradients == Gradients::kNone || !batch.draw) {
      for (const auto& shape : masks_.shapes()) settle(*shape);
      return text_->run(model, batch, factor, gradients, pool);
    }
    const std::vector<std::vector<double>> slopes = sample(*batch.draw);
    const LossTerms terms = text_->run(model, batch, factor, gradients, pool);
    const double step =
        static_cast<double>(batch.draw->first) / static_cast<double>(batch_);
    const double target =
        1 - (1 - kept_share_) * std::min(1.0, step / falling_);
    for (std::size_t s = 0; s < slopes.size(); ++s) {
      differentiate(*masks_.shapes()[s], slopes[s], target, factor);
    }
    return terms;
  }

 private:
  static void settle(Shape& shape) {
    for (std::size_t u = 0; u < shape.log_alpha.size(); ++u) {
      shape.gates.value[u] =
          static_cast<float>(settled_gate(double{shape.log_alpha[u]}));
    }
  }

  // Gates of this draw; returns the slope of each.
  std::vector<std::vector<double>> sample(const BatchDraw& draw) {
    Rng mixed(draw.seed);
    Rng rng(mixed.next() ^ Rng(draw.first).next());
    std::vector<std::vector<double>> slopes;
    for (const auto& shape : masks_.shapes()) {
      slopes.emplace_back();
      std::ranges::fill(shape->gates.d, 0.0f);
      for (std::size_t u = 0; u < shape->log_alpha.size(); ++u) {
        // Of (0, 1), without its ends.
        const double noise = std::clamp(rng.uniform(), 1e-6, 1 - 1e-6);
        const GateValue gate = sampled_gate(double{shape->log_alpha[u]}, noise);
        shape->gates.value[u] = static_cast<float>(gate.value);
        slopes.back().push_back(gate.slope);
      }
    }
    return slopes;
  }

  static void differentiate(Shape& shape, std::span<const double> slopes,
                            double target, double factor) {
    const std::size_t units = slopes.size();
    double open = 0;
    std::vector<double> d_open(units);
    for (std::size_t u = 0; u < units; ++u) {
      const GateValue p = open_probability(double{shape.log_alpha[u]});
      open += p.value / static_cast<double>(units);
      d_open[u] = p.slope / static_cast<double>(units);
    }
    const double off = open - target;
    const double pull = factor * (double{shape.multipliers[0]} +
                                  2 * double{shape.multipliers[1]} * off);
    for (std::size_t u = 0; u < units; ++u) {
      shape.d_log_alpha[u] += static_cast<float>(
          double{shape.gates.d[u]} * slopes[u] + pull * d_open[u]);
    }
    // Upwards.
    shape.d_multipliers[0] -= static_cast<float>(factor * off);
    shape.d_multipliers[1] -= static_cast<float>(factor * off * off);
  }

  Masks& masks_;
  std::unique_ptr<Objective> text_;
  double kept_share_;
  std::size_t batch_;
  double falling_;
};

TrainConfig mask_training(const PruneConfig& config, std::size_t length,
                          std::size_t sequences) {
  return {.steps = config.mask_steps,
          .sequence_length = length,
          .batch_size = std::min(config.mask_batch, sequences),
          .learning_rate = config.mask_rate,
          .decay = LearningRateDecay::kConstant,
          .warmup = 0,
          .weight_decay = 0,
          .clip = 0,
          .seed = config.mask_seed,
          .evaluate_every = config.mask_steps,
          .evaluate_sequences = 1,
          .checkpoint_every =
              std::max<std::size_t>(1, config.mask_steps / kCheckpoints),
          // Closing gates is no jump.
          .divergence_factor = 1e9};
}

}  // namespace

LearnedMasks::LearnedMasks(const UnitChoiceJob& job, std::size_t kept) {
  const auto& sequences = job.calibration->sequences;
  Masks masks(*job.arch, job.config->method);
  const bool weights_learn = job.config->learns_weights();
  auto model = std::make_unique<TrainableModel>(
      *job.checkpoint,
      TrainableOptions{
          .isa = job.isa,
          .learning = {.learns =
                           [=](const std::string& tensor) {
                             // The scales of what is packed stay with its codes.
                             return weights_learn &&
                                    !tensor.ends_with("_scale") &&
                                    !tensor.ends_with("_zero_point");
                           },
                       .wraps =
                           [&](std::size_t layer, std::size_t linear,
                               std::unique_ptr<TrainableLinear> inner) {
                             return masks.wrap(layer, linear, std::move(inner));
                           }},
          .keep_activations = true,
          .progress = job.progress});
  for (Parameter& weight : model->parameters()) {
    weight.rate *= static_cast<float>(job.config->mask_weight_rate /
                                      job.config->mask_rate);
  }
  TrainingData data(sequences, sequences.front().size());
  const TrainConfig config =
      mask_training(*job.config, data.sequence_length(), data.sequences());
  const std::size_t units = masks.shapes().front()->log_alpha.size();
  MaskObjective objective(
      masks, static_cast<double>(kept) / static_cast<double>(units),
      config.batch_size, config.steps, job.isa);
  MemoryStore in_memory;
  (void)train({.config = config,
               .model = model.get(),
               .objective = &objective,
               .data = &data,
               .store = job.store != nullptr ? job.store : &in_memory,
               .keeps_end = job.store != nullptr,
               .progress = job.progress},
              *job.pool);
  for (const auto& shape : masks.shapes()) {
    scores_.emplace_back(shape->log_alpha.begin(), shape->log_alpha.end());
  }
  if (!weights_learn) return;
  weights_ = model->parameters();
  model_ = std::move(model);
}

}  // namespace llmpress
