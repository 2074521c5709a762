// The files of a folder to metadata.
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/files/json_reader.h"
#include "formats/gguf/gguf_tokenizer.h"
#include "formats/tokenizers/sentencepiece_model.h"
#include "formats/tokenizers/tokenizer.h"
#include "formats/tokenizers/tokenizer_config.h"

namespace llmpress {
namespace {

using Files = std::map<std::string, std::string>;
using Json = nlohmann::ordered_json;

std::string content_of(const Files& files, const char* name) {
  const auto at = files.find(name);
  return at == files.end() ? std::string() : at->second;
}

// Tokens by id, with holes until pad().
struct TokenList {
  std::vector<std::string> tokens{};
  std::vector<float> scores{};
  std::vector<PieceType> types{};

  void put(std::size_t id, std::string text, float score, PieceType type) {
    if (id >= tokens.size()) resize(id + 1);
    tokens[id] = std::move(text);
    scores[id] = score;
    types[id] = type;
  }
  void resize(std::size_t size) {
    tokens.resize(size);
    scores.resize(size, -1000.0f);
    types.resize(size, PieceType::kUnused);
  }
  // Names for the ids that nothing has, as llama.cpp's converter gives them.
  void pad(std::size_t vocabulary) {
    if (tokens.size() < vocabulary) resize(vocabulary);
    for (std::size_t id = 0; id < tokens.size(); ++id) {
      if (tokens[id].empty()) tokens[id] = formatted("[PAD{}]", id);
    }
  }
};

void put_list(const TokenList& list, GgufMetadata& metadata) {
  metadata.set_array("tokenizer.ggml.tokens", list.tokens);
  std::vector<std::int32_t> types;
  for (const PieceType type : list.types) {
    types.push_back(static_cast<std::int32_t>(type));
  }
  metadata.set_array("tokenizer.ggml.token_type", std::move(types));
}

void put_added(const std::vector<AddedToken>& added, TokenList& list) {
  for (const AddedToken& token : added) {
    list.put(token.id, token.content, -1000.0f,
             token.special ? PieceType::kControl : PieceType::kUserDefined);
  }
}

std::optional<std::size_t> id_of(const TokenList& list,
                                 std::string_view token) {
  for (std::size_t id = 0; id < list.tokens.size(); ++id) {
    if (list.tokens[id] == token) return id;
  }
  return std::nullopt;
}

void put_special(const TokenList& list, const char* key,
                 const std::optional<std::string>& token,
                 GgufMetadata& metadata) {
  if (!token) return;
  if (const auto id = id_of(list, *token)) {
    metadata.set("tokenizer.ggml." + std::string(key),
                 static_cast<std::uint32_t>(*id));
  }
}

std::string named_token(const std::string& config, const char* key) {
  const Json json = Json::parse(config, nullptr, false);
  if (!json.is_object() || !json.contains(key)) return {};
  const Json& value = json[key];
  if (value.is_string()) return value.get<std::string>();
  return value.is_object() ? value.value("content", "") : std::string();
}

void put_chat_template(const Files& files, GgufMetadata& metadata) {
  std::string chat = content_of(files, "chat_template.jinja");
  const Json json =
      Json::parse(content_of(files, "tokenizer_config.json"), nullptr, false);
  if (chat.empty() && json.is_object() && json.contains("chat_template") &&
      json["chat_template"].is_string()) {
    chat = json["chat_template"].get<std::string>();
  }
  if (!chat.empty()) metadata.set("tokenizer.chat_template", chat);
}

void put_ends(const Files& files, const Tokenizer& tokenizer,
              const TokenList& list, GgufMetadata& metadata) {
  const std::string config = content_of(files, "tokenizer_config.json");
  if (tokenizer.bos_id) {
    metadata.set("tokenizer.ggml.bos_token_id", *tokenizer.bos_id);
  }
  if (tokenizer.eos_id) {
    metadata.set("tokenizer.ggml.eos_token_id", *tokenizer.eos_id);
  }
  for (const auto& [key, name] : {std::pair{"unknown_token_id", "unk_token"},
                                  std::pair{"padding_token_id", "pad_token"}}) {
    const std::string token = named_token(config, name);
    if (!token.empty()) put_special(list, key, token, metadata);
  }
  metadata.set("tokenizer.ggml.add_bos_token", tokenizer.adds_bos);
  metadata.set("tokenizer.ggml.add_eos_token", false);
}

void add_sentencepiece(const Files& files, std::size_t vocabulary,
                       GgufMetadata& metadata) {
  const std::string origin = "tokenizer.model";
  const SentencePieceModel model =
      parse_sentencepiece_model(content_of(files, "tokenizer.model"), origin);
  if (model.kind != SentencePieceKind::kBpe) {
    fail(ErrorCode::kUnsupported,
         "{}: is a unigram model, which is not written as GGUF", origin);
  }
  TokenList list;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    list.put(id, piece.text, piece.score, piece.type);
  }
  const TokenizerSideFiles beside{
      .config = content_of(files, "tokenizer_config.json"),
      .special_tokens = content_of(files, "special_tokens_map.json"),
      .added_tokens = content_of(files, "added_tokens.json")};
  for (const AddedToken& token : read_tokenizer_config(beside, "").added) {
    if (token.id < model.pieces.size()) continue;
    put_added({token}, list);
  }
  list.pad(vocabulary);
  const auto tokenizer = tokenizer_from_sentencepiece(
      content_of(files, "tokenizer.model"), beside, "");
  metadata.set("tokenizer.ggml.model", std::string("llama"));
  metadata.set("tokenizer.ggml.pre", std::string("default"));
  put_list(list, metadata);
  metadata.set_array("tokenizer.ggml.scores", list.scores);
  put_ends(files, *tokenizer, list, metadata);
  put_special(list, "unknown_token_id", model.unknown, metadata);
  metadata.set("tokenizer.ggml.add_space_prefix", model.add_dummy_prefix);
  metadata.set("tokenizer.ggml.remove_extra_whitespaces",
               model.remove_extra_whitespaces);
}

std::vector<std::string> merges_of(const JsonView& model) {
  std::vector<std::string> merges;
  for (const JsonView& merge : model.at("merges").items()) {
    if (merge.is_array()) {
      const auto items = merge.items();
      if (items.size() != 2) merge.corrupt("a merge has two tokens");
      merges.push_back(items[0].text() + " " + items[1].text());
    } else if (!merge.text().starts_with("#version")) {
      merges.push_back(merge.text());
    }
  }
  return merges;
}

void add_byte_pairs(const Files& files, std::size_t vocabulary,
                    GgufMetadata& metadata) {
  const std::string json = content_of(files, "tokenizer.json");
  const TokenizerSideFiles beside{
      .config = content_of(files, "tokenizer_config.json"),
      .special_tokens = content_of(files, "special_tokens_map.json"),
      .added_tokens = content_of(files, "added_tokens.json")};
  const auto tokenizer = tokenizer_from_json(json, beside, "");
  const GgufPreTokenizer* const pre = find_gguf_pre_tokenizer_like(json);
  if (tokenizer->kind != "bpe byte-level" || pre == nullptr) {
    fail(ErrorCode::kUnsupported,
         "tokenizer.json: cuts texts in a way that llama.cpp has no name for; "
         "known are {}{}",
         list_gguf_pre_tokenizers(),
         tokenizer->kind == "bpe metaspace"
             ? ", and SentencePiece with its tokenizer.model"
             : "");
  }
  const JsonDocument document(json, "tokenizer.json");
  if (const auto normalizer = document.root().find("normalizer")) {
    if (normalizer->text_or("type", "") != "NFC") {
      normalizer->unsupported("llama.cpp has no such step");
    }
  }
  TokenList list;
  const JsonView model = document.root().at("model");
  for (const auto& [token, id] : model.at("vocab").members()) {
    list.put(id.natural(kLargestTokenId), token, 0, PieceType::kNormal);
  }
  std::vector<AddedToken> added;
  if (const auto own = document.root().find("added_tokens")) {
    for (const JsonView& entry : own->items()) {
      added.push_back(read_added_token(
          entry,
          static_cast<TokenId>(entry.at("id").natural(kLargestTokenId))));
    }
  }
  merge_added_tokens(added, read_tokenizer_config(beside, ""));
  put_added(added, list);
  list.pad(vocabulary);
  metadata.set("tokenizer.ggml.model", std::string("gpt2"));
  metadata.set("tokenizer.ggml.pre", std::string(pre->name));
  put_list(list, metadata);
  metadata.set_array("tokenizer.ggml.merges", merges_of(model));
  put_ends(files, *tokenizer, list, metadata);
}

}  // namespace

void add_gguf_tokenizer(const Files& files, std::size_t vocabulary,
                        GgufMetadata& metadata) {
  if (!content_of(files, "tokenizer.model").empty()) {
    add_sentencepiece(files, vocabulary, metadata);
  } else if (!content_of(files, "tokenizer.json").empty()) {
    add_byte_pairs(files, vocabulary, metadata);
  } else {
    metadata.set("tokenizer.ggml.model", std::string(kNoGgufTokenizer));
    return;
  }
  put_chat_template(files, metadata);
}

}  // namespace llmpress
