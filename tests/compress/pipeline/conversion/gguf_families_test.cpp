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
    add_norm(arch.embedding_norm, arch.hidden, arch.embedding_norm_options);
    if (!arch.final_norm_options.weightless) {
      add_norm(arch.final_norm, arch.hidden, arch.final_norm_options);
    }
    if (!arch.tied_head) {
      add(arch.head + ".weight", {arch.vocabulary, arch.hidden}, 0, 0.2);
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

// A logarithm and its exponential round, all else is moved as it is.
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
      ASSERT_NEAR(u[i], v[i], 3e-7) << info.name;
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
      {index("mamba2"), R"({"n_groups": 2})", "n_groups"},
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
