#include "quantizers/block_weight.h"

#include <limits>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "quantizers/gptq.h"
#include "quantizers/int_grid.h"
#include "quantizers/method.h"
#include "quantizers/quantize_result.h"

namespace llmpress {
namespace {

double product_sum(const MatrixF& A, const MatrixF& B) {
  double sum = 0;
  for (std::size_t k = 0; k < A.size(); ++k) {
    sum += static_cast<double>(A.data()[k]) * static_cast<double>(B.data()[k]);
  }
  return sum;
}

GroupedIntWeight learn(const QuantizeRequest& request,
                       const QuantizerMethod& method) {
  const std::size_t iterations = method.schedule(*request.config).iterations;
  ThreadPool& pool = *request.pool;
  const ConstMatrixView S = request.stats->second_moment.view();
  const std::unique_ptr<BlockWeight> weight = method.learn_in_block(
      {.W = request.W, .config = request.config, .pool = &pool});
  MatrixF E(request.W.rows(), request.W.cols()), D(E.rows(), E.cols());
  GroupedIntWeight best = weight->pack(pool);
  double best_loss = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i <= iterations; ++i) {
    weight->round_into(E.view(), pool);
    for (std::size_t k = 0; k < E.size(); ++k) {
      E.data()[k] -= request.W.data()[k];
    }
    matmul_transposed(E.view(), S, D.view(), pool);  // S is symmetric
    const double loss = product_sum(E, D);
    if (loss < best_loss) {
      best_loss = loss;
      best = weight->pack(pool);
    }
    if (i == iterations || !(best_loss > 0)) break;
    weight->step(D.view(), i, pool);
  }
  return best;
}

}  // namespace

BlockSchedule schedule_of(const BlockTrainingConfig& config) {
  return {.iterations = config.iterations,
          .batch_size = config.batch_size,
          .seed = config.seed};
}

double falling_share(std::size_t iteration, std::size_t iterations) {
  return 1 - static_cast<double>(iteration) / static_cast<double>(iterations);
}

std::optional<QuantizeConfig> solved_start(const QuantizeConfig& config,
                                           BlockStart start) {
  if (start == BlockStart::kNearest) return std::nullopt;
  QuantizeConfig solved = config;
  solved.method = gptq_method().name;
  return solved;
}

std::optional<SettingFault> check_block_wise(const QuantizeConfig& config) {
  if (config.input.kind != ActivationQuant::Kind::kNone) {
    return SettingFault{"input",
                        formatted("must be left out for method '{}', which "
                                  "learns weights for inputs that are not "
                                  "rounded",
                                  config.method)};
  }
  if (config.weights.group_size == 0) {
    return SettingFault{"weights",
                        formatted("must have groups for method '{}': "
                                  "group_size is 0, the whole tensor",
                                  config.method)};
  }
  return std::nullopt;
}

QuantizeResult learn_alone(const QuantizeRequest& request) {
  const QuantizerMethod& method = method_of(*request.config);
  check_weights(request.W, request.name);
  if (request.config->weights.type != WeightType::kInt) {
    fail(ErrorCode::kInvalidArgument, "{}: {}: weights.type must be int",
         request.name, method.name);
  }
  if (request.stats == nullptr ||
      request.stats->second_moment.rows() != request.W.cols()) {
    fail(ErrorCode::kInvalidArgument, "{}: {} needs calibration data",
         request.name, method.name);
  }
  return finish_rounding(request, learn(request, method));
}

QuantizeResult finish_rounding(const QuantizeRequest& request,
                               GroupedIntWeight weight) {
  const bool wider = weight.scale_dtype != request.config->weights.scale_dtype;
  QuantizeResult result = finish_result(request, std::move(weight));
  if (wider) {
    result.notes.push_back("scales stored as f32: f16 does not hold them");
  }
  return result;
}

}  // namespace llmpress
