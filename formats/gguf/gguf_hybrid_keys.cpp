#include "formats/gguf/gguf_hybrid_keys.h"

#include <algorithm>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_key_parts.h"

namespace llmpress {

GgufLayerHeads read_gguf_layer_heads(const GgufReading& in) {
  constexpr std::string_view kKey = "attention.head_count_kv";
  const std::size_t layers = in.require_size("block_count");
  const auto counts = in.file.metadata().numbers(in.key(kKey));
  if (counts.size() != layers) {
    unsupported_gguf_key(in, kKey, "an entry for each layer");
  }
  GgufLayerHeads found;
  double heads = 0;
  for (const double count : counts) {
    found.attends.push_back(count != 0);
    if (count == 0) continue;
    if (heads != 0 && count != heads) {
      unsupported_gguf_key(in, kKey, "one number and 0");
    }
    heads = count;
  }
  if (!(heads >= 1 && heads <= 1e6)) {
    unsupported_gguf_key(in, kKey, "a layer with attention");
  }
  found.kv_heads = static_cast<std::size_t>(heads);
  return found;
}

void write_gguf_layer_heads(const GgufWriting& out,
                            const GgufLayerHeads& heads) {
  std::vector<std::uint32_t> counts;
  for (const bool attends : heads.attends) {
    counts.push_back(attends ? static_cast<std::uint32_t>(heads.kv_heads) : 0);
  }
  out.metadata.set_array(
      std::string(out.architecture) + ".attention.head_count_kv", counts);
}

void read_gguf_mixer(const GgufReading& in, JsonFields& out) {
  const std::size_t inner = in.require_size("ssm.inner_size");
  const std::size_t heads = in.require_size("ssm.time_step_rank");
  if (heads == 0 || inner == 0 || inner % heads != 0) {
    unsupported_gguf_key(in, "ssm.inner_size", "whole heads");
  }
  out["mamba_n_heads"] = formatted("{}", heads);
  out["mamba_d_head"] = formatted("{}", inner / heads);
  out["mamba_n_groups"] = formatted("{}", in.require_size("ssm.group_count"));
  out["mamba_d_state"] = formatted("{}", in.require_size("ssm.state_size"));
  out["mamba_d_conv"] = formatted("{}", in.require_size("ssm.conv_kernel"));
  out["mamba_proj_bias"] = "false";
  out["mamba_conv_bias"] = "true";
}

void refuse_gguf_time_step_limit(const GgufWriting& out) {
  const auto limits = out.config.numbers("time_step_limit");
  if (limits.size() == 2 && (limits[0] > 0 || limits[1] < 1e30)) {
    out.config.unsupported("time_step_limit", "none: llama.cpp has none");
  }
}

void write_gguf_mixer(const GgufWriting& out, std::size_t inner) {
  const ConfigReader& config = out.config;
  refuse_gguf_flag(out, "mamba_proj_bias", false);
  refuse_gguf_flag(out, "mamba_conv_bias", true);
  refuse_gguf_time_step_limit(out);
  const auto size = [&](const char* key, std::size_t usual) {
    return config.size(key).value_or(usual);
  };
  out.size("ssm.inner_size", inner);
  out.size("ssm.time_step_rank", size("mamba_n_heads", 128));
  out.size("ssm.group_count", size("mamba_n_groups", 1));
  out.size("ssm.state_size", size("mamba_d_state", 256));
  out.size("ssm.conv_kernel", size("mamba_d_conv", 4));
}

std::pair<std::size_t, std::size_t> gguf_period_of(
    const std::vector<bool>& chosen, const GgufReading& in,
    std::string_view key) {
  const std::size_t layers = chosen.size();
  std::vector<std::size_t> which;
  for (std::size_t l = 0; l < layers; ++l) {
    if (chosen[l]) which.push_back(l);
  }
  if (which.empty()) return {layers + 1, layers};
  const std::size_t offset = which[0];
  const std::size_t period =
      which.size() > 1 ? which[1] - offset : std::max(layers, offset + 1);
  for (std::size_t l = 0; l < layers; ++l) {
    if (offset >= period || chosen[l] != (l % period == offset)) {
      unsupported_gguf_key(in, key, "layers at a fixed distance");
    }
  }
  return {period, offset};
}

}  // namespace llmpress
