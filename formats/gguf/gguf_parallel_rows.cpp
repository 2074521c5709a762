// Rows of the table of architectures (gguf_architecture.h): Falcon-H1, with
// attention and a mixer side by side in every layer.
#include <array>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_hybrid_keys.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_multipliers.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

constexpr Names kBlock[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.final_layernorm"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.ffn_norm", "model.layers.{}.pre_ff_layernorm.weight",
     Change::kNone, true},
    {"blk.{}.ffn_gate", "model.layers.{}.feed_forward.gate_proj"},
    {"blk.{}.ffn_up", "model.layers.{}.feed_forward.up_proj"},
    {"blk.{}.ffn_down", "model.layers.{}.feed_forward.down_proj"}};
constexpr auto kFalconH1 = joined(kBlock, kAttention, kMixer);
// With factors; the first row that a name matches counts.
constexpr Names kMultiplied[] = {
    {"token_embd", "model.embed_tokens", Change::kEmbeddingTimes},
    {"output_norm", "model.final_layernorm", Change::kTimes},
    {"blk.{}.ffn_norm", "model.layers.{}.pre_ff_layernorm.weight",
     Change::kGateTimes, true},
    {"blk.{}.ssm_conv1d", "model.layers.{}.mamba.conv1d", Change::kTapsTimes}};
constexpr auto kMultipliedH1 = joined(kMultiplied, kBlock, kAttention, kMixer);

constexpr GgufKey kKeys[] = {
    {"context_length", "max_position_embeddings", false, 8192},
    {"embedding_length", "hidden_size", false, 4096},
    {"block_count", "num_hidden_layers", false, 32},
    {"feed_forward_length", "intermediate_size", false, 14336},
    {"attention.head_count", "num_attention_heads", false, 32}};

constexpr std::string_view kEpsilon = "attention.layer_norm_rms_epsilon";
constexpr std::string_view kOwnEpsilon = "llmpress.rms_norm_eps";

// That of the file's scales which are there are what the factors make.
void check_scales(const GgufReading& in,
                  const std::map<std::string, float>& wanted) {
  std::size_t found = 0;
  for (const GgufTensor& tensor : in.file.tensors()) {
    if (!tensor.name.ends_with(".scale")) continue;
    const auto row = wanted.find(tensor.name);
    const bool same = row != wanted.end() &&
                      in.vector(tensor.name) == std::vector<float>{row->second};
    if (!same) {
      fail(ErrorCode::kUnsupported,
           "{}: tensor '{}' is not what the model's factors make",
           in.file.metadata().origin(), tensor.name);
    }
    ++found;
  }
  if (found == wanted.size()) return;
  fail(ErrorCode::kInvalidInput, "{}: {} scales of Linears, wanted {}",
       in.file.metadata().origin(), found, wanted.size());
}

void read_falcon_h1(const GgufReading& in, JsonFields& out) {
  const GgufMultipliers m = read_multipliers(in.file.metadata());
  const std::size_t layers = in.require_size("block_count");
  // Not more than there are tensors, whatever the metadata says.
  check_scales(
      in, multiplier_scales(m, std::min(layers, in.file.tensors().size())));
  write_multipliers(m, out);
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  read_gguf_mixer(in, out);
  out["mamba_d_ssm"] = formatted("{}", in.require_size("ssm.inner_size"));
  out["mamba_rms_norm"] = json_flag(in.has("blk.0.ssm_norm.weight"));
  out["mamba_norm_before_gate"] = "false";
  const auto own = in.file.metadata().number(kOwnEpsilon);
  const auto epsilon = own ? own : in.number(kEpsilon);
  if (epsilon) out["rms_norm_eps"] = json_number(*epsilon);
}

void write_factors(const GgufWriting& out, double epsilon, bool normed) {
  const ConfigReader& config = out.config;
  const GgufMultipliers m = read_multipliers(
      config, config.flag("tie_word_embeddings").value_or(false));
  const auto divisor = static_cast<double>(stream_divisor(m));
  if (normed && divisor != 1) {
    config.unsupported("mlp_multipliers",
                       "one factor twice beside mamba_rms_norm: llama.cpp has "
                       "one epsilon");
  }
  out.number(kEpsilon, epsilon / (divisor * divisor));
  write_multipliers(m, out.metadata);
  out.metadata.set(std::string(kOwnEpsilon), static_cast<float>(epsilon));
  const std::size_t layers = config.size("num_hidden_layers").value_or(32);
  for (const auto& [name, factor] : multiplier_scales(m, layers)) {
    out.extra_tensors.emplace_back(name, std::vector<float>{factor});
  }
}

bool is_multiplied(const GgufReading& in) {
  return has_multipliers(in.file.metadata());
}

bool asks_for_factors(const ConfigReader& config) {
  return has_multipliers(config);
}

void write_falcon_h1(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "hidden_act", kSilu);
  for (const char* key : {"attention_bias", "mlp_bias", "projectors_bias"}) {
    refuse_gguf_flag(out, key, false);
  }
  const bool normed = config.flag("mamba_rms_norm").value_or(false);
  if (normed && config.flag("mamba_norm_before_gate").value_or(true)) {
    config.unsupported("mamba_norm_before_gate",
                       "false: llama.cpp has the gate first");
  }
  const double epsilon = config.number("rms_norm_eps").value_or(1e-5);
  if (has_multipliers(config)) {
    write_factors(out, epsilon, normed);
  } else {
    out.number(kEpsilon, epsilon);
  }
  refuse_gguf_rope_scaling(out);
  write_gguf_whole_rope(out);
  const std::size_t expanded =
      config.size("mamba_expand").value_or(2) * gguf_heads(out).hidden;
  const std::size_t inner = config.is_null("mamba_d_ssm")
                                ? expanded
                                : config.size("mamba_d_ssm").value_or(1024);
  write_gguf_mixer(out, inner);
}

constexpr GgufArchitecture falcon_h1(std::span<const GgufTensorName> tensors) {
  return {.name = "falcon-h1",
          .model_type = "falcon_h1",
          .tensors = tensors,
          .keys = kKeys,
          .read = read_falcon_h1,
          .write = write_falcon_h1,
          .scales = true,
          .hf_class = "FalconH1ForCausalLM"};
}

constexpr GgufArchitecture multiplied_falcon_h1() {
  GgufArchitecture row = falcon_h1(kMultipliedH1);
  row.fits = is_multiplied;
  row.written = asks_for_factors;
  return row;
}

constexpr std::array kArchitectures{multiplied_falcon_h1(),
                                    falcon_h1(kFalconH1)};

}  // namespace

std::span<const GgufArchitecture> parallel_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress
