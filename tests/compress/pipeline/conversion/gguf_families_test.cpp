// Small random models of the families that GGUF knows: there and back they have
// the same tensors and compute the same. That llama.cpp computes the same from
// the file is shown by bench/interop.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "compress/core/rng.h"
#include "compress/model/architecture.h"
#include "compress/model/decoder.h"
#include "compress/pipeline/conversion/conversion.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/containers/gguf.h"
#include "formats/containers/safetensors.h"
#include "formats/files/atomic_file.h"
#include "formats/gguf/gguf_architecture.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t kVocabulary = 40;

// Every tensor that a model of this description has, one Linear after another.
class RandomTensors {
 public:
  explicit RandomTensors(const Architecture& arch) : arch_(arch) {
    add(arch.embedding + ".weight", {arch.vocabulary, arch.hidden}, 0, 1);
    if (!arch.position_embedding.empty()) {
      add(arch.position_embedding + ".weight",
          {arch.max_positions, arch.hidden}, 0, 1);
    }
    add_norm(arch.embedding_norm, arch.hidden, arch.embedding_norm_options);
    if (!arch.final_norm_options.weightless) {
      add_norm(arch.final_norm, arch.hidden, arch.final_norm_options);
    }
    if (!arch.tied_head) {
      add(arch.head + ".weight", {arch.vocabulary, arch.hidden}, 0, 0.2);
    }
    if (const LayerInputs& own = arch.layer_inputs; own.width != 0) {
      const std::size_t all = arch.layers * own.width;
      add(own.embedding + ".weight", {own.vocabulary, all}, 0, 0.3);
      add(own.projection + ".weight", {all, arch.hidden}, 0, 0.3);
      add(own.norm + ".weight", {own.width}, 1, 0.2);
    }
    for (std::size_t layer = 0; layer < arch.layers; ++layer) add_block(layer);
  }

  const std::vector<NamedTensor>& all() const { return tensors_; }

 private:
  void add(const std::string& name, std::vector<std::size_t> shape, double mean,
           double deviation) {
    if (!names_.insert(name).second) return;
    NamedTensor tensor{.name = name, .shape = std::move(shape)};
    std::size_t count = 1;
    for (const std::size_t d : tensor.shape) count *= d;
    std::vector<float> values(count);
    for (float& v : values) {
      v = static_cast<float>(mean + deviation * rng_.normal());
    }
    tensor.bytes.resize(count * sizeof(float));
    encode_floats(DType::kF32, values, tensor.bytes);
    tensors_.push_back(std::move(tensor));
  }

  void add_norm(const std::string& name, std::size_t width,
                const NormOptions& options) {
    if (name.empty()) return;
    add(name + ".weight", {width}, 1.0 - options.offset, 0.2);
    if (options.bias) add(name + ".bias", {width}, 0, 0.2);
  }

  void add_block(std::size_t layer) {
    const BlockSpec& block = arch_.block(layer);
    const std::string at = arch_.block_name(layer) + ".";
    for (const LinearSpec& linear : block.linears) {
      const bool piece =
          linear.storage && linear.storage->rows > 0 && !linear.storage->index;
      add(at + (piece ? linear.storage->tensor : linear.name + ".weight"),
          {piece ? linear.storage->rows : linear.out, linear.in}, 0, 0.3);
      if (linear.bias) add(at + linear.name + ".bias", {linear.out}, 0, 0.3);
    }
    for (const NormSpec& norm : block.norms) {
      add(at + norm.name + ".weight", {norm.width}, 1.0 - norm.offset, 0.2);
      if (norm.bias) add(at + norm.name + ".bias", {norm.width}, 0, 0.2);
    }
    for (const ParameterSpec& parameter : block.parameters) {
      if (parameter.constant.empty()) {
        add(at + parameter.name, parameter.shape, 0, 0.3);
      }
    }
  }

  const Architecture& arch_;
  Rng rng_{11};
  std::set<std::string> names_{};
  std::vector<NamedTensor> tensors_{};
};

struct Family {
  const char* name;
  const char* settings;  // beside those of kShared
  const char* gguf;      // general.architecture
};

constexpr const char* kShared =
    R"({"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64})";
constexpr const char* kLatent =
    R"("num_key_value_heads": 4, "q_lora_rank": 12, "kv_lora_rank": 10,
       "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 7,
       "moe_intermediate_size": 8, "n_routed_experts": 4,
       "num_experts_per_tok": 2, "n_shared_experts": 1,
       "first_k_dense_replace": 1)";
constexpr const char* kMany =
    R"("num_key_value_heads": 4, "head_dim": 8, "moe_intermediate_size": 8,
       "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
       "first_k_dense_replace": 1)";

constexpr const char* kMixer =
    R"("mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 2,
       "mamba_d_state": 5, "mamba_d_conv": 3)";
constexpr const char* kDelta =
    R"("head_dim": 8, "num_hidden_layers": 4, "linear_num_key_heads": 2,
       "linear_num_value_heads": 6, "linear_key_head_dim": 6,
       "linear_value_head_dim": 6)";
constexpr const char* kGemma4 =
    R"("head_dim": 8, "num_hidden_layers": 4, "sliding_window": 4,
       "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 6,
       "vocab_size_per_layer_input": 40, "layer_types": ["sliding_attention",
       "full_attention", "sliding_attention", "full_attention"],
       "rope_parameters": {
         "full_attention": {"rope_type": "proportional", "rope_theta": 100.0,
                            "partial_rotary_factor": 0.5},
         "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}})";
constexpr const char* kSelective =
    R"("mamba_d_state": 5, "mamba_d_conv": 3, "mamba_dt_rank": 3,
       "attn_layer_period": 2, "attn_layer_offset": 1,
       "expert_layer_period": 2, "expert_layer_offset": 0)";
constexpr const char* kSingle =
    R"("num_hidden_layers": null, "head_dim": 6, "mamba_num_heads": 4,
       "mamba_head_dim": 6, "n_groups": 2, "ssm_state_size": 5,
       "conv_kernel": 3)";

// `more` is JSON text behind a family's first settings.
struct Case {
  Family family;
  const char* more = "";
  bool whole = true;  // takes kShared
};

constexpr Case kCases[] = {
    {{"cohere", R"("logit_scale": 0.25)", "command-r"}},
    {{"nemotron", R"("partial_rotary_factor": 0.5, "mlp_bias": true)",
      "nemotron"}},
    {{"arcee", R"("head_dim": 8)", "arcee"}},
    {{"jais2", R"("head_dim": 8)", "jais2"}},
    {{"olmo", R"("clip_qkv": 1.5)", "olmo"}},
    {{"olmo3", R"("sliding_window": 4, "layer_types": ["sliding_attention",
                  "full_attention", "sliding_attention"])",
      "olmo2"}},
    {{"ernie4_5", R"("head_dim": 8)", "ernie4_5"}},
    {{"glm", R"("head_dim": 8)", "chatglm"}},
    {{"seed_oss", R"("head_dim": 8)", "seed_oss"}},
    {{"exaone", R"("num_hidden_layers": null, "num_layers": 2)", "exaone"}},
    {{"exaone4", R"("sliding_window": null)", "exaone4"}},
    {{"exaone4", R"("num_hidden_layers": 64, "sliding_window": 4)", "exaone4"}},
    {{"ministral3", R"("head_dim": 8, "sliding_window": null,
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 100.0,
        "factor": 4.0, "original_max_position_embeddings": 4, "mscale": 1.0,
        "mscale_all_dim": 0.5, "beta_fast": 16.0, "beta_slow": 2.0,
        "llama_4_scaling_beta": 0.3})",
      "mistral3"}},
    {{"falcon", R"("multi_query": true)", "falcon"}},
    {{"falcon", R"("new_decoder_architecture": true, "num_kv_heads": 2)",
      "falcon"}},
    {{"falcon", R"("new_decoder_architecture": true, "num_kv_heads": 4,
                   "num_ln_in_parallel_attn": 1)",
      "falcon"}},
    {{"gpt_neox", R"("rotary_pct": 0.5)", "gptneox"}},
    {{"gpt_neox", R"("rotary_pct": 0.5, "use_parallel_residual": false)",
      "gptneox"}},
    {{"bloom", R"("hidden_size": 32, "n_layer": 2, "n_head": 4)", "bloom"},
     "",
     false},
    {{"mpt", R"("d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64,
                "attn_config": {"clip_qkv": 1.5})",
      "mpt"},
     "",
     false},
    {{"olmoe", R"("num_key_value_heads": 4, "num_experts": 4,
                  "num_experts_per_tok": 2)",
      "olmoe"}},
    {{"llama4_text", R"("head_dim": 8, "intermediate_size_mlp": 40,
        "num_hidden_layers": 4, "num_local_experts": 4,
        "interleave_moe_layer_step": 2)",
      "llama4"}},
    {{"granitemoe", R"("num_local_experts": 4, "attention_multiplier": 0.4,
                       "logits_scaling": 3.0)",
      "granitemoe"}},
    {{"granitemoeshared", R"("num_local_experts": 4,
                             "shared_intermediate_size": 20)",
      "granitemoe"}},
    {{"deepseek_v2", kLatent, "deepseek2"},
     R"(, "rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 0.7,
        "mscale_all_dim": 0.7, "original_max_position_embeddings": 8})"},
    {{"deepseek_v3", kLatent, "deepseek2"},
     R"(, "n_group": 2, "topk_group": 1)"},
    {{"deepseek_v3", kLatent, "deepseek2"},
     R"(, "q_lora_rank": null, "n_group": 1, "topk_group": 1)"},
    {{"glm4_moe_lite", kLatent, "deepseek2"},
     R"(, "rms_norm_eps": 1e-6,
        "mlp_layer_types": ["dense", "sparse", "sparse"])"},
    {{"dots1", kMany, "dots1"}},
    {{"glm4_moe", kMany, "glm4moe"},
     R"(, "use_qk_norm": true, "attention_bias": true, "n_group": 2,
        "topk_group": 1)"},
    {{"solar_open", kMany, "glm4moe"}, R"(, "first_k_dense_replace": 0)"},
    {{"exaone_moe", R"("head_dim": 8, "num_experts": 4,
        "num_experts_per_tok": 2, "num_shared_experts": 1,
        "moe_intermediate_size": 8, "first_k_dense_replace": 1,
        "sliding_window": 4, "sliding_window_pattern": 2,
        "mlp_layer_types": ["dense", "sparse", "sparse"])",
      "exaone-moe"}},
    {{"ernie4_5_moe", R"("moe_num_experts": 4, "moe_k": 2,
        "moe_num_shared_experts": 1, "moe_intermediate_size": 8)",
      "ernie4_5-moe"}},
    {{"minimax_m2", R"("head_dim": 8, "num_local_experts": 4,
                       "num_experts_per_tok": 2)",
      "minimax-m2"}},
    {{"hunyuan_v1_dense", R"("head_dim": 8, "rope_scaling": {"type": "dynamic",
                             "alpha": 100.0})",
      "hunyuan-dense"}},
    {{"hunyuan_v1_moe", R"("num_experts": 4, "moe_topk": [2, 2, 2])",
      "hunyuan-moe"}},
    {{"qwen3_next", R"("head_dim": 8, "num_hidden_layers": 4,
        "moe_intermediate_size": 8, "shared_expert_intermediate_size": 12,
        "num_experts": 4, "num_experts_per_tok": 2,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 6, "linear_value_head_dim": 6)",
      "qwen3next"}},
    {{"qwen3_5_text", kDelta, "qwen35"}},
    {{"qwen3_5_text", kDelta, "qwen35"},
     R"(, "linear_num_value_heads": 2, "rope_parameters": {
        "rope_type": "default", "rope_theta": 100.0,
        "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0]})"},
    {{"qwen3_5_moe_text", kDelta, "qwen35moe"},
     R"(, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 8, "shared_expert_intermediate_size": 12)"},
    {{"qwen2_5_vl_text", R"("rope_scaling": {"type": "mrope",
        "mrope_section": [2, 1, 1]}, "rope_theta": 100.0)",
      "qwen2vl"}},
    {{"qwen3_vl_text", R"("head_dim": 12, "rope_theta": 100.0)", "qwen3vl"}},
    {{"gemma4_text", kGemma4, "gemma4"},
     R"(, "use_double_wide_mlp": true, "final_logit_softcapping": 20.0,
        "per_layer_config": {"1": {"head_dim": 12}, "3": {"head_dim": 12}})"},
    {{"gemma4_text", kGemma4, "gemma4"},
     R"(, "attention_k_eq_v": true, "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 0, "global_head_dim": 16,
        "num_global_key_value_heads": 1)"},
    {{"minimax", R"("head_dim": 8, "num_local_experts": 4,
        "num_experts_per_tok": 2, "layer_types": ["linear_attention",
        "full_attention", "linear_attention"], "full_attn_alpha_factor": 1.3,
        "linear_attn_alpha_factor": 1.3, "mlp_alpha_factor": 1.3)",
      "minimax-01"}},
    {{"mamba", R"("hidden_size": 32, "num_hidden_layers": 2,
                  "state_size": 5)",
      "mamba"},
     "",
     false},
    {{"falcon_mamba", R"("hidden_size": 32, "num_hidden_layers": 2,
        "state_size": 5, "mixer_rms_eps": 1e-5)",
      "mamba"},
     "",
     false},
    {{"mamba2", R"("hidden_size": 32, "num_hidden_layers": 2, "state_size": 6,
        "num_heads": 8, "head_dim": 8, "n_groups": 1)",
      "mamba2"},
     "",
     false},
    {{"mamba2", R"("hidden_size": 32, "num_hidden_layers": 2, "state_size": 6,
        "num_heads": 8, "head_dim": 8, "n_groups": 4)",
      "mamba2"},
     "",
     false},
    {{"bamba", kMixer, "granitehybrid"},
     R"(, "attn_layer_indices": [1], "attention_bias": true,
        "mlp_bias": true)"},
    {{"granitemoehybrid", kMixer, "granitehybrid"},
     R"(, "layer_types": ["mamba", "attention", "mamba"],
        "num_local_experts": 4, "num_experts_per_tok": 2,
        "shared_intermediate_size": 20, "attention_multiplier": 0.4,
        "embedding_multiplier": 2.0, "residual_multiplier": 0.7,
        "logits_scaling": 3.0)"},
    {{"granitemoehybrid", kMixer, "granitehybrid"},
     R"(, "layer_types": ["linear_attention", "full_attention",
        "linear_attention"], "num_local_experts": 0, "attention_bias": true,
        "position_embedding_type": "rope", "shared_intermediate_size": 20)"},
    {{"granitemoehybrid", kMixer, "granitemoe"},
     R"(, "layer_types": ["attention", "attention", "attention"],
        "num_local_experts": 4, "num_experts_per_tok": 2,
        "shared_intermediate_size": 20, "attention_bias": true)"},
    {{"granitemoehybrid", kMixer, "granite"},
     R"(, "layer_types": ["attention", "attention", "attention"],
        "num_local_experts": 0, "position_embedding_type": "rope",
        "shared_intermediate_size": 20)"},
    {{"jamba", kSelective, "jamba"},
     R"(, "num_experts": 4, "num_experts_per_tok": 2)"},
    {{"jamba", kSelective, "jamba"},
     R"(, "num_experts": 1, "mamba_dt_rank": "auto")"},
    {{"nemotron_h", kSingle, "nemotron_h"},
     R"(, "hybrid_override_pattern": "M*-M-", "mlp_bias": true)"},
    {{"nemotron_h", kSingle, "nemotron_h_moe"},
     R"(, "layers_block_type": ["linear_attention", "moe", "full_attention",
        "moe"], "n_routed_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 8, "moe_latent_size": 12, "n_group": 2,
        "topk_group": 1, "moe_shared_expert_intermediate_size": 20,
        "routed_scaling_factor": 1.5)"},
    {{"falcon_h1", kMixer, "falcon-h1"},
     R"(, "head_dim": 6, "mamba_d_ssm": 24, "mamba_d_head": 3,
        "attention_in_multiplier": 1.2, "attention_out_multiplier": 0.8,
        "embedding_multiplier": 1.7, "key_multiplier": 0.7,
        "lm_head_multiplier": 0.5, "mlp_multipliers": [1.3, 0.7],
        "ssm_in_multiplier": 1.25, "ssm_out_multiplier": 0.6,
        "ssm_multipliers": [0.9, 1.1, 0.8, 1.2, 0.9])"},
    {{"falcon_h1", kMixer, "falcon-h1"},
     R"(, "mamba_d_ssm": 64, "embedding_multiplier": 3.0,
        "lm_head_multiplier": 0.5, "mlp_multipliers": [0.8, 0.8],
        "mamba_rms_norm": true, "mamba_norm_before_gate": false,
        "tie_word_embeddings": true)"},
    {{"falcon_h1", kMixer, "falcon-h1"},
     R"(, "mamba_rms_norm": true, "mamba_norm_before_gate": false,
        "mamba_d_ssm": 64)"},
    {{"gpt_bigcode", R"("n_embd": 32, "n_layer": 2, "n_head": 4,
                        "n_positions": 32, "n_inner": 24)",
      "starcoder"},
     "",
     false},
    {{"gpt_bigcode", R"("n_embd": 32, "n_layer": 2, "n_head": 4,
                        "n_positions": 32, "multi_query": false)",
      "starcoder"},
     "",
     false},
    {{"lfm2", R"("layer_types": ["conv", "full_attention", "conv"],
                 "block_multiple_of": 8)",
      "lfm2"}},
    {{"lfm2_moe", R"("layer_types": ["conv", "full_attention", "conv"],
        "num_dense_layers": 1, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 8)",
      "lfm2moe"}},
};

Json config_of(const Case& c) {
  Json config = c.whole ? Json::parse(kShared) : Json::object();
  // Later keys replace earlier ones of the same name.
  config.update(
      Json::parse(std::string("{") + c.family.settings + c.more + "}"));
  config["model_type"] = c.family.name;
  config["vocab_size"] = kVocabulary;
  return config;
}

MatrixF logits_of(const Checkpoint& checkpoint, ThreadPool& pool) {
  const std::vector<TokenId> ids{5, 9, 3, 17, 30, 6, 11, 2, 8, 21, 5, 9};
  const Decoder decoder(checkpoint);
  const Segment all{ids.size(), 0, nullptr};
  return decoder.ends().logits(decoder.forward(ids, {&all, 1}, pool).view(),
                               pool);
}

// A logarithm and its exponential round, as factors do; all else is moved as it
// is.
void expect_same(const TensorReader& a, const TensorReader& b) {
  for (const TensorInfo& info : a.tensors()) {
    const TensorInfo* const other = b.find(info.name);
    ASSERT_NE(other, nullptr) << info.name;
    EXPECT_EQ(other->shape, info.shape) << info.name;
    const TensorBytes x = a.read(info), y = b.read(*other);
    ASSERT_EQ(x.bytes.size(), y.bytes.size()) << info.name;
    const std::size_t count = x.bytes.size() / sizeof(float);
    std::vector<float> u(count), v(count);
    decode_floats(DType::kF32, x.bytes, u);
    decode_floats(other->dtype, y.bytes, v);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_NEAR(u[i], v[i], 3e-7f * std::max(1.0f, std::abs(u[i])))
          << info.name;
    }
  }
  EXPECT_EQ(a.tensors().size(), b.tensors().size());
}

TEST(GgufFamilies, HaveTheSameTensorsAndComputeTheSameThereAndBack) {
  ThreadPool pool{2};
  for (const Case& c : kCases) {
    const TemporaryDirectory folder;
    const Json config = config_of(c);
    SCOPED_TRACE(config.dump());
    const Architecture arch = parse_architecture(config.dump(), "config.json");
    const fs::path model = folder.path() / "model";
    fs::create_directories(model);
    write_file_atomically(model / "config.json", config.dump());
    write_file_atomically(model / "model.safetensors",
                          write_safetensors(RandomTensors(arch).all(), {}));
    const auto source = open_checkpoint(model);
    ConversionOptions options{.format = "gguf"};
    options.output = folder.path() / "m.gguf";
    try {
      (void)convert_model(*source, options, pool);
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
      continue;
    }
    const auto gguf = open_checkpoint(options.output);
    expect_same(source->tensors(), gguf->tensors());
    const MatrixF wanted = logits_of(*source, pool);
    const MatrixF found = logits_of(*gguf, pool);
    float largest = 0, worst = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      largest = std::max(largest, std::abs(wanted.data()[i]));
      worst = std::max(worst, std::abs(wanted.data()[i] - found.data()[i]));
    }
    EXPECT_GT(largest, 0.01f);
    EXPECT_LE(worst, 1e-5f * largest);
    EXPECT_EQ(
        GgufFile::open(options.output).metadata().text("general.architecture"),
        c.family.gguf);
  }
}

// Numbers that multiply a Linear's output and that nothing explains.
TEST(GgufFamilies, ScalesOfLinearsAreRefusedUnlessFactorsMakeThem) {
  ThreadPool pool{2};
  const auto at = std::ranges::find_if(kCases, [](const Case& c) {
    return c.family.name == std::string_view("falcon_h1");
  });
  const Json config = config_of(*at);
  const Architecture arch = parse_architecture(config.dump(), "config.json");
  const TemporaryDirectory folder;
  const fs::path model = folder.path() / "model";
  fs::create_directories(model);
  write_file_atomically(model / "config.json", config.dump());
  write_file_atomically(model / "model.safetensors",
                        write_safetensors(RandomTensors(arch).all(), {}));
  ConversionOptions options{.format = "gguf"};
  options.output = folder.path() / "m.gguf";
  (void)convert_model(*open_checkpoint(model), options, pool);
  const auto refusal = [&](const std::string& from, const std::string& to) {
    std::string octets = read_file(options.output);
    const std::size_t place = octets.find(from);
    EXPECT_NE(place, std::string::npos);
    octets.replace(place, to.size(), to);
    write_file_atomically(folder.path() / "other.gguf", octets);
    try {
      (void)open_checkpoint(folder.path() / "other.gguf");
      return std::string();
    } catch (const Error& error) {
      return std::string(error.what());
    }
  };
  EXPECT_EQ(refusal("blk.0.attn_k.scale", "blk.0.attn_k.scale"), "");
  EXPECT_NE(refusal("blk.0.attn_k.scale", "blk.0.attn_x.scale")
                .find("blk.0.attn_x.scale"),
            std::string::npos);
  // Without the factors all scales are 1, and none is there.
  EXPECT_NE(refusal("llmpress.multipliers", "llmpress.Multipliers")
                .find("model's factors"),
            std::string::npos);
}

// Of a vision-language model the decoder alone.
TEST(GgufFamilies, HaveTheDecodersOfWhatSees) {
  ThreadPool pool{2};
  for (const std::string body :
       {"model.language_model.", "language_model.model."}) {
    SCOPED_TRACE(body);
    Json text = config_of(*std::ranges::find_if(kCases, [](const Case& c) {
      return c.family.name == std::string_view("qwen3_vl_text");
    }));
    const Json config{{"model_type", "qwen3_vl"},
                      {"tie_word_embeddings", false},
                      {"text_config", text}};
    const Architecture alone = parse_architecture(text.dump(), "config.json");
    std::vector<NamedTensor> tensors = RandomTensors(alone).all();
    const std::string head = body.starts_with("model.")
                                 ? "lm_head.weight"
                                 : "language_model.lm_head.weight";
    for (NamedTensor& tensor : tensors) {
      tensor.name = tensor.name == "lm_head.weight"
                        ? head
                        : body + tensor.name.substr(std::size("model.") - 1);
    }
    tensors.push_back({.name = "model.visual.patch_embed.proj.weight",
                       .shape = {2},
                       .bytes = std::vector<std::byte>(8)});
    const TemporaryDirectory folder;
    const fs::path model = folder.path() / "model";
    fs::create_directories(model);
    write_file_atomically(model / "config.json", config.dump());
    write_file_atomically(model / "model.safetensors",
                          write_safetensors(tensors, {}));
    const auto source = open_checkpoint(model);
    ConversionOptions options{.format = "gguf"};
    options.output = folder.path() / "m.gguf";
    const ConversionReport report = convert_model(*source, options, pool);
    EXPECT_TRUE(std::ranges::any_of(report.notes, [](const std::string& note) {
      return note.find("model.visual.patch_embed") != std::string::npos;
    }));
    const auto gguf = open_checkpoint(options.output);
    EXPECT_EQ(gguf->tensors().tensors().size() + 1,
              source->tensors().tensors().size());
    const MatrixF wanted = logits_of(*source, pool);
    const MatrixF found = logits_of(*gguf, pool);
    EXPECT_TRUE(std::ranges::equal(wanted.data(), found.data()));
  }
}

// A family is written, or refused with the reason.
TEST(GgufFamilies, AreAllKnownOrSaidToBeWithout) {
  for (const std::string& family : known_families()) {
    const ConfigReader config =
        ConfigReader::parse(Json{{"model_type", family}}.dump(), "config.json");
    try {
      EXPECT_EQ(gguf_architecture_for(config).model_type, family);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      EXPECT_NE(std::string(error.what()).find("llama.cpp has no architecture"),
                std::string::npos)
          << error.what();
    }
  }
}

// What llama.cpp computes otherwise, or has no key for.
TEST(GgufFamilies, AreRefusedByTheKeyThatDoesNotFit) {
  struct Refusal {
    std::size_t like;  // of kCases
    const char* settings;
    const char* named;
  };
  const auto index = [](const char* name) {
    const auto at = std::ranges::find_if(kCases, [&](const Case& c) {
      return c.family.name == std::string_view(name);
    });
    return static_cast<std::size_t>(at - std::begin(kCases));
  };
  const Refusal kRefusals[] = {
      {index("cohere"), R"({"use_qk_norm": true})", "use_qk_norm"},
      {index("nemotron"), R"({"head_dim": 16})", "head_dim"},
      {index("exaone4"), R"({"sliding_window": 4})", "sliding_window"},
      {index("falcon"), R"({"bias": true})", "'bias'"},
      {index("falcon"), R"({"parallel_attn": false})", "parallel_attn"},
      {index("gpt_neox"), R"({"attention_bias": false})", "attention_bias"},
      {index("ministral3"), R"({"sliding_window": 16})", "sliding_window"},
      {index("olmoe"), R"({"norm_topk_prob": true})", "norm_topk_prob"},
      {index("olmoe"), R"({"clip_qkv": 2.0})", "clip_qkv"},
      {index("llama4_text"), R"({"attention_chunk_size": 16})",
       "attention_chunk_size"},
      {index("llama4_text"), R"({"use_qk_norm": false})", "use_qk_norm"},
      {index("llama4_text"), R"({"no_rope_layers": [1, 0, 1, 1]})",
       "no_rope_layers"},
      {index("deepseek_v2"),
       R"({"topk_method": "group_limited_greedy", "n_group": 2,
           "topk_group": 1})",
       "topk_method"},
      {index("deepseek_v2"), R"({"num_hidden_layers": 27})", "q_lora_rank"},
      {index("deepseek_v2"), R"({"attention_bias": true})", "attention_bias"},
      {index("deepseek_v3"), R"({"rope_interleave": false})",
       "rope_interleave"},
      {index("qwen3_next"), R"({"linear_value_head_dim": 4})",
       "linear_value_head_dim"},
      {index("qwen3_next"), R"({"mlp_only_layers": [1]})", "mlp_only_layers"},
      {index("mamba2"), R"({"time_step_limit": [0.1, 0.2]})",
       "time_step_limit"},
      {index("bamba"), R"({"mamba_proj_bias": true})", "mamba_proj_bias"},
      {index("bamba"), R"({"mamba_expand": 4, "mamba_n_heads": 16})",
       "mamba_expand"},
      {index("granitemoehybrid"), R"({"mamba_conv_bias": false})",
       "mamba_conv_bias"},
      {index("jamba"), R"({"mamba_proj_bias": true})", "mamba_proj_bias"},
      {index("nemotron_h"), R"({"time_step_min": 0.9})", "time_step_min"},
      {index("nemotron_h"), R"({"hybrid_override_pattern": "ME-*",
        "n_routed_experts": 4, "moe_intermediate_size": 8,
        "moe_shared_expert_intermediate_size": 8})",
       "hybrid_override_pattern"},
      {index("falcon_h1"), R"({"ssm_multipliers": [1, 1, 1, 1, 2]})",
       "ssm_multipliers"},
      {index("falcon_h1"), R"({"mamba_rms_norm": true})",
       "mamba_norm_before_gate"},
      {index("falcon_h1"), R"({"mamba_rms_norm": true,
        "mamba_norm_before_gate": false})",
       "mlp_multipliers"},
      {index("falcon_h1"), R"({"attention_bias": true})", "attention_bias"},
      {index("gpt_bigcode"), R"({"scale_attn_weights": false})",
       "scale_attn_weights"},
      {index("qwen3_5_text"), R"({"linear_value_head_dim": 4})",
       "linear_value_head_dim"},
      {index("gemma4_text"), R"({"attention_bias": true})", "attention_bias"},
      {index("gemma4_text"), R"({"layer_types": ["full_attention",
        "sliding_attention", "sliding_attention", "full_attention"],
        "per_layer_config": null})",
       "num_kv_shared_layers"},
      {index("minimax"), R"({"mlp_alpha_factor": 1.0})", "mlp_alpha_factor"},
      {index("minimax"), R"({"mlp_beta_factor": 0.5})", "mlp_beta_factor"},
  };
  ThreadPool pool{2};
  for (const Refusal& refusal : kRefusals) {
    Json config = config_of(kCases[refusal.like]);
    config.update(Json::parse(refusal.settings));
    SCOPED_TRACE(config.dump());
    const TemporaryDirectory folder;
    const Architecture arch = parse_architecture(config.dump(), "config.json");
    const fs::path model = folder.path() / "model";
    fs::create_directories(model);
    write_file_atomically(model / "config.json", config.dump());
    write_file_atomically(model / "model.safetensors",
                          write_safetensors(RandomTensors(arch).all(), {}));
    ConversionOptions options{.format = "gguf"};
    options.output = folder.path() / "m.gguf";
    try {
      (void)convert_model(*open_checkpoint(model), options, pool);
      ADD_FAILURE() << "written";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      EXPECT_NE(std::string(error.what()).find(refusal.named),
                std::string::npos)
          << error.what();
    }
    EXPECT_FALSE(fs::exists(options.output));
  }
}

}  // namespace
}  // namespace llmpress
