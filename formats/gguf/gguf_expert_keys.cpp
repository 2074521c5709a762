#include "formats/gguf/gguf_expert_keys.h"

#include <string>
#include <vector>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

// llama.cpp keeps fewer groups than there are, or has none.
void write_groups(const GgufWriting& out, const GgufGroups& usual) {
  const std::size_t groups = out.config.size("n_group").value_or(usual.groups);
  const std::size_t kept = out.config.size("topk_group").value_or(usual.kept);
  if (groups <= 1 || kept >= groups) return;
  const std::size_t experts = out.config.size(usual.experts).value_or(0);
  if (experts != 0 && groups >= experts) {
    out.config.unsupported("n_group", "fewer than there are experts");
  }
  out.size("expert_group_count", groups);
  out.size("expert_group_used_count", kept);
}

}  // namespace

void read_gguf_sigmoid(const GgufReading& in, JsonFields& out) {
  out["norm_topk_prob"] =
      json_flag(in.flag("expert_weights_norm").value_or(false));
  const std::size_t groups = in.size("expert_group_count").value_or(1);
  out["n_group"] = formatted("{}", groups);
  out["topk_group"] =
      formatted("{}", in.size("expert_group_used_count").value_or(groups));
}

void write_gguf_sigmoid(const GgufWriting& out, const GgufGroups& usual) {
  write_groups(out, usual);
  out.size("expert_gating_func", kGgufSigmoid);
  out.flag("expert_weights_norm",
           out.config.flag("norm_topk_prob").value_or(usual.normalizes));
}

void check_gguf_mixed_layers(const GgufWriting& out, std::size_t dense) {
  const std::vector<std::string> types = out.config.texts("mlp_layer_types");
  for (std::size_t l = 0; l < types.size(); ++l) {
    if ((types[l] == "sparse") == (l >= dense)) continue;
    out.config.unsupported(
        "mlp_layer_types",
        formatted("dense in the first {} layers alone", dense));
  }
}

}  // namespace llmpress
