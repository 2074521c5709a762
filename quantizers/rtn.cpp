#include "quantizers/rtn.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "quantizers/activation_range.h"
#include "quantizers/fp8.h"
#include "quantizers/ggml_rounding.h"
#include "quantizers/int_grid.h"
#include "quantizers/micro_fp4.h"
#include "quantizers/quantize_result.h"
#include "quantizers/table4.h"

namespace llmpress {
namespace {

DenseWeight round_float(ConstMatrixView W, const WeightScheme& scheme) {
  const DType dtype = scheme.float_dtype;
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
    throw Error(ErrorCode::kInvalidArgument,
                "weights: float_dtype must be f32, f16 or bf16");
  }
  return make_dense(W, dtype);
}

PackedWeight round_int(ConstMatrixView W, const QuantizeConfig& config,
                       ThreadPool& pool, std::span<const float> importance) {
  GroupedIntWeight weight =
      round_to_grids(W, fit_int_grids(W, config.weights, pool, importance),
                     config.weights, pool);
  if (wants_int8(config, W.cols())) return to_int8(weight);
  return weight;
}

QuantizeResult round_request(const QuantizeRequest& request,
                             const QuantizeConfig& config,
                             std::span<const float> importance) {
  check_weights(request.W, request.name);
  return finish_result(
      request, round_to_nearest(request.W, config, *request.pool, importance));
}

}  // namespace

bool wants_int8(const QuantizeConfig& config, std::size_t in) {
  return config.weights.type == WeightType::kInt && config.weights.bits == 8 &&
         config.input.kind == ActivationQuant::Kind::kInt &&
         resolved_group_size(config.weights, in) == in;
}

PackedWeight round_to_nearest(ConstMatrixView W, const QuantizeConfig& config,
                              ThreadPool& pool,
                              std::span<const float> importance) {
  switch (config.weights.type) {
    case WeightType::kInt:
      return round_int(W, config, pool, importance);
    case WeightType::kFp8E4M3:
    case WeightType::kFp8E5M2:
      return quantize_fp8(W, config.weights, pool);
    case WeightType::kFloat:
      return round_float(W, config.weights);
    case WeightType::kNf4:
    case WeightType::kFp4:
      return quantize_table4(W, config.weights, pool);
    case WeightType::kMxfp4:
    case WeightType::kNvfp4:
      return quantize_micro_fp4(W, config.weights, pool);
    case WeightType::kGgml:
      return round_to_fitting_ggml(W, config.weights.ggml_type, pool,
                                   importance);
  }
  throw std::logic_error("round_to_nearest: unknown weight type");
}

bool rounds_rows_apart(const QuantizeConfig& config, std::size_t in) {
  const WeightScheme& weights = config.weights;
  switch (weights.type) {
    case WeightType::kFloat:
    case WeightType::kMxfp4:
    case WeightType::kGgml:
      return true;
    case WeightType::kNvfp4:  // one scale for all
      return false;
    case WeightType::kInt:
      return weights.group_size != 0;
    case WeightType::kFp8E4M3:
    case WeightType::kFp8E5M2:
      return weights.group_size != 0 && weights.block_rows <= 1;
    case WeightType::kNf4:
    case WeightType::kFp4: {
      // Blocks run on over the ends of rows.
      const std::size_t block =
          weights.group_size < 0 ? in
                                 : static_cast<std::size_t>(weights.group_size);
      return block != 0 && !weights.double_quant && in % block == 0 &&
             in % 2 == 0;
    }
  }
  throw std::logic_error("rounds_rows_apart: unknown weight type");
}

QuantizeResult quantize_rtn(const QuantizeRequest& request) {
  return round_request(request, *request.config, {});
}

namespace {

QuantizeResult quantize_imatrix(const QuantizeRequest& request) {
  QuantizeConfig config = *request.config;
  const bool blocks = config.weights.type == WeightType::kGgml;
  if (config.weights.type != WeightType::kInt && !blocks) {
    fail(ErrorCode::kInvalidArgument,
         "{}: imatrix: weights.type must be int or a block type of GGUF",
         request.name);
  }
  if (request.stats == nullptr ||
      request.stats->square_mean.size() != request.W.cols()) {
    fail(ErrorCode::kInvalidArgument, "{}: imatrix needs calibration data",
         request.name);
  }
  if (blocks) return round_request(request, config, request.stats->square_mean);
  config.weights.range = RangeSearch::kMse;
  config.weights.mse_norm = 2;
  const std::vector<float>& squares = request.stats->square_mean;
  // Channels that calibration never saw must not be free to clip.
  double mean = 0;
  for (const float s : squares) mean += static_cast<double>(s);
  mean /= static_cast<double>(squares.size());
  std::vector<float> importance(squares.size(), 1.0f);
  if (mean > 0) {
    for (std::size_t i = 0; i < squares.size(); ++i) {
      importance[i] =
          static_cast<float>(static_cast<double>(squares[i]) / mean) + 1e-3f;
    }
  }
  return round_request(request, config, importance);
}

}  // namespace

QuantizerMethod rtn_method() {
  return {.name = "rtn",
          .summary = "rounds to nearest",
          .paper = "arXiv:1712.05877",
          .needs =
              [](const QuantizeConfig& config) {
                return activation_needs(config.input);
              },
          .quantize = quantize_rtn,
          .solves = true,
          .rounds_rows_apart = rounds_rows_apart};
}

QuantizerMethod imatrix_method() {
  return {.name = "imatrix",
          .summary =
              "rounds to nearest, ranges searched under the importance of the "
              "inputs",
          .paper = "github.com/ggml-org/llama.cpp/pull/4861",
          .weights = WeightKinds::kIntegersAndBlocks,
          .needs =
              [](const QuantizeConfig&) {
                return StatsNeeds{.channel_moments = true};
              },
          .quantize = quantize_imatrix,
          .takes_importance = true};
}

}  // namespace llmpress
