// A tiny Llama in the forms that models come in besides safetensors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "formats/containers/safetensors.h"
#include "formats/containers/sharded.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/formats/containers/torch_writer.h"

namespace llmpress::testing {

inline void write_octets(const std::filesystem::path& file,
                         const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

// Rows of heads with coordinates that turn together side by side.
inline MatrixF in_pairs(const MatrixF& W, std::size_t heads) {
  MatrixF turned(W.rows(), W.cols());
  const std::size_t head = W.rows() / heads;
  for (std::size_t r = 0; r < W.rows(); ++r) {
    const std::size_t j = r % head, pair = j % (head / 2);
    const std::size_t to = r - j + 2 * pair + (j < head / 2 ? 0 : 1);
    for (std::size_t c = 0; c < W.cols(); ++c) turned(to, c) = W(r, c);
  }
  return turned;
}

class ModelForms {
 public:
  // With the heads of a Llama: head_dim is hidden / heads.
  explicit ModelForms(TinyShape shape, std::uint64_t seed = 7)
      : shape_(std::move(shape)), tensors_(tiny_tensors(shape_, seed)) {}

  const TinyShape& shape() const { return shape_; }
  const TinyTensors& tensors() const { return tensors_; }
  std::string config() const {
    TinyShape shape = shape_;
    shape.more_json += R"(, "rms_norm_eps": 1e-5)";
    return config_json(shape);
  }

  void write_safetensors_folder(const std::filesystem::path& folder) const {
    write_octets(folder / "config.json", config());
    write_octets(folder / "model.safetensors",
                 write_safetensors(named_tensors(tensors_), {}));
  }

  void write_torch_folder(const std::filesystem::path& folder) const {
    write_octets(folder / "config.json", config());
    write_octets(folder / "pytorch_model.bin",
                 torch_file(named_tensors(tensors_)));
  }

  // In two shards and an index, as transformers names them.
  void write_torch_shards(const std::filesystem::path& folder) const {
    write_octets(folder / "config.json", config());
    write_shards(folder, named_tensors(tensors_), "pytorch_model", ".bin");
  }
  void write_mistral_shards(const std::filesystem::path& folder) const {
    write_mistral_folder(folder);
    std::filesystem::remove(folder / "consolidated.safetensors");
    write_shards(folder, named_tensors(theirs()), "consolidated",
                 ".safetensors");
  }

  // Names and order of rows of Meta and Mistral.
  TinyTensors theirs() const {
    TinyTensors named;
    named["tok_embeddings.weight"] = tensors_.at("model.embed_tokens.weight");
    named["norm.weight"] = tensors_.at("model.norm.weight");
    if (!shape_.tied) named["output.weight"] = tensors_.at("lm_head.weight");
    for (std::size_t l = 0; l < shape_.layers; ++l) {
      for (const auto& [their, our] : kBlock) {
        const auto place = formatted("layers.{}.{}.weight", l, their);
        const MatrixF& W =
            tensors_.at(formatted("model.layers.{}.{}.weight", l, our));
        named[place] = W;
        if (std::string_view(their).ends_with("wq")) {
          named[place] = in_pairs(W, shape_.heads);
        } else if (std::string_view(their).ends_with("wk")) {
          named[place] = in_pairs(W, shape_.kv_heads);
        }
      }
    }
    return named;
  }

  void write_mistral_folder(const std::filesystem::path& folder) const {
    write_octets(
        folder / "params.json",
        formatted("{{\"dim\": {}, \"n_layers\": {}, \"n_heads\": {}, "
                  "\"n_kv_heads\": {}, \"head_dim\": {}, \"hidden_dim\": {}, "
                  "\"norm_eps\": 1e-5, \"rope_theta\": 10000.0}}",
                  shape_.hidden, shape_.layers, shape_.heads, shape_.kv_heads,
                  shape_.head_dim, shape_.ffn));
    write_octets(folder / "consolidated.safetensors",
                 write_safetensors(named_tensors(theirs()), {}));
  }

  // In `parts` files; the embedding cut by its columns or by its rows.
  void write_meta_folder(const std::filesystem::path& folder, std::size_t parts,
                         bool embedding_rows) const {
    write_octets(folder / "params.json",
                 formatted("{{\"dim\": {}, \"n_layers\": {}, \"n_heads\": {}, "
                           "\"n_kv_heads\": {}, \"multiple_of\": {}, "
                           "\"norm_eps\": 1e-5, \"vocab_size\": -1}}",
                           shape_.hidden, shape_.layers, shape_.heads,
                           shape_.kv_heads, shape_.ffn));
    for (std::size_t p = 0; p < parts; ++p) {
      write_octets(
          folder / formatted("consolidated.{:02}.pth", p),
          torch_file(named_tensors(meta_part(p, parts, embedding_rows))));
    }
  }

  TinyTensors meta_part(std::size_t p, std::size_t parts,
                        bool embedding_rows) const {
    TinyTensors part;
    for (const auto& [name, W] : theirs()) {
      const bool columns = name.find(".wo.") != name.npos ||
                           name.find(".w2.") != name.npos ||
                           (name.starts_with("tok_") && !embedding_rows);
      part[name] = W.rows() == 1 ? W : part_of(W, p, parts, columns);
    }
    return part;
  }

  // Version 0 or 1 of llama2.c.
  std::string llama2c_file(int version) const {
    const TinyTensors named = theirs();
    std::string file;
    std::vector<std::int32_t> sizes;
    for (const std::size_t n :
         {shape_.hidden, shape_.ffn, shape_.layers, shape_.heads,
          shape_.kv_heads, shape_.vocabulary, std::size_t{64}}) {
      sizes.push_back(static_cast<std::int32_t>(n));
    }
    if (version == 0 && !shape_.tied) sizes[5] = -sizes[5];
    if (version == 1) file += octets(0x616b3432) + octets(version);
    for (const std::int32_t n : sizes) file += octets(n);
    if (version == 1) {
      file += octets(static_cast<std::uint8_t>(shape_.tied ? 1 : 0));
      file.resize(256, '\0');
    }
    const auto one = [&](const std::string& name) {
      const auto bytes = float_bytes(named.at(name + ".weight").data());
      file.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    };
    const auto layers = [&](const char* name) {
      for (std::size_t l = 0; l < shape_.layers; ++l) {
        one(formatted("layers.{}.{}", l, name));
      }
    };
    const auto all = [&](std::initializer_list<const char*> names) {
      for (const char* name : names) layers(name);
    };
    if (version == 0) {
      one("tok_embeddings");
      all({"attention_norm", "attention.wq", "attention.wk", "attention.wv",
           "attention.wo", "ffn_norm", "feed_forward.w1", "feed_forward.w2",
           "feed_forward.w3"});
      one("norm");
      file += std::string(64 * (shape_.hidden / shape_.heads) * 4, 'r');
    } else {
      all({"attention_norm", "ffn_norm"});
      one("norm");
      one("tok_embeddings");
      all({"attention.wq", "attention.wk", "attention.wv", "attention.wo",
           "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"});
    }
    if (!shape_.tied) one("output");
    return file;
  }

 private:
  static void write_shards(const std::filesystem::path& folder,
                           const std::vector<NamedTensor>& tensors,
                           const std::string& stem, const std::string& end) {
    std::map<std::string, std::string> index;
    for (std::size_t shard = 0; shard < 2; ++shard) {
      const std::size_t half = tensors.size() / 2;
      const auto part = shard == 0 ? std::span(tensors).first(half)
                                   : std::span(tensors).subspan(half);
      const std::string file =
          stem + formatted("-{:05}-of-00002", shard + 1) + end;
      for (const NamedTensor& tensor : part) index[tensor.name] = file;
      write_octets(folder / file, end == ".bin" ? torch_file(part)
                                                : write_safetensors(part, {}));
    }
    write_octets(folder / (stem + end + ".index.json"),
                 shard_index_json(index, 1));
  }

  static constexpr std::pair<const char*, const char*> kBlock[] = {
      {"attention_norm", "input_layernorm"},
      {"ffn_norm", "post_attention_layernorm"},
      {"attention.wq", "self_attn.q_proj"},
      {"attention.wk", "self_attn.k_proj"},
      {"attention.wv", "self_attn.v_proj"},
      {"attention.wo", "self_attn.o_proj"},
      {"feed_forward.w1", "mlp.gate_proj"},
      {"feed_forward.w2", "mlp.down_proj"},
      {"feed_forward.w3", "mlp.up_proj"}};

  static MatrixF part_of(const MatrixF& W, std::size_t part, std::size_t parts,
                         bool columns) {
    const std::size_t rows = columns ? W.rows() : W.rows() / parts;
    const std::size_t cols = columns ? W.cols() / parts : W.cols();
    MatrixF out(rows, cols);
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < cols; ++c) {
        out(r, c) = columns ? W(r, part * cols + c) : W(part * rows + r, c);
      }
    }
    return out;
  }

  TinyShape shape_;
  TinyTensors tensors_;
};

}  // namespace llmpress::testing
