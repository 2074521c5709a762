// Random decoders of a few hundred weights, in memory, for the tests of this
// folder.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/rng.h"
#include "compress/model/architecture.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

struct TinyShape {
  std::string model_type = "llama";
  std::size_t hidden = 24, ffn = 40, layers = 2, heads = 4, kv_heads = 2;
  std::size_t head_dim = 6, vocabulary = 31;
  bool qkv_bias = false, o_bias = false, mlp_bias = false, head_norms = false;
  bool tied = false;
  std::string more_json{};  // ", \"key\": value" ...
};

inline std::string config_json(const TinyShape& shape) {
  const auto number = [](std::size_t n) { return std::to_string(n); };
  return R"({"model_type": ")" + shape.model_type + R"(", "hidden_size": )" +
         number(shape.hidden) + R"(, "intermediate_size": )" +
         number(shape.ffn) + R"(, "num_hidden_layers": )" +
         number(shape.layers) + R"(, "num_attention_heads": )" +
         number(shape.heads) + R"(, "num_key_value_heads": )" +
         number(shape.kv_heads) + R"(, "head_dim": )" + number(shape.head_dim) +
         R"(, "vocab_size": )" + number(shape.vocabulary) +
         R"(, "tie_word_embeddings": )" + (shape.tied ? "true" : "false") +
         shape.more_json + "}";
}

using TinyTensors = std::map<std::string, MatrixF>;  // vectors as one row

// Every tensor of the model, norms around 1 and the rest around 0 at a size
// that keeps activations near 1.
inline TinyTensors tiny_tensors(const TinyShape& shape, std::uint64_t seed) {
  Rng rng(seed);
  TinyTensors tensors;
  const auto add = [&](const std::string& name, std::size_t rows,
                       std::size_t cols, double mean, double deviation) {
    MatrixF values(rows, cols);
    for (float& x : values.data()) {
      x = static_cast<float>(mean + deviation * rng.normal());
    }
    tensors[name] = std::move(values);
  };
  const auto linear = [&](const std::string& name, std::size_t out,
                          std::size_t in, bool bias) {
    add(name + ".weight", out, in, 0, 0.4);
    if (bias) add(name + ".bias", 1, out, 0, 0.5);
  };
  add("model.embed_tokens.weight", shape.vocabulary, shape.hidden, 0, 1);
  add("model.norm.weight", 1, shape.hidden, 1, 0.3);
  if (!shape.tied) linear("lm_head", shape.vocabulary, shape.hidden, false);
  const std::size_t q = shape.heads * shape.head_dim;
  const std::size_t kv = shape.kv_heads * shape.head_dim;
  for (std::size_t layer = 0; layer < shape.layers; ++layer) {
    const std::string block = "model.layers." + std::to_string(layer) + ".";
    add(block + "input_layernorm.weight", 1, shape.hidden, 1, 0.3);
    add(block + "post_attention_layernorm.weight", 1, shape.hidden, 1, 0.3);
    linear(block + "self_attn.q_proj", q, shape.hidden, shape.qkv_bias);
    linear(block + "self_attn.k_proj", kv, shape.hidden, shape.qkv_bias);
    linear(block + "self_attn.v_proj", kv, shape.hidden, shape.qkv_bias);
    linear(block + "self_attn.o_proj", shape.hidden, q, shape.o_bias);
    linear(block + "mlp.gate_proj", shape.ffn, shape.hidden, shape.mlp_bias);
    linear(block + "mlp.up_proj", shape.ffn, shape.hidden, shape.mlp_bias);
    linear(block + "mlp.down_proj", shape.hidden, shape.ffn, shape.mlp_bias);
    if (shape.head_norms) {
      add(block + "self_attn.q_norm.weight", 1, shape.head_dim, 1, 0.3);
      add(block + "self_attn.k_norm.weight", 1, shape.head_dim, 1, 0.3);
    }
  }
  return tensors;
}

inline std::vector<std::byte> float_bytes(std::span<const float> values) {
  const auto bytes = std::as_bytes(values);
  return {bytes.begin(), bytes.end()};
}

// Tensors with "norm" or "bias" in their names are vectors.
inline std::vector<NamedTensor> named_tensors(const TinyTensors& tensors) {
  std::vector<NamedTensor> named;
  for (const auto& [name, values] : tensors) {
    const bool vector =
        name.find("norm") != std::string::npos || name.ends_with(".bias");
    std::vector<std::size_t> shape{values.rows(), values.cols()};
    if (vector) shape = {values.cols()};
    named.push_back({name, DType::kF32, shape, float_bytes(values.data())});
  }
  return named;
}

class MemoryTensors : public TensorReader {
 public:
  explicit MemoryTensors(const TinyTensors& tensors)
      : MemoryTensors(named_tensors(tensors)) {}
  explicit MemoryTensors(std::vector<NamedTensor> tensors)
      : named_(std::make_shared<std::vector<NamedTensor>>(std::move(tensors))) {
    for (const NamedTensor& t : *named_) {
      infos_.push_back({t.name, t.dtype, t.shape, t.bytes.size(), "memory"});
    }
  }
  std::span<const TensorInfo> tensors() const override { return infos_; }
  TensorBytes read(const TensorInfo& info) const override {
    for (const NamedTensor& t : *named_) {
      if (t.name == info.name) return {t.bytes, named_};
    }
    throw Error(ErrorCode::kInvalidInput, info.name);
  }
  const std::map<std::string, std::string>& metadata() const override {
    return metadata_;
  }

 private:
  std::shared_ptr<std::vector<NamedTensor>> named_;
  std::vector<TensorInfo> infos_{};
  std::map<std::string, std::string> metadata_{};
};

class MemoryCheckpoint : public Checkpoint {
 public:
  MemoryCheckpoint(const TinyTensors& tensors, std::string config)
      : reader_(tensors), config_(std::move(config)) {}
  MemoryCheckpoint(std::vector<NamedTensor> tensors, std::string config)
      : reader_(std::move(tensors)), config_(std::move(config)) {}

  // A Linear that is stored packed, in place of its dense tensor if any.
  std::map<std::string, LinearWeights, std::less<>> packed{};

  const std::filesystem::path& path() const override { return path_; }
  const TensorReader& tensors() const override { return reader_; }
  const std::string& config_json() const override { return config_; }
  std::string_view format() const override { return "memory"; }
  bool has_linear(std::string_view name) const override {
    return packed.contains(name) || plain_weight(name) != nullptr;
  }
  const TensorInfo* plain_weight(std::string_view name) const override {
    const TensorInfo* const info = reader_.find(std::string(name) + ".weight");
    const bool plain = info != nullptr && info->shape.size() == 2;
    return plain && !packed.contains(name) ? info : nullptr;
  }
  LinearWeights read_linear(std::string_view name) const override {
    if (const auto it = packed.find(name); it != packed.end())
      return it->second;
    const std::string stem(name);
    LinearWeights linear;
    const MatrixF W = read_matrix(reader_, stem + ".weight");
    linear.weight = make_dense(W.view(), DType::kF32);
    if (reader_.find(stem + ".bias") != nullptr) {
      const MatrixF bias = read_matrix(reader_, stem + ".bias");
      linear.bias.assign(bias.data().begin(), bias.data().end());
    }
    return linear;
  }

 private:
  std::filesystem::path path_ = "tiny";
  MemoryTensors reader_;
  std::string config_;
};

// Token ids below `vocabulary`.
inline std::vector<TokenId> random_tokens(std::size_t count,
                                          std::size_t vocabulary,
                                          std::uint64_t seed) {
  Rng rng(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& t : tokens) t = static_cast<TokenId>(rng.below(vocabulary));
  return tokens;
}

// The window of every layer's attention, 0 for none.
inline std::vector<std::size_t> windows_of(const Architecture& arch) {
  std::vector<std::size_t> windows(arch.layers, 0);
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (const Operation& op : arch.block(layer).operations) {
      const auto* const attention = std::get_if<AttentionOp>(&op.kind);
      if (attention != nullptr) windows[layer] = attention->window;
    }
  }
  return windows;
}

}  // namespace llmpress
