// SmoothQuant, Xiao et al. 2022, arXiv:2211.10438: moves the difficulty of
// rounding activations into the weights, channel by channel (Eq. 4)
//
//   s_i = max|x_i|^alpha / max|w_i|^(1 - alpha)
//
// where max|w_i| is over the rows of all consumers of x. The consumers become
// W diag(s), the norm in front diag(1/s). Channels that are 0 on either side
// keep s = 1. With search_alpha the alpha of 0, 0.05 .. 1 (and none at all) of
// the smallest output error is taken, weights and activations rounded as
// configured. Cost: one pass; the search 22 roundings of the consumers and
// products with the sample rows.
#pragma once

#include <span>
#include <vector>

#include "quantizers/method.h"
#include "quantizers/scaled_consumers.h"

namespace llmpress {

struct SmoothScales {
  std::vector<float> s{};  // [in]
  double alpha = 0;
  double error = -1, identity_error = -1;  // of the search, else -1
};

// max over rows of all consumers of |w|. [in]
std::vector<float> weight_abs_max(std::span<const ConstMatrixView> consumers);

std::vector<float> smooth_scales(std::span<const float> x_abs_max,
                                 std::span<const float> w_abs_max,
                                 double alpha);

// With config.smoothquant.search_alpha needs stats.sample_rows, else only
// stats.abs_max. Throws Error(kInvalidArgument) if they are not there.
SmoothScales find_smooth_scales(const Consumers& consumers,
                                const InputStats& stats,
                                const QuantizeConfig& config, ThreadPool& pool);

// Its rounding is the solver's, after the scales were folded in.
QuantizerMethod smoothquant_method();

}  // namespace llmpress
