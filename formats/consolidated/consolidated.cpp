#include "formats/consolidated/consolidated.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/consolidated/params_json.h"
#include "formats/containers/sharded.h"
#include "formats/containers/torch_file.h"
#include "formats/containers/typed_tensors.h"
#include "formats/files/mapped_file.h"
#include "formats/gguf/gguf_change.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kParams = "params.json";

// Of which the parts have some each.
enum class Split { kNone, kRows, kColumns, kEither };
enum class Heads { kNone, kQueries, kKeys };

struct Place {
  std::string_view theirs, ours;  // without the block's number
  Split split = Split::kNone;
  Heads heads = Heads::kNone;
};
constexpr std::array kEnds{
    Place{"tok_embeddings.weight", "model.embed_tokens.weight", Split::kEither},
    Place{"norm.weight", "model.norm.weight"},
    Place{"output.weight", "lm_head.weight", Split::kRows}};
constexpr std::array kBlock{
    Place{"attention_norm.weight", "input_layernorm.weight"},
    Place{"ffn_norm.weight", "post_attention_layernorm.weight"},
    Place{"attention.wq.weight", "self_attn.q_proj.weight", Split::kRows,
          Heads::kQueries},
    Place{"attention.wk.weight", "self_attn.k_proj.weight", Split::kRows,
          Heads::kKeys},
    Place{"attention.wv.weight", "self_attn.v_proj.weight", Split::kRows},
    Place{"attention.wo.weight", "self_attn.o_proj.weight", Split::kColumns},
    Place{"feed_forward.w1.weight", "mlp.gate_proj.weight", Split::kRows},
    Place{"feed_forward.w2.weight", "mlp.down_proj.weight", Split::kColumns},
    Place{"feed_forward.w3.weight", "mlp.up_proj.weight", Split::kRows},
    Place{"feed_forward.gate.weight", "block_sparse_moe.gate.weight"}};
// Behind the expert's number.
constexpr std::array kExpert{Place{"w1.weight", "w1.weight", Split::kRows},
                             Place{"w2.weight", "w2.weight", Split::kColumns},
                             Place{"w3.weight", "w3.weight", Split::kRows}};

// The digits in front of a dot, taken away with it; empty: none.
std::string_view take_number(std::string_view& name) {
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos || dot == 0 ||
      name.find_first_not_of("0123456789") != dot) {
    return {};
  }
  const std::string_view number = name.substr(0, dot);
  name.remove_prefix(dot + 1);
  return number;
}

bool take_prefix(std::string_view& name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return false;
  name.remove_prefix(prefix.size());
  return true;
}

struct Translated {
  std::string name{};
  Split split = Split::kNone;
  Heads heads = Heads::kNone;
};

std::optional<Translated> find_place(std::span<const Place> places,
                                     std::string_view name,
                                     const std::string& prefix) {
  for (const Place& place : places) {
    if (place.theirs != name) continue;
    return Translated{prefix + std::string(place.ours), place.split,
                      place.heads};
  }
  return std::nullopt;
}

std::optional<Translated> translate(std::string_view name) {
  if (!take_prefix(name, "layers.")) return find_place(kEnds, name, "");
  const std::string_view block = take_number(name);
  if (block.empty()) return std::nullopt;
  const std::string prefix = "model.layers." + std::string(block) + ".";
  if (!take_prefix(name, "feed_forward.experts.")) {
    return find_place(kBlock, name, prefix);
  }
  const std::string_view expert = take_number(name);
  if (expert.empty()) return std::nullopt;
  return find_place(
      kExpert, name,
      prefix + "block_sparse_moe.experts." + std::string(expert) + ".");
}

struct Tensor {
  TensorInfo info{};  // under its name here
  std::vector<const TensorInfo*>
      parts{};            // of each file; one if they are alike
  bool columns = false;   // how parts stand side by side
  std::size_t heads = 0;  // whose rows change places
};

TensorBytes owned(std::vector<std::byte> bytes) {
  auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  return {*owner, owner};
}

using Readers = std::vector<std::unique_ptr<TensorReader>>;

class ConsolidatedReader : public TensorReader {
 public:
  ConsolidatedReader(Readers files, const ConsolidatedParams& params)
      : files_(std::move(files)) {
    for (const TensorInfo& info : files_[0]->tensors()) {
      if (info.name.ends_with("rope.freqs")) continue;
      const auto place = translate(info.name);
      if (!place) {
        fail(ErrorCode::kUnsupported,
             "{}: is no part of a Llama, Mistral or Mixtral that is known",
             subject_of(info));
      }
      add(info, *place, params);
    }
    std::ranges::sort(tensors_, {},
                      [](const Tensor& t) { return t.info.name; });
    for (const Tensor& t : tensors_) infos_.push_back(t.info);
    check_others();
  }

  std::span<const TensorInfo> tensors() const override { return infos_; }
  const std::map<std::string, std::string>& metadata() const override {
    return metadata_;
  }
  TensorBytes read(const TensorInfo& info) const override {
    const auto index =
        static_cast<std::size_t>(&require(info.name) - infos_.data());
    const Tensor& tensor = tensors_[index];
    TensorBytes bytes = tensor.parts.size() == 1
                            ? files_[0]->read(*tensor.parts[0])
                            : owned(joined(tensor));
    if (tensor.heads == 0) return bytes;
    const std::size_t rows = tensor.info.shape[0];
    return owned(turn_head_rows(bytes.bytes, rows, tensor.heads, false));
  }

 private:
  void add(const TensorInfo& info, const Translated& place,
           const ConsolidatedParams& params) {
    Tensor tensor{.info = info, .parts = {&info}};
    tensor.info.name = place.name;
    if (place.split != Split::kNone && files_.size() > 1) {
      join(info, place.split, params.hidden, tensor);
    }
    if (place.heads != Heads::kNone) {
      tensor.heads =
          place.heads == Heads::kQueries ? params.heads : params.kv_heads;
      const auto& shape = tensor.info.shape;
      if (shape.size() != 2 || shape[0] == 0 ||
          shape[0] % (2 * tensor.heads) != 0) {
        fail(ErrorCode::kInvalidInput, "{}: has shape {}, wanted {} heads",
             subject_of(info), shape_text(shape), tensor.heads);
      }
    }
    tensors_.push_back(std::move(tensor));
  }

  // The whole of which `info` is the first part.
  void join(const TensorInfo& info, Split split, std::size_t hidden,
            Tensor& tensor) const {
    if (info.shape.size() != 2) {
      fail(ErrorCode::kInvalidInput, "{}: has shape {}, wanted 2 dimensions",
           subject_of(info), shape_text(info.shape));
    }
    // Llama 3 cuts its embedding between tokens, those before it within.
    tensor.columns = split == Split::kColumns ||
                     (split == Split::kEither && info.shape[1] != hidden);
    for (std::size_t f = 1; f < files_.size(); ++f) {
      const TensorInfo* const part = files_[f]->find(info.name);
      if (part == nullptr || part->shape != info.shape ||
          part->dtype != info.dtype) {
        fail(ErrorCode::kCorruptFile,
             "{}: its part in {} is missing or of another shape or type",
             subject_of(info), file_name(f));
      }
      tensor.parts.push_back(part);
    }
    std::size_t& cut = tensor.info.shape[tensor.columns ? 1 : 0];
    cut = checked_mul(cut, files_.size(), subject_of(info));
    tensor.info.bytes =
        checked_mul(info.bytes, files_.size(), subject_of(info));
  }

  std::string file_name(std::size_t f) const {
    const auto tensors = files_[f]->tensors();
    return tensors.empty() ? formatted("file {}", f) : tensors[0].file;
  }

  void check_others() const {
    for (std::size_t f = 1; f < files_.size(); ++f) {
      for (const TensorInfo& info : files_[f]->tensors()) {
        if (files_[0]->find(info.name) != nullptr) continue;
        fail(ErrorCode::kCorruptFile, "{}: is not in {}", subject_of(info),
             file_name(0));
      }
    }
  }

  std::vector<std::byte> joined(const Tensor& tensor) const {
    std::vector<std::byte> whole(tensor.info.bytes);
    const std::size_t files = tensor.parts.size();
    // Rows one behind the other are one long row.
    const std::size_t rows = tensor.columns ? tensor.info.shape[0] : 1;
    for (std::size_t f = 0; f < files && rows != 0; ++f) {
      const TensorBytes part = files_[f]->read(*tensor.parts[f]);
      const std::size_t row_bytes = part.bytes.size() / rows;
      for (std::size_t r = 0; r < rows && row_bytes != 0; ++r) {
        std::memcpy(whole.data() + (r * files + f) * row_bytes,
                    part.bytes.data() + r * row_bytes, row_bytes);
      }
    }
    return whole;
  }

  Readers files_;
  std::vector<Tensor> tensors_{};  // by name
  std::vector<TensorInfo> infos_{};
  std::map<std::string, std::string> metadata_{};
};

Readers open_files(const fs::path& folder) {
  Readers files;
  const fs::path single = folder / "consolidated.safetensors";
  const fs::path index = folder / "consolidated.safetensors.index.json";
  if (path_exists(single)) {
    files.push_back(open_tensor_file(single));
  } else if (path_exists(index)) {
    files.push_back(open_sharded(index));
  } else {
    for (std::size_t f = 0;; ++f) {
      const fs::path part = folder / formatted("consolidated.{:02}.pth", f);
      if (!path_exists(part)) break;
      files.push_back(open_torch_file(part));
    }
  }
  if (files.empty()) {
    fail(ErrorCode::kIo,
         "{}: has {}, but neither config.json nor consolidated.safetensors, "
         "consolidated.safetensors.index.json or consolidated.00.pth",
         folder, kParams);
  }
  return files;
}

// Files after a gap would be left out.
void check_parts(const fs::path& folder, std::size_t count) {
  std::error_code ignored;
  std::size_t found = 0;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("consolidated.") && name.ends_with(".pth")) ++found;
  }
  if (found <= count) return;
  fail(ErrorCode::kInvalidInput,
       "{}: holds {} files consolidated.*.pth, but consolidated.{:02}.pth is "
       "missing",
       folder, found, count);
}

ConsolidatedTensors look_at(const Readers& files, const fs::path& folder) {
  const TensorInfo* const embedding = files[0]->find("tok_embeddings.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    fail(ErrorCode::kInvalidInput,
         "{}: tensor 'tok_embeddings.weight' is missing or no matrix", folder);
  }
  return {.rows = embedding->shape[0],
          .columns = embedding->shape[1],
          .parts = files.size(),
          .dtype = embedding->dtype,
          .has_head = files[0]->find("output.weight") != nullptr};
}

}  // namespace

bool is_consolidated(const fs::path& folder) {
  return path_exists(folder / kParams) && !path_exists(folder / "config.json");
}

DescribedTensors open_consolidated(const fs::path& folder) {
  Readers files = open_files(folder);
  const bool parts = path_exists(folder / "consolidated.00.pth") &&
                     !path_exists(folder / "consolidated.safetensors");
  if (parts) check_parts(folder, files.size());
  const fs::path place = folder / kParams;
  const std::string text = read_file(place);
  ConsolidatedParams params =
      read_params_json(text, look_at(files, folder), place.string());
  auto reader = std::make_unique<ConsolidatedReader>(std::move(files), params);
  return {std::move(reader), std::move(params.config_json)};
}

}  // namespace llmpress
