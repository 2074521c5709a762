#include "compress/pipeline/benchmark/synthetic_model.h"

#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "compress/pipeline/training/random_model.h"

namespace llmpress {
namespace {

using Json = nlohmann::ordered_json;

constexpr ModelShape kShapes[] = {
    {"llama-1.1b", "TinyLlama-1.1B", R"({
      "architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
      "num_attention_heads": 32, "num_key_value_heads": 4,
      "vocab_size": 32000, "max_position_embeddings": 2048,
      "rope_theta": 10000.0})"},
    {"llama-7b", "Llama-2-7B", R"({
      "architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
      "num_attention_heads": 32, "num_key_value_heads": 32,
      "vocab_size": 32000, "max_position_embeddings": 4096,
      "rope_theta": 10000.0})"},
    {"llama-8b", "Llama-3-8B", R"({
      "architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
      "num_attention_heads": 32, "num_key_value_heads": 8,
      "vocab_size": 128256, "max_position_embeddings": 8192,
      "rope_theta": 500000.0})"},
    {"llama-70b", "Llama-3-70B", R"({
      "architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
      "num_attention_heads": 64, "num_key_value_heads": 8,
      "vocab_size": 128256, "max_position_embeddings": 8192,
      "rope_theta": 500000.0})"},
    {"llama-405b", "Llama-3.1-405B", R"({
      "architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "hidden_size": 16384, "intermediate_size": 53248,
      "num_hidden_layers": 126, "num_attention_heads": 128,
      "num_key_value_heads": 8, "vocab_size": 128256,
      "max_position_embeddings": 8192, "rope_theta": 500000.0})"},
    {"qwen3-0.6b", "Qwen3-0.6B", R"({
      "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
      "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
      "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
      "vocab_size": 151936, "max_position_embeddings": 40960,
      "rope_theta": 1000000.0, "tie_word_embeddings": true})"},
    {"qwen3-8b", "Qwen3-8B", R"({
      "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
      "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
      "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
      "vocab_size": 151936, "max_position_embeddings": 40960,
      "rope_theta": 1000000.0})"},
    {"qwen3-30b-a3b", "Qwen3-30B-A3B, a mixture of 128 experts", R"({
      "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
      "hidden_size": 2048, "intermediate_size": 6144,
      "moe_intermediate_size": 768, "num_experts": 128,
      "num_experts_per_tok": 8, "norm_topk_prob": true,
      "decoder_sparse_step": 1, "mlp_only_layers": [],
      "num_hidden_layers": 48, "num_attention_heads": 32,
      "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936,
      "max_position_embeddings": 40960, "rope_theta": 1000000.0})"},
    {"mistral-7b", "Mistral-7B-v0.1", R"({
      "architectures": ["MistralForCausalLM"], "model_type": "mistral",
      "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
      "num_attention_heads": 32, "num_key_value_heads": 8,
      "vocab_size": 32000, "max_position_embeddings": 32768,
      "sliding_window": 4096, "rope_theta": 10000.0})"},
};

// The characters that a byte-level vocabulary writes octets as (GPT-2's table).
std::string visible(unsigned octet) {
  const auto is_plain = [](unsigned o) {
    return (o >= '!' && o <= '~') || (o >= 0xa1 && o <= 0xac) || o >= 0xae;
  };
  unsigned code = octet;
  if (!is_plain(octet)) {
    code = 256;
    for (unsigned o = 0; o < octet; ++o) code += is_plain(o) ? 0u : 1u;
  }
  std::string utf8;
  if (code < 0x80) {
    utf8 += static_cast<char>(code);
  } else {
    utf8 += static_cast<char>(0xc0 | code >> 6);
    utf8 += static_cast<char>(0x80 | (code & 0x3f));
  }
  return utf8;
}

std::string tokenizer_json(std::size_t vocabulary) {
  Json words = Json::object();
  for (unsigned octet = 0; octet < 256; ++octet) words[visible(octet)] = octet;
  for (std::size_t id = 256; id < vocabulary; ++id) {
    words[formatted("<unused{}>", id)] = id;
  }
  const Json octets{{"type", "ByteLevel"},
                    {"add_prefix_space", false},
                    {"trim_offsets", true},
                    {"use_regex", true}};
  const Json json{{"version", "1.0"},
                  {"truncation", nullptr},
                  {"padding", nullptr},
                  {"added_tokens", Json::array()},
                  {"normalizer", nullptr},
                  {"pre_tokenizer", octets},
                  {"post_processor", nullptr},
                  {"decoder", octets},
                  {"model",
                   {{"type", "BPE"},
                    {"dropout", nullptr},
                    {"unk_token", nullptr},
                    {"continuing_subword_prefix", nullptr},
                    {"end_of_word_suffix", nullptr},
                    {"fuse_unk", false},
                    {"byte_fallback", false},
                    {"vocab", words},
                    {"merges", Json::array()}}}};
  return json.dump();
}

}  // namespace

std::span<const ModelShape> model_shapes() { return kShapes; }

const ModelShape& find_shape(std::string_view name) {
  std::string names;
  for (const ModelShape& shape : kShapes) {
    if (shape.name == name) return shape;
    names += (names.empty() ? "" : ", ") + std::string(shape.name);
  }
  fail(ErrorCode::kInvalidArgument, "no shape '{}'; there are {}", name, names);
}

std::string synthetic_config(const SyntheticModelJob& job) {
  Json config = Json::parse(find_shape(job.like).config);
  config["hidden_act"] = "silu";
  config["rms_norm_eps"] = 1e-5;
  config["bos_token_id"] = nullptr;
  config["eos_token_id"] = nullptr;
  if (!config.contains("tie_word_embeddings")) {
    config["tie_word_embeddings"] = false;
  }
  if (job.layers) config["num_hidden_layers"] = *job.layers;
  if (job.vocabulary) config["vocab_size"] = *job.vocabulary;
  return config.dump(2);
}

void write_synthetic_model(const SyntheticModelJob& job, ThreadPool& pool) {
  const std::string config = synthetic_config(job);
  const auto vocabulary = Json::parse(config)["vocab_size"].get<std::size_t>();
  write_random_model(
      {.config = {},
       .config_json = config,
       .output = job.output,
       .seed = job.seed,
       .dtype = job.dtype,
       .pool = &pool,
       .files = {{"tokenizer.json", tokenizer_json(vocabulary)},
                 {"tokenizer_config.json",
                  R"({"tokenizer_class": "PreTrainedTokenizerFast"})"}}});
}

}  // namespace llmpress
