// AWQ: Activation-aware Weight Quantization, Lin et al. 2023, arXiv:2306.00978.
// Input channels that matter are scaled up before rounding, which shrinks their
// relative error, and down again in front (section 3.2):
//
//   s* = argmin_s | f(x; Q(W diag(s)) diag(1/s)) - f(x; W) |
//   s  = x_mean^r                     r = 0, 1/20 .. 19/20           (Eq. 5)
//   s  = x_mean^r / w_mean^(1-r)      with the weight term
//
// x_mean is the mean |x| of a channel, w_mean the mean over all consumers' rows
// of |w| over the largest |w| of its group. s is normalized by sqrt(max min).
// The identity is always a candidate, so the result is never worse than none on
// the objective.
//
// The clip search (section 3.3 of the code that came with the paper) shrinks
// the largest |w| of each group by 1 - i/20, i = 0..9, to the smallest squared
// error of the group's share of the output.
//
// All candidates are screened on few tokens, the five best of them tried on more:
// their order on a quarter of the tokens is nearly that on all. x_mean is taken of
// 4096 tokens, unless GPTQ rounds: its second moment has seen all.
//
// Cost: the search rounds the consumers 2 * ratios + 5 times and evaluates an
// objective as often; clipping is out * in * group * clip_steps multiply-adds.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "quantizers/method.h"
#include "quantizers/scaled_consumers.h"

namespace llmpress {

struct AwqScales {
  std::vector<float> s{};  // [in]; all 1 if nothing beat the identity
  double ratio = 0;
  bool weight_term = false;
  double error = 0;           // of s, by the objective
  double identity_error = 0;  // of rounding alone
};

// `x_mean` [in]; `config` gives the grid (weights, input) and the search (awq).
// `evaluate` is the error of the inspected module's output, `screen` the same on
// fewer tokens (empty: every candidate is evaluated). `ranks`: who has the same
// arguments and tries candidates in turn; all get the same result. Throws
// Error(kInvalidArgument) if shapes disagree.
AwqScales search_awq_scales(const Consumers& consumers,
                            std::span<const float> x_mean,
                            const QuantizeConfig& config,
                            const OutputObjective& evaluate, ThreadPool& pool,
                            const OutputObjective& screen = {},
                            const Ranks& ranks = {});

// The search rounds to nearest; where GPTQ rounds, part of what scales gain is
// gained twice. Of s^p, p = 0, 1/2, 1, the one that leaves the least error
// after GPTQ has solved the scaled consumers, summed over them, so that scaling
// never makes GPTQ worse by its own objective. Needs stats.second_moment; the
// uncompressed model's inputs (GPTAQ) are left out of the trial. Costs three
// solves of each consumer.
std::vector<float> fit_scales_to_gptq(const Consumers& consumers,
                                      const InputStats& stats,
                                      const QuantizeConfig& config,
                                      std::span<const float> s,
                                      ThreadPool& pool);

struct AwqClip {
  MatrixF W{};  // [out, in] clipped
  std::size_t clipped_groups = 0, groups = 0;
};

// X [tokens, in] sample rows of the input that W sees (after scaling).
AwqClip search_awq_clip(ConstMatrixView W, ConstMatrixView X,
                        const WeightScheme& scheme, const AwqConfig& awq,
                        ThreadPool& pool);

// Whether clipping is left out for this Linear: it hurts where the products of
// two outputs matter, queries and keys.
bool awq_skips_clip(std::string_view linear_name);

// What happens to one Linear after its scales were folded in: clipping, if
// asked for and the solver is "rtn" (GPTQ's target must stay the weight
// itself), then config.solver.
QuantizeResult quantize_awq(const QuantizeRequest& request);

QuantizerMethod awq_method();

}  // namespace llmpress
