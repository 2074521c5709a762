// A weight that learns how it is rounded, together with the other weights of its
// block: what a block-wise method puts in a Linear's place while the block runs
// forward and in reverse (compress/pipeline/run/block_rounding.h).
#pragma once

#include <cstddef>
#include <memory>
#include <optional>

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "compress/core/setting.h"
#include "quantizers/quantize_config.h"

namespace llmpress {

struct QuantizeRequest;  // method.h
struct QuantizeResult;   // method.h

// How a block learns.
struct BlockSchedule {
  std::size_t iterations = 0;
  std::size_t batch_size = 0;  // calibration sequences of a step
  std::size_t seed = 0;        // of their order
  // Of scales between norms and the Linears behind them; 0: they stay.
  double transformation_rate = 0;

  bool operator==(const BlockSchedule&) const = default;
};

struct BlockWeightRequest {
  // [out, in]; must outlive the weight. Where scales move between norm and
  // Linear it changes between two steps.
  ConstMatrixView W{};
  const QuantizeConfig* config = nullptr;
  const GroupedIntWeight* start = nullptr;  // null: W rounded to nearest
  ThreadPool* pool = nullptr;
};

class BlockWeight {
 public:
  virtual ~BlockWeight() = default;
  // W_q [out, in], as it is now.
  virtual void round_into(MatrixView<float> W_q, ThreadPool& pool) const = 0;
  // A step down D = dL/dW_q [out, in], which becomes dL/dW at the place where
  // the step began. Iterations count from 0.
  virtual void step(MatrixView<float> D, std::size_t iteration,
                    ThreadPool& pool) = 0;
  // Decodes to the bits of round_into(). Scales are f32 where f16 would not
  // hold them.
  virtual GroupedIntWeight pack(ThreadPool& pool) const = 0;
};

BlockSchedule schedule_of(const BlockTrainingConfig& config);
// What is left of a learning rate that falls linearly to 0.
double falling_share(std::size_t iteration, std::size_t iterations);

inline constexpr Named<BlockStart> kBlockStartWords[] = {
    {"rtn", BlockStart::kNearest}, {"gptq", BlockStart::kSolved}};
// What makes the weights that learning starts from; none: rounding to nearest.
std::optional<QuantizeConfig> solved_start(const QuantizeConfig& config,
                                           BlockStart start);
// What contradicts learning in blocks.
std::optional<SettingFault> check_block_wise(const QuantizeConfig& config);

// The weight of a Linear by itself, an output head, which learns to keep its
// own output:
//
//   L = tr((W_q - W) S (W_q - W)^T),   dL/dW_q = 2 (W_q - W) S,   S = E[x x^T]
//
// The best iterate is kept, so the result is never worse than where learning
// started. Cost: 2 out in^2 a step. Throws Error(kInvalidArgument) naming the
// method without S.
QuantizeResult learn_alone(const QuantizeRequest& request);

// The result of a request whose weight learned in its block.
QuantizeResult finish_rounding(const QuantizeRequest& request,
                               GroupedIntWeight weight);

}  // namespace llmpress
