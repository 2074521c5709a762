// Mixtures of experts: what their configurations have in common, and their part
// of a block program.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/model/families/common_blocks.h"
#include "formats/checkpoints/config_reader.h"

namespace llmpress {

// out = sum over the experts e of a token:
//         weight_e down_e(activation(gate_e(x)) * up_e(x))
//       (+ (sigmoid(shared_gate(x)) *) shared(x)).
// Experts are Linears of their own names, `%` for the expert, or lie in stacks:
// gate_up [experts, 2 ffn, hidden], gate above up, and down [experts, hidden,
// ffn]. A checkpoint that has the stacks is read from them.
struct MixtureOfExperts {
  RouteOp route{};
  std::size_t ffn = 0, hidden = 0;
  Activation activation = Activation::kSilu;
  std::optional<ClampedGateOp> clamped{};  // in the activation's place
  bool bias = false;                       // of router and experts
  bool weigh_input = false;                // see DispatchOp
  std::string correction_bias{};  // parameter of RouteOp::bias; empty: none
  bool correction_row = false;    // stored as [1, experts]
  std::optional<GatedMlp> shared{};
  std::string shared_gate{};  // empty: none

  std::string router = "mlp.gate";
  std::string gate = "mlp.experts.%.gate_proj", up = "mlp.experts.%.up_proj",
              down = "mlp.experts.%.down_proj";
  std::string router_tensor{};  // where experts are stacked; empty: the same
  std::string gate_up_stack = "mlp.experts.gate_up_proj",
              down_stack = "mlp.experts.down_proj";
  bool stack_transposed = false;   // [experts, in, out]
  bool stack_interleaved = false;  // rows gate 0, up 0, gate 1, up 1, ...
};
ValueId mixture_of_experts(ProgramBuilder& program, ValueId x,
                           const MixtureOfExperts& part);

// RouteOp::experts from the one of `keys` that is there, which
// ConfigKeys::experts is told, and ::top from `top_key` (0: required).
RouteOp read_route(const ConfigReader& config,
                   std::initializer_list<std::string_view> keys,
                   std::size_t default_experts, std::size_t default_top,
                   Architecture& arch,
                   std::string_view top_key = "num_experts_per_tok");

// Whether each layer has experts: every decoder_sparse_step-th but those of
// mlp_only_layers.
std::vector<bool> read_mixed_layers(const ConfigReader& config,
                                    std::size_t layers);

// Whether each layer has experts: as `mlp_layer_types` says, or from layer
// `dense` on.
std::vector<bool> read_mixed_types(const ConfigReader& config,
                                   std::size_t layers, std::size_t dense);

// n_group, topk_group and what follows from them.
void read_groups(const ConfigReader& config, std::size_t default_groups,
                 std::size_t default_kept, GroupRank rank, RouteOp& route);

// DeepSeek-V3's routing (arXiv:2412.19437, section 2.1.2), to which
// MixtureOfExperts::correction_bias belongs.
RouteOp read_sigmoid_route(const ConfigReader& config, const RouteOp& defaults,
                           double default_scale, Architecture& arch,
                           std::initializer_list<std::string_view> keys = {
                               "n_routed_experts", "num_local_experts"});

}  // namespace llmpress
