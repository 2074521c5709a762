#include "quantizers/autoround.h"

#include <limits>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "quantizers/gptq.h"
#include "quantizers/int_grid.h"
#include "quantizers/quantize_result.h"
#include "quantizers/signed_rounding.h"

namespace llmpress {

namespace {

double product_sum(const MatrixF& A, const MatrixF& B) {
  double sum = 0;
  for (std::size_t k = 0; k < A.size(); ++k) {
    sum += static_cast<double>(A.data()[k]) * static_cast<double>(B.data()[k]);
  }
  return sum;
}

void learn(const QuantizeRequest& request, SignedRounding& rounding) {
  const SignedRoundingConfig& config = request.config->signed_rounding;
  ThreadPool& pool = *request.pool;
  const ConstMatrixView S = request.stats->second_moment.view();
  MatrixF E(request.W.rows(), request.W.cols()), D(E.rows(), E.cols());
  RoundingParameters best = rounding.parameters();
  double best_loss = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i <= config.iterations; ++i) {
    rounding.round_into(E.view(), pool);
    for (std::size_t k = 0; k < E.size(); ++k) {
      E.data()[k] -= request.W.data()[k];
    }
    matmul_transposed(E.view(), S, D.view(), pool);  // S is symmetric
    const double loss = product_sum(E, D);
    if (loss < best_loss) {
      best_loss = loss;
      best = rounding.parameters();
    }
    if (i == config.iterations || !(best_loss > 0)) break;
    rounding.step(D.view(), rates_at(config, i), pool);
  }
  rounding.set_parameters(std::move(best));
}

QuantizeResult quantize_autoround(const QuantizeRequest& request) {
  check_weights(request.W, request.name);
  if (request.config->weights.type != WeightType::kInt) {
    fail(ErrorCode::kInvalidArgument, "{}: autoround: weights.type must be int",
         request.name);
  }
  if (request.stats == nullptr ||
      request.stats->second_moment.rows() != request.W.cols()) {
    fail(ErrorCode::kInvalidArgument, "{}: autoround needs calibration data",
         request.name);
  }
  SignedRounding rounding(request.W, request.config->weights, *request.pool);
  learn(request, rounding);
  return finish_rounding(request, rounding.pack(*request.pool));
}

constexpr Named<SignedRoundingConfig::Start> kStartWords[] = {
    {"rtn", SignedRoundingConfig::Start::kNearest},
    {"gptq", SignedRoundingConfig::Start::kSolved}};

std::optional<QuantizeConfig> start_of(const QuantizeConfig& config) {
  if (config.signed_rounding.start == SignedRoundingConfig::Start::kNearest) {
    return std::nullopt;
  }
  QuantizeConfig start = config;
  start.method = gptq_method().name;
  return start;
}

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
     word_at<kStartWords, kLearned, &SignedRoundingConfig::start>()},
    {"learn_clipping", "learn the ranges of groups too",
     bool_at<kLearned, &SignedRoundingConfig::learn_clipping>()},
};

std::optional<SettingFault> check_settings(const QuantizeConfig& config) {
  if (config.input.kind != ActivationQuant::Kind::kNone) {
    return SettingFault{"input",
                        "must be left out for method 'autoround', which learns "
                        "weights for inputs that are not rounded"};
  }
  if (config.weights.group_size == 0) {
    return SettingFault{"weights",
                        "must have groups for method 'autoround': group_size "
                        "is 0, the whole tensor"};
  }
  return std::nullopt;
}

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
          .quantize = quantize_autoround,
          .settings = kSettings,
          .check = check_settings,
          .block_wise = true,
          .start = start_of};
}

}  // namespace llmpress
