#include "compress/model/families/expert_blocks.h"

#include <utility>

#include "compress/core/formatted.h"
#include "compress/model/families/config_keys.h"

namespace llmpress {
namespace {

// Bounds what a broken config.json can make of one block.
constexpr std::size_t kMaxExperts = 65536;

ValueId route_part(ProgramBuilder& program, ValueId logits,
                   const MixtureOfExperts& part) {
  RouteOp route = part.route;
  if (!part.correction_bias.empty()) {
    std::vector<std::size_t> shape{route.experts};
    if (part.correction_row) shape.insert(shape.begin(), 1);
    route.bias = program.parameter(part.correction_bias, std::move(shape));
  }
  return program.apply(route, {logits}, 0, Axis::kExperts);
}

// Of one half of gate_up, or of down.
LinearOptions stacked(const MixtureOfExperts& part, const std::string& tensor,
                      Axis axis) {
  LinearOptions options{.bias = part.bias, .axis = axis};
  options.storage = LinearStorage{.tensor = tensor,
                                  .transposed = part.stack_transposed,
                                  .bias_tensor = tensor + "_bias"};
  return options;
}

ValueId experts_part(ProgramBuilder& program, ValueId routed,
                     const MixtureOfExperts& part) {
  const std::size_t experts = part.route.experts;
  LinearOptions gate_options = stacked(part, part.gate_up_stack, Axis::kFfn);
  gate_options.storage->rows = 2 * part.ffn;
  gate_options.storage->row_step = part.stack_interleaved ? 2 : 1;
  LinearOptions up_options = gate_options;
  up_options.storage->first_row = part.stack_interleaved ? 1 : part.ffn;
  const ValueId gate =
      program.expert_linear(routed, part.gate, experts, part.ffn, gate_options);
  const ValueId up =
      program.expert_linear(routed, part.up, experts, part.ffn, up_options);
  const ValueId inner = part.clamped ? program.apply(*part.clamped, {gate, up})
                                     : program.gate(gate, up, part.activation);
  return program.expert_linear(inner, part.down, experts, part.hidden,
                               stacked(part, part.down_stack, Axis::kHidden));
}

}  // namespace

ValueId mixture_of_experts(ProgramBuilder& program, ValueId x,
                           const MixtureOfExperts& part) {
  LinearOptions decides{.axis = Axis::kExperts, .role = LinearRole::kRouter};
  LinearOptions router = decides;
  router.bias = part.bias;
  if (!part.router_tensor.empty()) {
    router.storage = LinearStorage{.tensor = part.router_tensor};
  }
  const ValueId logits =
      program.linear(x, part.router, part.route.experts, router);
  std::optional<ValueId> shared, open;
  if (!part.shared_gate.empty()) {
    decides.axis = Axis::kOther;
    open = program.linear(x, part.shared_gate, 1, decides);
  }
  if (part.shared) shared = gated_mlp(program, x, *part.shared);
  const ValueId routes = route_part(program, logits, part);
  const ValueId routed =
      program.apply(DispatchOp{.weigh_input = part.weigh_input}, {x, routes});
  const ValueId sum = program.apply(CombineOp{.weighed = part.weigh_input},
                                    {experts_part(program, routed, part)});
  if (!shared) return sum;
  if (open) {
    shared = program.multiply(*shared,
                              program.activation(*open, Activation::kSigmoid));
  }
  return program.add(sum, *shared);
}

RouteOp read_route(const ConfigReader& config,
                   std::initializer_list<std::string_view> keys,
                   std::size_t default_experts, std::size_t default_top,
                   Architecture& arch, std::string_view top_key) {
  std::optional<std::size_t> experts;
  std::string_view name = *keys.begin();
  arch.keys.experts.clear();
  for (const std::string_view key : keys) {
    if (!config.has(key)) continue;
    const std::size_t count = require_size(config, key);
    if (experts && *experts != count) {
      config.invalid(key, formatted("{}, which it is another name of", name));
    }
    experts = count;
    name = key;
    arch.keys.experts.emplace_back(key);
  }
  if (arch.keys.experts.empty()) arch.keys.experts.emplace_back(name);
  RouteOp route{.experts = experts.value_or(default_experts)};
  if (route.experts > kMaxExperts) config.invalid(name, "fewer experts");
  route.top = require_size(
      config, top_key,
      default_top == 0 ? std::nullopt : std::optional(default_top));
  if (route.top > route.experts) {
    config.invalid(top_key, formatted("at most the {} experts", route.experts));
  }
  return route;
}

std::vector<bool> read_mixed_layers(const ConfigReader& config,
                                    std::size_t layers) {
  const std::size_t step = require_size(config, "decoder_sparse_step", 1);
  std::vector<bool> mixed;
  for (std::size_t l = 0; l < layers; ++l) mixed.push_back((l + 1) % step == 0);
  for (const std::size_t l : config.sizes("mlp_only_layers")) {
    if (l < layers) mixed[l] = false;
  }
  return mixed;
}

std::vector<bool> read_mixed_types(const ConfigReader& config,
                                   std::size_t layers, std::size_t dense) {
  const std::vector<std::string> types = config.texts("mlp_layer_types");
  if (!types.empty() && types.size() != layers) {
    config.invalid("mlp_layer_types", formatted("a list of {}", layers));
  }
  std::vector<bool> mixed;
  for (std::size_t l = 0; l < layers; ++l) {
    if (!types.empty() && types[l] != "dense" && types[l] != "sparse") {
      config.unsupported("mlp_layer_types", "dense or sparse");
    }
    mixed.push_back(types.empty() ? l >= dense : types[l] == "sparse");
  }
  return mixed;
}

void read_groups(const ConfigReader& config, std::size_t default_groups,
                 std::size_t default_kept, GroupRank rank, RouteOp& route) {
  const auto size = [&](std::string_view key, std::size_t fallback) {
    return require_size(config, key,
                        fallback == 0 ? std::nullopt : std::optional(fallback));
  };
  route.groups = size("n_group", default_groups);
  route.kept_groups = size("topk_group", default_kept);
  route.group_rank = rank;
  if (route.experts % route.groups != 0) {
    config.invalid("n_group",
                   formatted("a divisor of the {} experts", route.experts));
  }
  const std::size_t of_group = route.experts / route.groups;
  if (rank == GroupRank::kTopTwoSum && of_group < 2) {
    config.invalid("n_group", "groups of two experts or more");
  }
  if (route.kept_groups > route.groups ||
      route.kept_groups * of_group < route.top) {
    config.invalid("topk_group",
                   "groups that hold num_experts_per_tok experts");
  }
}

RouteOp read_sigmoid_route(const ConfigReader& config, const RouteOp& defaults,
                           double default_scale, Architecture& arch,
                           std::initializer_list<std::string_view> keys) {
  RouteOp route =
      read_route(config, keys, defaults.experts, defaults.top, arch);
  read_groups(config, defaults.groups, defaults.kept_groups,
              GroupRank::kTopTwoSum, route);
  route.score = RouteScore::kSigmoid;
  route.normalize = config.flag("norm_topk_prob").value_or(true);
  route.normalize_epsilon = 1e-20f;
  route.scale = static_cast<float>(
      config.number("routed_scaling_factor").value_or(default_scale));
  return route;
}

}  // namespace llmpress
