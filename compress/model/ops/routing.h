// A mixture of experts: which tokens go where, and back.
#pragma once

#include <cstddef>
#include <optional>

#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

// How logits become scores.
enum class RouteScore {
  kSoftmax,      // over all experts
  kTopKSoftmax,  // over the chosen ones
  kSigmoid,
  kTopKSigmoid,  // chosen by their logits
  kSparseMixer,  // Phi-3.5-MoE (arXiv:2409.12136) at inference
};
// How a group of experts is ranked where groups are chosen first.
enum class GroupRank { kMax, kTopTwoSum };

// in: logits [tokens, experts]; out: routes (no rows, a Routing of the `top`
// experts of every token; of equal scores the lower expert):
//   s_e = score(logits)_e;  chosen: the `top` largest s_e + bias_e
//   weight_e = scale s_e (/ (sum over the chosen + normalize_epsilon))
struct RouteOp {
  std::size_t experts = 0, top = 1;
  RouteScore score = RouteScore::kSoftmax;
  bool normalize = false;             // chosen weights sum to 1
  float normalize_epsilon = 0;        // added to that sum
  float scale = 1;                    // of the weights, last
  std::optional<std::size_t> bias{};  // parameter [experts], for choosing only
  // Only experts of the `kept_groups` best of `groups` groups are chosen
  // (DeepSeek-V2, arXiv:2405.04434, section 2.2.2).
  std::size_t groups = 1, kept_groups = 1;
  GroupRank group_rank = GroupRank::kMax;
  // kSparseMixer: rivals are those within 2 jitter of the best logit, as a part
  // of the larger magnitude.
  float jitter = 0;

  bool operator==(const RouteOp&) const = default;
};

// in: x [tokens, width], routes; out: rows of x grouped by expert, routed.
struct DispatchOp {
  bool weigh_input = false;  // Llama 4: the weight multiplies what goes in

  bool operator==(const DispatchOp&) const = default;
};

// in: y (routed) [rows, width]; out: [tokens, width], the weighted sum over the
// experts of each token (a plain sum after a DispatchOp that weighed).
struct CombineOp {
  bool weighed = false;

  bool operator==(const CombineOp&) const = default;
};

void run(const RouteOp& op, const OpContext& context,
         const OpArguments& arguments);
void run(const DispatchOp& op, const OpContext& context,
         const OpArguments& arguments);
void run(const CombineOp& op, const OpContext& context,
         const OpArguments& arguments);

void backward(const RouteOp& op, const OpContext& context,
              const OpGradients& gradients);
void backward(const DispatchOp& op, const OpContext& context,
              const OpGradients& gradients);
void backward(const CombineOp& op, const OpContext& context,
              const OpGradients& gradients);

}  // namespace llmpress
