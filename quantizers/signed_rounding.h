// A weight whose rounding is learned: every weight has an offset v within its
// grid step, and every group two factors alpha, beta that shrink its range.
//
//   W_q = s (clamp(round(W / s + v) + z, 0, N) - z),   N = 2^bits - 1
//   s = (beta hi - alpha lo) / N,   z = round(-alpha lo / s)
//
// with lo <= 0 <= hi the range of the group. Symmetric weights have the full
// signed range, with the end that is farther from 0 on the code -M:
//
//   s = -+max(beta hi, -alpha lo) / M,   z = M = 2^(bits-1)
//
// where s < 0 if that end is positive. All of them learn by the sign of their
// gradient, v in [-1, 1], alpha and beta in [1/16, 1] (SignRound,
// arXiv:2309.05516, Eqs. 2 to 4 and Algorithm 1). Rounding, that of the scale
// to the type it is stored in too, is passed straight through
// (arXiv:1308.3432). With D = dL/dW_q, q the code, m = 1 where the code is
// strictly within the grid and 0 at its ends:
//
//   dL/dv = D s m
//   dL/ds = sum_group D (q - z - m W / s - (1 - m) alpha lo / s)
//   dL/d(alpha lo) = sum_group D (1 - m) - dL/ds / N,   dL/d(beta hi) = dL/ds / N
//
// Cost: one pass over the weight to round, one for a step.
#pragma once

#include <span>
#include <utility>

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "quantizers/quantize_config.h"

namespace llmpress {

// What a weight's rounding learns, or the gradient of it.
struct RoundingParameters {
  MatrixF offset{};       // v [out, in]
  MatrixF low{}, high{};  // alpha, beta [out, groups]
};

// What one step changes at most.
struct RoundingRates {
  float offset = 0;
  float range = 0;  // 0: the ranges stay
};

// Of a step: they fall linearly from config's to 0.
RoundingRates rates_at(const SignedRoundingConfig& config,
                       std::size_t iteration);

class SignedRounding {
 public:
  // Starts as rounding to nearest, from the range that `scheme` asks for. `W`
  // [out, in] must outlive it. Throws Error(kInvalidArgument) for a scheme that
  // cannot be used; kInvalidInput as check_weights().
  SignedRounding(ConstMatrixView W, const WeightScheme& scheme,
                 ThreadPool& pool);

  // From now on from what another method made of the weight: its ranges, and
  // offsets that bring every weight just within the step of its code. `weight`
  // has the scheme's groups in their order.
  void start_from(const GroupedIntWeight& weight, ThreadPool& pool);

  // W_q [out, in].
  void round_into(MatrixView<float> W_q, ThreadPool& pool) const;
  // One step of signed descent. D [out, in] becomes dL/dv.
  void step(MatrixView<float> D, const RoundingRates& rates, ThreadPool& pool);
  // What step() takes the signs of.
  RoundingParameters gradient(ConstMatrixView D) const;

  const RoundingParameters& parameters() const { return learned_; }
  void set_parameters(RoundingParameters parameters) {
    learned_ = std::move(parameters);
  }
  // W_q as it is written: decodes to the bits of round_into(). Its scales are
  // f32 where f16 would not hold them.
  GroupedIntWeight pack(ThreadPool& pool) const;

 private:
  struct Grid {
    float scale = 1, zero = 0;
    bool at_high = false;  // symmetric: hi decides the scale
  };
  struct GroupGradient {
    float low = 0, high = 0;
  };
  Grid grid(std::size_t o, std::size_t g) const;
  std::span<const float> group(std::size_t o, std::size_t g) const;
  // Turns D of the group into dL/dv.
  GroupGradient differentiate(std::size_t o, std::size_t g,
                              std::span<float> D) const;
  void start_ranges(ThreadPool& pool);
  bool starts_within_f16() const;

  ConstMatrixView W_;
  WeightScheme scheme_;
  std::size_t group_size_ = 0, groups_ = 0;
  MatrixF lo_{}, hi_{};  // [out, groups]
  RoundingParameters learned_{};
};

}  // namespace llmpress
