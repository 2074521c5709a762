// Metadata to the files of a folder.
#include <nlohmann/json.hpp>
#include <optional>

#include "compress/core/formatted.h"
#include "compress/core/printable.h"
#include "formats/gguf/gguf_tokenizer.h"
#include "formats/tokenizers/sentencepiece_model.h"

namespace llmpress {
namespace {

using Json = nlohmann::ordered_json;

class TokenizerReading {
 public:
  explicit TokenizerReading(const GgufMetadata& metadata)
      : metadata_(metadata), tokens_(metadata.texts(key("tokens"))) {
    for (const double type : metadata.numbers(key("token_type"))) {
      if (!(type >= 1 && type <= 6)) {
        metadata_.invalid(key("token_type"), "numbers from 1 to 6");
      }
      types_.push_back(static_cast<PieceType>(static_cast<int>(type)));
    }
    if (types_.empty()) types_.assign(tokens_.size(), PieceType::kNormal);
    if (types_.size() != tokens_.size()) {
      metadata_.invalid(key("token_type"),
                        formatted("{} numbers, one a token", tokens_.size()));
    }
    if (tokens_.empty()) metadata_.invalid(key("tokens"), "strings");
    // What Rust's and C++'s readers of the files take for text.
    for (const std::string& token : tokens_) {
      if (token.empty()) metadata_.invalid(key("tokens"), "no empty string");
    }
  }

  std::string sentencepiece() const {
    SentencePieceModel model{.kind = SentencePieceKind::kBpe,
                             .remove_extra_whitespaces = false};
    const std::vector<double> scores = metadata_.numbers(key("scores"));
    if (scores.size() != tokens_.size()) {
      metadata_.invalid(key("scores"),
                        formatted("{} numbers, one a token", tokens_.size()));
    }
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      model.pieces.push_back({.text = tokens_[id],
                              .score = static_cast<float>(scores[id]),
                              .type = types_[id]});
      model.byte_fallback |= types_[id] == PieceType::kByte;
    }
    name_special(model.unknown, "unknown_token_id", PieceType::kUnknown);
    name_special(model.bos, "bos_token_id", PieceType::kControl);
    name_special(model.eos, "eos_token_id", PieceType::kControl);
    name_special(model.pad, "padding_token_id", PieceType::kControl);
    model.add_dummy_prefix =
        metadata_.flag(key("add_space_prefix")).value_or(true);
    model.remove_extra_whitespaces =
        metadata_.flag(key("remove_extra_whitespaces")).value_or(false);
    return write_sentencepiece_model(model);
  }

  std::string tokenizer_json(const GgufPreTokenizer& pre) const {
    Json vocabulary = Json::object(), added = Json::array();
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      if (types_[id] == PieceType::kNormal) {
        if (!vocabulary.emplace(tokens_[id], id).second) {
          metadata_.invalid(key("tokens"),
                            "no token '" + printable(tokens_[id]) + "' twice");
        }
        continue;
      }
      added.push_back({{"id", id},
                       {"content", tokens_[id]},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", types_[id] != PieceType::kUserDefined}});
    }
    Json merges = Json::array();
    for (const std::string& merge : metadata_.texts(key("merges"))) {
      merges.push_back(merge);
    }
    const Json byte_level{{"type", "ByteLevel"},
                          {"add_prefix_space", false},
                          {"trim_offsets", false},
                          {"use_regex", false}};
    Json root{{"version", "1.0"},
              {"added_tokens", std::move(added)},
              {"normalizer", nullptr},
              {"pre_tokenizer", Json::parse(pre.tokenizers)},
              {"post_processor", post_processor(byte_level)},
              {"decoder", byte_level},
              {"model",
               {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", nullptr},
                {"end_of_word_suffix", nullptr},
                {"fuse_unk", false},
                {"byte_fallback", false},
                {"ignore_merges", pre.ignore_merges},
                {"vocab", std::move(vocabulary)},
                {"merges", std::move(merges)}}}};
    return dumped(root);
  }

  std::string config(bool sentencepiece) const {
    Json json;
    if (const auto adds = adds_bos(sentencepiece))
      json["add_bos_token"] = *adds;
    if (const auto adds = metadata_.flag(key("add_eos_token"))) {
      json["add_eos_token"] = *adds;
    }
    for (const auto& [name, id] :
         {std::pair{"bos_token", "bos_token_id"},
          std::pair{"eos_token", "eos_token_id"},
          std::pair{"unk_token", "unknown_token_id"},
          std::pair{"pad_token", "padding_token_id"}}) {
      if (const std::string* const token = token_of(id)) json[name] = *token;
    }
    json["clean_up_tokenization_spaces"] = false;
    if (sentencepiece) {
      json["legacy"] = true;
      json["tokenizer_class"] = "LlamaTokenizer";
      json["added_tokens_decoder"] = added_tokens();
    } else {
      json["tokenizer_class"] = "PreTrainedTokenizerFast";
    }
    if (const auto chat = metadata_.text("tokenizer.chat_template")) {
      json["chat_template"] = *chat;
    }
    return dumped(json);
  }

  std::optional<bool> adds_bos(bool sentencepiece) const {
    if (const auto adds = metadata_.flag(key("add_bos_token"))) return adds;
    // What llama.cpp takes where a file does not say.
    const std::string pre = metadata_.text(key("pre")).value_or("default");
    const GgufPreTokenizer* const row = find_gguf_pre_tokenizer(pre);
    return sentencepiece ||
           (row != nullptr && row->ignore_merges && pre != "tekken");
  }

  static std::string key(std::string_view name) {
    return "tokenizer.ggml." + std::string(name);
  }

 private:
  static std::string dumped(const Json& json) {
    return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
  }

  const std::string* token_of(std::string_view id_key) const {
    const auto id = metadata_.size(key(id_key));
    // Some writers say "none" by the largest number.
    if (!id || *id >= tokens_.size()) return nullptr;
    return &tokens_[*id];
  }

  void name_special(std::string& name, std::string_view id_key,
                    PieceType type) const {
    if (const std::string* const token = token_of(id_key)) {
      name = *token;
      return;
    }
    if (type != PieceType::kUnknown) return;
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      if (types_[id] == type) name = tokens_[id];
    }
  }

  // Of tokens that are found in a text as they are.
  Json added_tokens() const {
    Json added = Json::object();
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      const bool control = types_[id] == PieceType::kControl ||
                           types_[id] == PieceType::kUnknown;
      if (!control && types_[id] != PieceType::kUserDefined) continue;
      added[formatted("{}", id)] = {
          {"content", tokens_[id]}, {"lstrip", false},
          {"normalized", false},    {"rstrip", false},
          {"single_word", false},   {"special", control}};
    }
    return added;
  }

  Json post_processor(const Json& byte_level) const {
    const std::string* const bos = token_of("bos_token_id");
    if (bos == nullptr || !adds_bos(false).value_or(false)) return byte_level;
    const auto special = [&](int type) -> Json {
      return {{"SpecialToken", {{"id", *bos}, {"type_id", type}}}};
    };
    const auto text = [](const char* id, int type) -> Json {
      return {{"Sequence", {{"id", id}, {"type_id", type}}}};
    };
    const std::size_t id = *metadata_.size(key("bos_token_id"));
    return {{"type", "TemplateProcessing"},
            {"single", {special(0), text("A", 0)}},
            {"pair", {special(0), text("A", 0), special(1), text("B", 1)}},
            {"special_tokens",
             {{*bos, {{"id", *bos}, {"ids", {id}}, {"tokens", {*bos}}}}}}};
  }

  const GgufMetadata& metadata_;
  std::span<const std::string> tokens_;
  std::vector<PieceType> types_{};
};

}  // namespace

std::map<std::string, std::string> gguf_tokenizer_files(
    const GgufMetadata& metadata) {
  const auto model = metadata.text("tokenizer.ggml.model");
  if (!model || model == kNoGgufTokenizer || model == "no_vocab") return {};
  if (*model == "llama") {
    const TokenizerReading reading(metadata);
    return {{"tokenizer.model", reading.sentencepiece()},
            {"tokenizer_config.json", reading.config(true)}};
  }
  if (*model != "gpt2") {
    fail(ErrorCode::kUnsupported,
         "{}: tokenizer '{}' is not read; this version knows llama "
         "(SentencePiece) and gpt2 (byte pairs)",
         metadata.origin(), *model);
  }
  const std::string pre =
      metadata.text("tokenizer.ggml.pre").value_or("default");
  const GgufPreTokenizer* const row = find_gguf_pre_tokenizer(pre);
  if (row == nullptr) {
    fail(ErrorCode::kUnsupported,
         "{}: the tokenizer cuts texts as '{}' does, which is not known; known "
         "are {}",
         metadata.origin(), pre, list_gguf_pre_tokenizers());
  }
  const TokenizerReading reading(metadata);
  return {{"tokenizer.json", reading.tokenizer_json(*row)},
          {"tokenizer_config.json", reading.config(false)}};
}

}  // namespace llmpress
