#include "formats/llama2c/llama2c_file.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/files/mapped_file.h"
#include "formats/gguf/gguf_change.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kMagic = 0x616b3432;
constexpr std::size_t kOldHeaderBytes = 28, kHeaderBytes = 256;
constexpr std::size_t kLargestSize = 1u << 24;

struct Header {
  std::size_t version = 0, bytes = kOldHeaderBytes;
  std::size_t dim = 0, ffn = 0, layers = 0, heads = 0, kv_heads = 0,
              vocabulary = 0, positions = 0;
  std::size_t group = 0;  // of version 2
  bool shared_head = true;

  std::size_t head_dim() const { return dim / heads; }
};

template <class T>
T number_at(std::span<const std::byte> file, std::size_t at) {
  T value{};
  std::memcpy(&value, file.data() + at, sizeof value);
  return value;
}

bool has_magic(std::span<const std::byte> file) {
  return file.size() >= 8 && number_at<std::uint32_t>(file, 0) == kMagic;
}

// The seven numbers; false: they are no model's.
bool read_sizes(std::span<const std::byte> file, std::size_t at,
                Header& header) {
  std::array<std::int64_t, 7> n{};
  for (std::size_t i = 0; i < n.size(); ++i) {
    n[i] = number_at<std::int32_t>(file, at + 4 * i);
  }
  if (header.version == 0) {
    header.shared_head = n[5] > 0;
    n[5] = std::abs(n[5]);
  }
  const bool sizes = std::ranges::all_of(n, [](std::int64_t size) {
    return size > 0 && size <= static_cast<std::int64_t>(kLargestSize);
  });
  if (!sizes) return false;
  std::size_t i = 0;
  for (std::size_t* const to :
       {&header.dim, &header.ffn, &header.layers, &header.heads,
        &header.kv_heads, &header.vocabulary, &header.positions}) {
    *to = static_cast<std::size_t>(n[i++]);
  }
  return header.dim % (2 * header.heads) == 0 &&
         header.heads % header.kv_heads == 0;
}

Header read_header(std::span<const std::byte> file, const std::string& where) {
  Header header;
  if (has_magic(file)) {
    header.bytes = kHeaderBytes;
    header.version = number_at<std::uint32_t>(file, 4);
    if (header.version != 1 && header.version != 2) {
      fail(ErrorCode::kUnsupported,
           "{}: llama2.c checkpoint of version {}, wanted 0, 1 or 2", where,
           header.version);
    }
  }
  if (file.size() < header.bytes ||
      !read_sizes(file, header.version == 0 ? 0 : 8, header)) {
    fail(ErrorCode::kCorruptFile,
         "{}: does not begin with the sizes of a llama2.c checkpoint", where);
  }
  if (header.version == 0) return header;
  const auto shared = number_at<std::uint8_t>(file, 36);
  header.shared_head = shared != 0;
  if (header.version == 1) return header;
  const auto group = number_at<std::int32_t>(file, 37);
  if (group <= 0 || header.dim % static_cast<std::size_t>(group) != 0) {
    fail(ErrorCode::kCorruptFile, "{}: groups of {} codes in rows of {}", where,
         group, header.dim);
  }
  header.group = static_cast<std::size_t>(group);
  return header;
}

struct Part {
  TensorInfo info{};
  std::size_t begin = 0;  // in the file
  std::size_t heads = 0;  // whose rows change places
  bool coded = false;     // codes and scales
};

// Where everything lies, one tensor behind the other.
class Layout {
 public:
  Layout(const Header& header, std::string where)
      : h_(header), where_(std::move(where)), at_(header.bytes) {
    header.version == 0 ? old_order() : new_order();
  }

  std::vector<Part> parts{};
  std::size_t end() const { return at_; }

 private:
  void add(std::string name, std::vector<std::size_t> shape,
           std::size_t heads = 0) {
    const std::size_t count = checked_elements(shape, where_);
    const bool coded = h_.group != 0 && shape.size() == 2;
    parts.push_back({.info = {.name = std::move(name),
                              .dtype = DType::kF32,
                              .shape = std::move(shape),
                              .bytes = checked_mul(count, 4, where_),
                              .file = fs::path(where_).filename().string()},
                     .begin = at_,
                     .heads = heads,
                     .coded = coded});
    if (!coded) {
      at_ = checked_add(at_, parts.back().info.bytes, where_);
      return;
    }
    if (count % h_.group != 0) {
      fail(ErrorCode::kCorruptFile, "{}: '{}' is not whole groups of {}",
           where_, parts.back().info.name, h_.group);
    }
    at_ = checked_add(at_, checked_add(count, count / h_.group * 4, where_),
                      where_);
  }
  void of_layers(const char* name, const std::vector<std::size_t>& shape,
                 std::size_t heads = 0) {
    for (std::size_t l = 0; l < h_.layers; ++l) {
      add(formatted("model.layers.{}.{}.weight", l, name), shape, heads);
    }
  }
  void attention() {
    const std::size_t kv = h_.kv_heads * h_.head_dim();
    of_layers("self_attn.q_proj", {h_.dim, h_.dim}, h_.heads);
    of_layers("self_attn.k_proj", {kv, h_.dim}, h_.kv_heads);
    of_layers("self_attn.v_proj", {kv, h_.dim});
    of_layers("self_attn.o_proj", {h_.dim, h_.dim});
  }
  void mlp() {
    of_layers("mlp.gate_proj", {h_.ffn, h_.dim});
    of_layers("mlp.down_proj", {h_.dim, h_.ffn});
    of_layers("mlp.up_proj", {h_.ffn, h_.dim});
  }
  void head() {
    if (!h_.shared_head) add("lm_head.weight", {h_.vocabulary, h_.dim});
  }
  void old_order() {
    add("model.embed_tokens.weight", {h_.vocabulary, h_.dim});
    of_layers("input_layernorm", {h_.dim});
    attention();
    of_layers("post_attention_layernorm", {h_.dim});
    mlp();
    add("model.norm.weight", {h_.dim});
    // Two tables of cosines and sines.
    at_ = checked_add(at_, checked_mul(h_.positions, h_.head_dim() * 4, where_),
                      where_);
    head();
  }
  void new_order() {
    of_layers("input_layernorm", {h_.dim});
    of_layers("post_attention_layernorm", {h_.dim});
    add("model.norm.weight", {h_.dim});
    add("model.embed_tokens.weight", {h_.vocabulary, h_.dim});
    attention();
    mlp();
    head();
  }

  const Header& h_;
  std::string where_;
  std::size_t at_;
};

TensorBytes owned(std::vector<std::byte> bytes) {
  auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  return {*owner, owner};
}

class Llama2cReader : public TensorReader {
 public:
  Llama2cReader(TensorBytes file, std::vector<Part> parts, std::size_t group)
      : file_(std::move(file)), parts_(std::move(parts)), group_(group) {
    std::ranges::sort(parts_, {}, [](const Part& p) { return p.info.name; });
    for (const Part& part : parts_) infos_.push_back(part.info);
  }

  std::span<const TensorInfo> tensors() const override { return infos_; }
  const std::map<std::string, std::string>& metadata() const override {
    return metadata_;
  }
  TensorBytes read(const TensorInfo& info) const override {
    const auto index =
        static_cast<std::size_t>(&require(info.name) - infos_.data());
    const Part& part = parts_[index];
    TensorBytes bytes = part.coded
                            ? owned(decoded(part))
                            : mapped_part(file_, part.begin, part.info.bytes);
    if (part.heads == 0) return bytes;
    const std::size_t rows = part.info.shape[0];
    return owned(turn_head_rows(bytes.bytes, rows, part.heads, false));
  }

 private:
  std::vector<std::byte> decoded(const Part& part) const {
    const std::size_t count = part.info.bytes / 4;
    const TensorBytes stored =
        mapped_part(file_, part.begin, count + count / group_ * 4);
    std::vector<std::byte> out(part.info.bytes);
    for (std::size_t i = 0; i < count; ++i) {
      const auto code = number_at<std::int8_t>(stored.bytes, i);
      const auto scale = number_at<float>(stored.bytes, count + i / group_ * 4);
      const float value = static_cast<float>(code) * scale;
      std::memcpy(out.data() + i * 4, &value, sizeof value);
    }
    return out;
  }

  TensorBytes file_;
  std::vector<Part> parts_;  // by name
  std::size_t group_;
  std::vector<TensorInfo> infos_{};
  std::map<std::string, std::string> metadata_{};
};

std::string config_of(const Header& h) {
  const nlohmann::ordered_json config{{"architectures", {"LlamaForCausalLM"}},
                                      {"model_type", "llama"},
                                      {"hidden_size", h.dim},
                                      {"intermediate_size", h.ffn},
                                      {"num_hidden_layers", h.layers},
                                      {"num_attention_heads", h.heads},
                                      {"num_key_value_heads", h.kv_heads},
                                      {"vocab_size", h.vocabulary},
                                      {"max_position_embeddings", h.positions},
                                      {"rms_norm_eps", 1e-5},
                                      {"rope_theta", 10000.0},
                                      {"hidden_act", "silu"},
                                      {"tie_word_embeddings", h.shared_head},
                                      {"attention_bias", false},
                                      {"mlp_bias", false},
                                      {"bos_token_id", 1},
                                      {"eos_token_id", 2},
                                      {"torch_dtype", "float32"}};
  return config.dump(2) + "\n";
}

}  // namespace

bool is_llama2c_file(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return false;  // a pipe would wait
  std::array<char, kOldHeaderBytes> head{};
  std::ifstream stream(path, std::ios::binary);
  stream.read(head.data(), head.size());
  if (stream.gcount() < static_cast<std::streamsize>(head.size())) return false;
  const auto octets = std::as_bytes(std::span(head));
  Header header;
  return has_magic(octets) ||
         (path.extension() == ".bin" && read_sizes(octets, 0, header));
}

Llama2cModel read_llama2c(TensorBytes file, const std::string& where) {
  const Header header = read_header(file.bytes, where);
  // Every layer has more octets than this, so that a few octets cannot ask for
  // a list of many.
  if (header.layers > file.bytes.size() / (4 * header.dim)) {
    fail(ErrorCode::kCorruptFile, "{}: {} octets cannot hold {} layers", where,
         file.bytes.size(), header.layers);
  }
  Layout layout(header, where);
  if (layout.end() != file.bytes.size()) {
    fail(ErrorCode::kCorruptFile,
         "{}: a llama2.c checkpoint of these sizes has {} octets, the file {}",
         where, layout.end(), file.bytes.size());
  }
  return {std::make_unique<Llama2cReader>(
              std::move(file), std::move(layout.parts), header.group),
          config_of(header)};
}

Llama2cModel open_llama2c(const fs::path& path) {
  return read_llama2c(map_file(path), path.string());
}

}  // namespace llmpress
