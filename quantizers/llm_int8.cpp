#include "quantizers/llm_int8.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "quantizers/int_grid.h"
#include "quantizers/quantize_result.h"

namespace llmpress {
namespace {

constexpr float kTop = 127.0f;
constexpr float kFirstBeyondF16 = 65520.0f;  // rounds to infinity
constexpr std::size_t kRowsPerChunk = 16;

using Range = ActivationQuant::Range;
constexpr LlmInt8Row kRows[] = {
    {"absmax", 0, true, Range::kTensor, false},
    {"zeropoint", 0, false, Range::kTensor, false},
    {"absmax row-wise", 0, true, Range::kToken, false},
    {"absmax vector-wise", -1, true, Range::kToken, false},
    {"zeropoint vector-wise", -1, false, Range::kToken, false},
    {"absmax row-wise + decomposition", 0, true, Range::kToken, true},
    {"absmax vector-wise + decomposition", -1, true, Range::kToken, true},
    {"zeropoint vector-wise + decomposition", -1, false, Range::kToken, true},
};

struct Extent {
  float lo = 0, hi = 0;

  void add(float w) {
    lo = std::min(lo, w);
    hi = std::max(hi, w);
  }
};

struct Int8Grid {
  float scale = 1;
  float zero = 0;
};

Int8Grid grid_of(const Extent& extent, const WeightScheme& scheme) {
  const float largest = std::max(-extent.lo, extent.hi);
  if (largest == 0) return {};
  if (scheme.symmetric) {
    return {stored_scale(largest / kTop, scheme.scale_dtype), 0};
  }
  const float scale =
      stored_scale((extent.hi - extent.lo) / (2 * kTop), scheme.scale_dtype);
  return {scale,
          std::clamp(std::nearbyint(-kTop - extent.lo / scale), -kTop, kTop)};
}

std::vector<Int8Grid> fit_grids(ConstMatrixView W, const WeightScheme& scheme,
                                const std::vector<bool>& outlier) {
  Extent whole;
  std::vector<Int8Grid> grids;
  for (std::size_t o = 0; o < W.rows(); ++o) {
    Extent row;
    for (std::size_t i = 0; i < W.cols(); ++i) {
      if (!outlier[i]) row.add(W(o, i));
    }
    if (scheme.group_size != 0) grids.push_back(grid_of(row, scheme));
    whole.add(row.lo);
    whole.add(row.hi);
  }
  if (scheme.group_size == 0) grids.push_back(grid_of(whole, scheme));
  return grids;
}

std::vector<std::uint32_t> outliers_of(const QuantizeRequest& request) {
  const LlmInt8Config& config = request.config->llm_int8;
  std::vector<std::uint32_t> columns;
  if (config.outliers != LlmInt8Config::Outliers::kCalibrated ||
      !(config.threshold > 0)) {
    return columns;
  }
  if (request.stats == nullptr ||
      request.stats->abs_max.size() != request.W.cols()) {
    fail(ErrorCode::kInvalidArgument,
         "{}: llm_int8: calibrated outliers need calibration data",
         request.name);
  }
  for (std::size_t i = 0; i < request.W.cols(); ++i) {
    if (static_cast<double>(request.stats->abs_max[i]) >= config.threshold) {
      columns.push_back(static_cast<std::uint32_t>(i));
    }
  }
  return columns;
}

// Outliers that are looked for in every call.
float batch_threshold(const LlmInt8Config& config) {
  const bool batch = config.outliers == LlmInt8Config::Outliers::kBatch;
  return batch ? static_cast<float>(config.threshold) : 0.0f;
}

void check_request(const QuantizeRequest& request) {
  const WeightScheme& scheme = request.config->weights;
  check_int_scheme(scheme);
  check_weights(request.W, request.name);
  if (scheme.type == WeightType::kInt && scheme.bits == 8 &&
      scheme.group_size <= 0) {
    return;
  }
  fail(ErrorCode::kInvalidArgument,
       "{}: llm_int8: weights must be int, 8 bits, with group_size -1 (a scale "
       "a row) or 0 (one for the tensor)",
       request.name);
}

}  // namespace

Int8Weight quantize_int8(ConstMatrixView W, const WeightScheme& scheme,
                         std::span<const std::uint32_t> outlier_columns,
                         ThreadPool& pool) {
  std::vector<bool> outlier(W.cols());
  for (const std::uint32_t i : outlier_columns) outlier.at(i) = true;
  const std::vector<Int8Grid> grids = fit_grids(W, scheme, outlier);
  Int8Weight q{
      .out = W.rows(),
      .in = W.cols(),
      .scale_dtype = scheme.scale_dtype,
      .codes = std::vector<std::int8_t>(W.size()),
      .outlier_columns = {outlier_columns.begin(), outlier_columns.end()}};
  for (const Int8Grid& grid : grids) {
    q.scales.push_back(grid.scale);
    if (!scheme.symmetric) {
      q.zeros.push_back(static_cast<std::int32_t>(grid.zero));
    }
  }
  pool.for_ranges(
      q.out, kRowsPerChunk, [&](std::size_t begin, std::size_t end) {
        for (std::size_t o = begin; o < end; ++o) {
          const auto [scale, zero] = grids[grids.size() == 1 ? 0 : o];
          for (std::size_t i = 0; i < q.in; ++i) {
            if (outlier[i]) continue;
            q.codes[o * q.in + i] = static_cast<std::int8_t>(std::clamp(
                std::nearbyint(W(o, i) / scale) + zero, -kTop, kTop));
          }
        }
      });
  for (std::size_t o = 0; o < q.out; ++o) {
    for (const std::uint32_t i : outlier_columns) {
      if (std::abs(W(o, i)) >= kFirstBeyondF16) {
        fail(
            ErrorCode::kNumeric,
            "llm_int8: outlier weight [{}, {}] is {:g}, which does not fit f16",
            o, i, W(o, i));
      }
      q.outlier_values.push_back(f16_from_float(W(o, i)));
    }
  }
  return q;
}

QuantizeResult quantize_llm_int8(const QuantizeRequest& request) {
  check_request(request);
  QuantizeConfig config = *request.config;
  if (config.input.kind == ActivationQuant::Kind::kNone) {
    config.input = {.kind = ActivationQuant::Kind::kInt,
                    .symmetric = config.weights.symmetric};
  }
  config.input.outlier_threshold = batch_threshold(config.llm_int8);
  const std::vector<std::uint32_t> outliers = outliers_of(request);
  QuantizeRequest resolved = request;
  resolved.config = &config;
  QuantizeResult result = finish_result(
      resolved,
      quantize_int8(request.W, config.weights, outliers, *request.pool));
  if (!outliers.empty()) {
    result.notes.push_back(
        formatted("{} of {} inputs are outliers, kept in f16", outliers.size(),
                  request.W.cols()));
  }
  return result;
}

std::span<const LlmInt8Row> llm_int8_rows() { return kRows; }

const LlmInt8Row& find_llm_int8_row(std::string_view name) {
  const auto found = std::ranges::find(kRows, name, &LlmInt8Row::name);
  if (found != std::end(kRows)) return *found;
  std::string known;
  for (const LlmInt8Row& row : kRows) {
    known += formatted("{}{}'", known.empty() ? "'" : ", '", row.name);
  }
  fail(ErrorCode::kInvalidArgument, "llm_int8: row '{}' is not one of {}", name,
       known);
}

QuantizeConfig llm_int8_config(const LlmInt8Row& row, double threshold) {
  QuantizeConfig config{.method = "llm_int8"};
  config.weights = {.bits = 8,
                    .group_size = row.group_size,
                    .symmetric = row.symmetric,
                    .scale_dtype = DType::kF32};
  config.llm_int8.threshold = row.decomposition ? threshold : 0;
  config.input = {.kind = ActivationQuant::Kind::kInt,
                  .range = row.range,
                  .symmetric = row.symmetric,
                  .outlier_threshold = batch_threshold(config.llm_int8)};
  return config;
}

namespace {

StatsNeeds needs_of(const QuantizeConfig& config) {
  return {
      .channel_moments =
          (config.llm_int8.outliers == LlmInt8Config::Outliers::kCalibrated &&
           config.llm_int8.threshold > 0) ||
          config.input.range == ActivationQuant::Range::kStatic};
}

constexpr Named<LlmInt8Config::Outliers> kOutlierWords[] = {
    {"batch", LlmInt8Config::Outliers::kBatch},
    {"calibrated", LlmInt8Config::Outliers::kCalibrated}};

constexpr auto kLlmInt8 = &QuantizeConfig::llm_int8;
constexpr Setting<QuantizeConfig> kSettings[] = {
    {"threshold", "inputs with a larger value stay in floating point; 0: none",
     number_at<kLlmInt8, &LlmInt8Config::threshold>(0, 1e6)},
    {"outliers",
     "found once by calibration, their weights kept in 16 bits; or in each "
     "call, with weights decoded from 8 bits",
     word_at<kOutlierWords, kLlmInt8, &LlmInt8Config::outliers>()},
};

std::optional<SettingFault> check_settings(const QuantizeConfig& config) {
  if (config.weights.bits != 8 || config.weights.group_size > 0) {
    return SettingFault{"weights",
                        "must be 8 bits with a scale a row (group_size: -1) or "
                        "a tensor (0) for method 'llm_int8'"};
  }
  if (config.input.kind != ActivationQuant::Kind::kInt) {
    return SettingFault{"input", "must be 'type: int' for method 'llm_int8'"};
  }
  return std::nullopt;
}

void settle(QuantizeConfig& config) {
  if (config.llm_int8.outliers == LlmInt8Config::Outliers::kBatch) {
    config.input.outlier_threshold = batch_threshold(config.llm_int8);
  }
}

void mark(const QuantizeConfig& config, PackedWeight&, ActivationQuant& input) {
  input.kind = ActivationQuant::Kind::kInt;
  input.outlier_threshold = static_cast<float>(config.llm_int8.threshold);
}

// Outliers apart, one scale in all or dense inputs; without any of them the
// weight is one that others make too.
bool made(const PackedWeight& weight, const ActivationQuant& input,
          QuantizeConfig& config) {
  const auto* const int8 = std::get_if<Int8Weight>(&weight);
  if (int8 == nullptr) return false;
  const bool batch = input.outlier_threshold > 0;
  const bool outliers = batch || !int8->outlier_columns.empty();
  if (!outliers && config.weights.group_size != 0 &&
      input.kind == ActivationQuant::Kind::kInt) {
    return false;
  }
  config.llm_int8.outliers = batch ? LlmInt8Config::Outliers::kBatch
                                   : LlmInt8Config::Outliers::kCalibrated;
  if (batch) {
    config.llm_int8.threshold = static_cast<double>(input.outlier_threshold);
  } else if (!outliers) {
    config.llm_int8.threshold = 0;
  }
  return true;
}

std::optional<PackedWeight> round_like(const PackedWeight& stored,
                                       ConstMatrixView W,
                                       const WeightScheme& scheme,
                                       ThreadPool& pool) {
  const auto* const int8 = std::get_if<Int8Weight>(&stored);
  if (int8 == nullptr) return std::nullopt;
  return quantize_int8(W, scheme, int8->outlier_columns, pool);
}

}  // namespace

QuantizerMethod llm_int8_method() {
  return {.name = "llm_int8",
          .summary = "8-bit integers, outlier columns in floating point",
          .paper = "arXiv:2208.07339",
          .weights = WeightKinds::kIntegers,
          .needs = needs_of,
          .quantize = quantize_llm_int8,
          .settings = kSettings,
          .scheme = "W8A8",
          .check = check_settings,
          .settle = settle,
          .uncalibrated_by = "outliers: batch",
          .outlier_threshold =
              [](const QuantizeConfig& config) {
                return config.llm_int8.threshold;
              },
          .mark = mark,
          .made = made,
          .round_like = round_like};
}

}  // namespace llmpress
