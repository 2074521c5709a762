#include "formats/checkpoints/tied_head.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

using Json = nlohmann::ordered_json;

// What the two are called in a checkpoint whose blocks are called so.
struct Names {
  std::string_view blocks, embedding, head;
};
constexpr std::array kNames{
    Names{"model.layers.", "model.embed_tokens", "lm_head"},
    Names{"model.decoder.layers.", "model.decoder.embed_tokens", "lm_head"},
    Names{"transformer.h.", "transformer.wte", "lm_head"},
    Names{"transformer.h.", "transformer.word_embeddings", "lm_head"},
    Names{"gpt_neox.layers.", "gpt_neox.embed_in", "embed_out"},
    Names{"backbone.layers.", "backbone.embeddings", "lm_head"},
};

bool any_under(const TensorReader& reader, std::string_view prefix) {
  const auto all = reader.tensors();
  const auto at =
      std::lower_bound(all.begin(), all.end(), prefix,
                       [](const TensorInfo& info, std::string_view p) {
                         return std::string_view(info.name) < p;
                       });
  return at != all.end() && at->name.starts_with(prefix);
}

// Of names that fit the blocks those whose embedding is stored, else the first.
const Names* find_names(const TensorReader& reader) {
  const Names* found = nullptr;
  for (const Names& names : kNames) {
    if (!any_under(reader, names.blocks)) continue;
    if (any_under(reader, std::string(names.embedding) + ".")) return &names;
    if (found == nullptr) found = &names;
  }
  return found;
}

// The tensors of `module`, by what follows its name.
std::vector<std::pair<std::string, const TensorInfo*>> parts_of(
    const TensorReader& reader, std::string_view module) {
  std::vector<std::pair<std::string, const TensorInfo*>> parts;
  const std::string prefix = std::string(module) + ".";
  for (const TensorInfo& info : reader.tensors()) {
    if (info.name.starts_with(prefix) && info.name != prefix + "bias") {
      parts.emplace_back(info.name.substr(module.size()), &info);
    }
  }
  return parts;
}

enum class Pair { kSame, kDifferent, kOtherForms };

Pair compare(const TensorReader& reader, const Names& names) {
  const auto head = parts_of(reader, names.head);
  const auto embedding = parts_of(reader, names.embedding);
  bool same = head.size() == embedding.size();
  for (std::size_t i = 0; same && i < head.size(); ++i) {
    const TensorInfo& a = *head[i].second;
    const TensorInfo& b = *embedding[i].second;
    const bool comparable =
        head[i].first == embedding[i].first && a.shape == b.shape &&
        (a.dtype == b.dtype ||
         (is_plain_float(a.dtype) && is_plain_float(b.dtype)));
    same = comparable && same_values(reader, a, b);
  }
  if (same) return Pair::kSame;
  const auto plain = [](const auto& parts) {
    return parts.size() == 1 && is_plain_float(parts[0].second->dtype);
  };
  return plain(head) && plain(embedding) ? Pair::kDifferent : Pair::kOtherForms;
}

// The head's tensors under the embedding's name.
class HeadAsEmbedding : public TensorReader {
 public:
  HeadAsEmbedding(std::unique_ptr<TensorReader> base, const Names& names)
      : base_(std::move(base)), names_(names) {
    const std::string prefix = std::string(names.head) + ".";
    for (TensorInfo info : base_->tensors()) {
      if (info.name.starts_with(prefix)) {
        info.name =
            std::string(names.embedding) + info.name.substr(names.head.size());
      }
      infos_.push_back(std::move(info));
    }
    std::ranges::sort(infos_, {}, &TensorInfo::name);
  }

  std::span<const TensorInfo> tensors() const override { return infos_; }
  const std::map<std::string, std::string>& metadata() const override {
    return base_->metadata();
  }
  TensorBytes read(const TensorInfo& info) const override {
    const std::string prefix = std::string(names_.embedding) + ".";
    const std::string stored =
        info.name.starts_with(prefix)
            ? std::string(names_.head) +
                  info.name.substr(names_.embedding.size())
            : info.name;
    return base_->read(base_->require(stored));
  }

 private:
  std::unique_ptr<TensorReader> base_;
  const Names& names_;
  std::vector<TensorInfo> infos_{};
};

std::optional<bool> tie_of(const Json& config) {
  const auto at = config.find("tie_word_embeddings");
  if (at == config.end() || !at->is_boolean()) return std::nullopt;
  return at->get<bool>();
}

}  // namespace

bool same_values(const TensorReader& reader, const TensorInfo& a,
                 const TensorInfo& b) {
  const TensorBytes x = reader.read(a), y = reader.read(b);
  if (a.dtype == b.dtype) return std::ranges::equal(x.bytes, y.bytes);
  constexpr std::size_t kChunk = 4096;
  const std::size_t count = checked_elements(a.shape, subject_of(a));
  std::vector<float> u(kChunk), v(kChunk);
  for (std::size_t at = 0; at < count; at += kChunk) {
    const std::size_t n = std::min(kChunk, count - at);
    const auto decode = [&](const TensorInfo& info, const TensorBytes& from,
                            std::vector<float>& to) {
      to.resize(n);
      decode_floats(
          info.dtype,
          from.bytes.subspan(bytes_of(info.dtype, at), bytes_of(info.dtype, n)),
          to);
    };
    decode(a, x, u);
    decode(b, y, v);
    if (u != v) return false;
  }
  return true;
}

void resolve_tied_head(std::unique_ptr<TensorReader>& reader,
                       std::string& config_json,
                       std::vector<std::string>& notes,
                       const std::string& where) {
  const Names* const names = find_names(*reader);
  if (names == nullptr) return;
  Json config = Json::parse(config_json);
  const std::optional<bool> tie = tie_of(config);
  const bool head = !parts_of(*reader, names->head).empty();
  const bool embedding = !parts_of(*reader, names->embedding).empty();
  if (!head || tie == false) return;
  const std::string pair =
      formatted("{} and {}", names->embedding, names->head);
  if (!embedding) {
    if (tie != true) return;
    notes.push_back(
        formatted("{}: tie_word_embeddings is true and only '{}' is stored; it "
                  "is the embedding too",
                  where, names->head));
    reader = std::make_unique<HeadAsEmbedding>(std::move(reader), *names);
    return;
  }
  const Pair found = compare(*reader, *names);
  if (found == Pair::kSame || (found == Pair::kOtherForms && !tie)) return;
  if (found == Pair::kOtherForms) {
    fail(ErrorCode::kUnsupported,
         "{}: tie_word_embeddings is true, but {} are stored in different "
         "forms; write tie_word_embeddings: false if the head has weights of "
         "its own, or take its tensors out",
         where, pair);
  }
  config["tie_word_embeddings"] = false;
  config_json = config.dump(2);
  if (!tie) return;
  notes.push_back(where + ": tie_word_embeddings is true, but " + pair +
                  " are both stored and differ; they are not tied");
}

}  // namespace llmpress
