#include "quantizers/efficientqat.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "compress/core/optimizers/adamw.h"
#include "quantizers/block_weight.h"
#include "quantizers/learned_grid.h"
#include "quantizers/quantize_result.h"
#include "quantizers/rtn.h"

namespace llmpress {
namespace {

// W as it is rounded to nearest, with scales that its type holds.
PackedWeight nearest(const BlockWeightRequest& request) {
  PackedWeight rounded =
      round_to_nearest(request.W, *request.config, *request.pool);
  if (scales_fit(rounded)) return rounded;
  QuantizeConfig wider = *request.config;
  wider.weights.scale_dtype = DType::kF32;
  return round_to_nearest(request.W, wider, *request.pool);
}

class TrainedWeight final : public BlockWeight {
 public:
  explicit TrainedWeight(const BlockWeightRequest& request)
      : config_(request.config->efficientqat),
        W_(request.W),
        grid_(request.start != nullptr ? PackedWeight(*request.start)
                                       : nearest(request)),
        d_scales_(grid_.scales().size()),
        d_zeros_(grid_.zeros().size()),
        mean_step_(grid_.mean_scale()) {}

  void round_into(MatrixView<float> W_q, ThreadPool& pool) const override {
    grid_.round_into(W_.view(), W_q, pool);
  }

  void step(MatrixView<float> D, std::size_t iteration,
            ThreadPool& pool) override {
    std::ranges::fill(d_scales_, 0.0f);
    std::ranges::fill(d_zeros_, 0.0f);
    grid_.differentiate(W_.view(), D, d_scales_, d_zeros_, pool);
    const double left = falling_share(iteration, config_.training.iterations);
    const auto of_weights = static_cast<float>(left * config_.learning_rate);
    const auto of_scales =
        static_cast<float>(left * config_.scale_learning_rate);
    move(iteration, of_weights * mean_step_, D.data(), W_.data(), of_weights_,
         pool);
    move(iteration, of_scales * mean_step_, d_scales_, grid_.scales(),
         of_scales_, pool);
    move(iteration, of_scales, d_zeros_, grid_.zeros(), of_zeros_, pool);
    grid_.settle();
  }

  GroupedIntWeight pack(ThreadPool& pool) const override {
    return std::get<GroupedIntWeight>(grid_.pack(W_.view(), pool));
  }

 private:
  static void move(std::size_t iteration, float rate,
                   std::span<const float> gradient, std::span<float> value,
                   AdamWState& state, ThreadPool& pool) {
    if (rate == 0 || value.empty()) return;
    adamw_step({}, iteration + 1, rate, 0, 1, gradient, value, state, pool);
  }

  const EfficientQatConfig config_;
  MatrixF W_;
  LearnedGrid grid_;
  std::vector<float> d_scales_, d_zeros_;
  float mean_step_;
  AdamWState of_weights_{}, of_scales_{}, of_zeros_{};
};

constexpr auto kOwn = &QuantizeConfig::efficientqat;
constexpr auto kTraining = &EfficientQatConfig::training;
constexpr Setting<QuantizeConfig> kSettings[] = {
    {"iterations", "steps for each block",
     count_at<kOwn, kTraining, &BlockTrainingConfig::iterations>(1, 100000)},
    {"learning_rate",
     "of the weights, in mean grid steps; of the first step, falling to 0",
     number_at<kOwn, &EfficientQatConfig::learning_rate>(0, 1)},
    {"scale_learning_rate",
     "of the scales, in mean scales, and of the zero points",
     number_at<kOwn, &EfficientQatConfig::scale_learning_rate>(0, 1)},
    {"batch_size", "calibration sequences of a step",
     count_at<kOwn, kTraining, &BlockTrainingConfig::batch_size>(1, 4096)},
    {"seed", "of the order of the sequences",
     count_at<kOwn, kTraining, &BlockTrainingConfig::seed>(0, 4294967295)},
    {"start", "what learning starts from, stage by stage: the method",
     word_at<kBlockStartWords, kOwn, kTraining, &BlockTrainingConfig::start>()},
};

}  // namespace

QuantizerMethod efficientqat_method() {
  return {.name = "efficientqat",
          .summary =
              "trains the weights and scales of a block's Linears on "
              "their grid, by AdamW on the block's output",
          .paper = "arXiv:2407.11062",
          .weights = WeightKinds::kIntegers,
          .needs =
              [](const QuantizeConfig&) {
                return StatsNeeds{.second_moment = true};
              },
          .quantize = learn_alone,
          .settings = kSettings,
          .check = check_block_wise,
          .learn_in_block = [](const BlockWeightRequest& request)
              -> std::unique_ptr<BlockWeight> {
            return std::make_unique<TrainedWeight>(request);
          },
          .schedule =
              [](const QuantizeConfig& config) {
                return schedule_of(config.efficientqat.training);
              },
          .start =
              [](const QuantizeConfig& config) {
                return solved_start(config, config.efficientqat.training.start);
              }};
}

}  // namespace llmpress
