#include "quantizers/autoround.h"

#include <memory>

#include "quantizers/block_weight.h"
#include "quantizers/signed_rounding.h"

namespace llmpress {

namespace {

class RoundedWeight final : public BlockWeight {
 public:
  explicit RoundedWeight(const BlockWeightRequest& request)
      : config_(request.config->signed_rounding),
        rounding_(request.W, request.config->weights, *request.pool) {
    if (request.start != nullptr) {
      rounding_.start_from(*request.start, *request.pool);
    }
  }

  void round_into(MatrixView<float> W_q, ThreadPool& pool) const override {
    rounding_.round_into(W_q, pool);
  }
  void step(MatrixView<float> D, std::size_t iteration,
            ThreadPool& pool) override {
    rounding_.step(D, rates_at(config_, iteration), pool);
  }
  GroupedIntWeight pack(ThreadPool& pool) const override {
    return rounding_.pack(pool);
  }

 private:
  const SignedRoundingConfig config_;
  SignedRounding rounding_;
};

constexpr auto kLearned = &QuantizeConfig::signed_rounding;
constexpr Setting<QuantizeConfig> kSettings[] = {
    {"iterations", "steps for each block",
     count_at<kLearned, &SignedRoundingConfig::iterations>(1, 100000)},
    {"learning_rate",
     "of the first step, falling to 0; 0: one over the iterations",
     number_at<kLearned, &SignedRoundingConfig::learning_rate>(0, 1)},
    {"batch_size", "calibration sequences of a step",
     count_at<kLearned, &SignedRoundingConfig::batch_size>(1, 4096)},
    {"seed", "of the order of the sequences",
     count_at<kLearned, &SignedRoundingConfig::seed>(0, 4294967295)},
    {"start", "what learning starts from, stage by stage: the method",
     word_at<kBlockStartWords, kLearned, &SignedRoundingConfig::start>()},
    {"learn_clipping", "learn the ranges of groups too",
     bool_at<kLearned, &SignedRoundingConfig::learn_clipping>()},
};

}  // namespace

QuantizerMethod autoround_method() {
  return {.name = "autoround",
          .summary =
              "learns rounding and ranges of a block's Linears by signed "
              "gradient descent",
          .paper = "arXiv:2309.05516",
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
            return std::make_unique<RoundedWeight>(request);
          },
          .schedule = [](const QuantizeConfig& config) -> BlockSchedule {
            const SignedRoundingConfig& own = config.signed_rounding;
            return {.iterations = own.iterations,
                    .batch_size = own.batch_size,
                    .seed = own.seed};
          },
          .start =
              [](const QuantizeConfig& config) {
                return solved_start(config, config.signed_rounding.start);
              }};
}

}  // namespace llmpress
