// Everything a recipe's `quantize` stage can say, with its defaults.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/damping.h"
#include "compress/core/dtype.h"
#include "compress/core/packed_weight.h"

namespace llmpress {

// Of stages that name none.
inline constexpr std::string_view kDefaultMethod = "rtn";
inline constexpr std::string_view kDefaultScaling = "smoothquant";

enum class WeightType {
  kInt,
  kFp8E4M3,
  kFp8E5M2,
  kNf4,
  kFp4,
  kMxfp4,
  kNvfp4,
  kFloat,
  kGgml  // blocks of GGUF
};
enum class RangeSearch { kMinMax, kMse };

// The grid that weights are rounded to.
struct WeightScheme {
  WeightType type = WeightType::kInt;
  int bits = 4;  // kInt: 2..8
  // Inputs that share a scale; -1: one group a row; 0: the whole tensor.
  std::int64_t group_size = 128;
  bool symmetric = false;
  RangeSearch range = RangeSearch::kMinMax;
  double mse_norm = 2.4;  // exponent of the searched error (GPTQ's mse)
  DType scale_dtype = DType::kF16;   // in which scales are stored
  DType float_dtype = DType::kBF16;  // kFloat: f32, f16 or bf16
  std::size_t block_rows = 0;        // of fp8 block scales; 0: by group_size
  std::size_t block_cols = 0;
  bool double_quant = false;             // nf4, fp4
  GgmlType ggml_type = GgmlType::kQ4_K;  // kGgml

  bool operator==(const WeightScheme&) const = default;
};

// What to do with weights of inputs that were 0 in all of calibration: kZero,
// as the authors of GPTQ do, or kRound to nearest, in case the input wakes up.
enum class DeadColumns { kZero, kRound };

struct GptqConfig {
  bool act_order = false;
  // With act_order: grids of all groups fixed from the original weights before
  // the solve, which keeps g_idx trivial. Without it groups are solved in their
  // own order and the grid always fits the updated weights.
  bool static_groups = true;
  // Permute within groups and order groups by their largest diagonal:
  // act-order's accuracy without g_idx, with grids fitted to updated weights.
  bool group_aware_order = false;
  double damping_fraction = 0.01;  // of mean(diag H)
  DampingPolicy damping_policy = DampingPolicy::kRaise;
  double damping_increment = 0.01;  // kRaise: added until damping_bound
  double damping_bound = 1.0;
  DeadColumns dead_columns = DeadColumns::kZero;
  std::size_t block_size = 128;  // columns of a lazy batch
  // Fit a dynamic group's grid to weights without the updates of the current
  // lazy batch, as the authors' code does when group_size < block_size.
  bool stale_grid = false;
  bool asymmetric_calibration = false;  // GPTAQ, arXiv:2504.02692
  double gptaq_alpha = 0.25;

  bool operator==(const GptqConfig&) const = default;
};

struct AwqConfig {
  std::size_t ratios = 20;
  bool weight_term = true;  // also try scales with the weight magnitude term
  bool clip = true;
  std::size_t clip_steps = 10;
  double clip_max_shrink = 0.5;

  bool operator==(const AwqConfig&) const = default;
};

struct SmoothQuantConfig {
  double alpha = 0.5;
  bool search_alpha = false;  // per layer, over a grid, by output error

  bool operator==(const SmoothQuantConfig&) const = default;
};

struct HqqConfig {
  double p = 0.7, beta = 10.0;
  std::size_t iterations = 20;

  bool operator==(const HqqConfig&) const = default;
};

// What the learning of a block starts from.
enum class BlockStart {
  kNearest,  // rounding to nearest
  kSolved,   // what GPTQ makes of it
};

struct SignedRoundingConfig {
  std::size_t iterations = 200;
  double learning_rate = 0;    // of the first step; 0: 1 / iterations
  std::size_t batch_size = 8;  // calibration sequences of a step
  std::size_t seed = 42;       // of their order
  BlockStart start = BlockStart::kNearest;
  bool learn_clipping = true;  // alpha and beta too

  bool operator==(const SignedRoundingConfig&) const = default;
};

// Of methods that learn a block by AdamW.
struct BlockTrainingConfig {
  std::size_t iterations = 200;
  std::size_t batch_size = 8;  // calibration sequences of a step
  std::size_t seed = 42;       // of their order
  BlockStart start = BlockStart::kNearest;

  bool operator==(const BlockTrainingConfig&) const = default;
};

// Learning rates of the first step, falling to 0.
struct EfficientQatConfig {
  BlockTrainingConfig training{};
  double learning_rate = 0.005;        // of weights, in mean grid steps
  double scale_learning_rate = 0.002;  // in mean scales

  bool operator==(const EfficientQatConfig&) const = default;
};

struct OmniQuantConfig {
  BlockTrainingConfig training{};
  double learning_rate = 0.02;         // of the logits of the ranges
  double transformation_rate = 0.005;  // of the logarithms of the scales

  bool operator==(const OmniQuantConfig&) const = default;
};

// From here on an input is an outlier (LLM.int8(), arXiv:2208.07339).
inline constexpr double kOutlierThreshold = 6.0;

struct LlmInt8Config {
  double threshold = kOutlierThreshold;
  // kBatch: columns found at run time in each call, as bitsandbytes does;
  // kCalibrated: columns found from calibration, their weights kept in f16.
  enum class Outliers { kBatch, kCalibrated } outliers = Outliers::kCalibrated;

  bool operator==(const LlmInt8Config&) const = default;
};

// One `quantize` stage.
struct QuantizeConfig {
  std::string method{kDefaultMethod};  // a row of quantizer_methods()
  WeightScheme weights{};
  ActivationQuant input{};  // rounding of activations
  GptqConfig gptq{};
  AwqConfig awq{};
  SmoothQuantConfig smoothquant{};
  HqqConfig hqq{};
  LlmInt8Config llm_int8{};
  SignedRoundingConfig signed_rounding{};
  EfficientQatConfig efficientqat{};
  OmniQuantConfig omniquant{};
  // What rounds where the method does not: a row that `solves`.
  std::string solver{kDefaultMethod};

  bool operator==(const QuantizeConfig&) const = default;
};

}  // namespace llmpress
