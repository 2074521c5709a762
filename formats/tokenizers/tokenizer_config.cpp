#include "formats/tokenizers/tokenizer_config.h"

#include <algorithm>
#include <charconv>
#include <unordered_map>
#include <unordered_set>

namespace llmpress {
namespace {

// "bos_token": "<s>", or {"content": "<s>", ...}, or null.
std::optional<std::string> token_text(const JsonView& root,
                                      std::string_view name) {
  const auto view = root.find(name);
  if (!view) return std::nullopt;
  const std::string text =
      view->is_object() ? view->at("content").text() : view->text();
  if (text.empty()) return std::nullopt;
  return text;
}

TokenId id_of_key(const std::string& key, const JsonView& entry) {
  TokenId id = 0;
  const char* const end = key.data() + key.size();
  const auto [stop, error] = std::from_chars(key.data(), end, id);
  if (error != std::errc{} || stop != end || id > kLargestTokenId) {
    entry.corrupt("the key is not a token id");
  }
  return id;
}

std::string text_of(const JsonView& token) {
  return token.is_object() ? token.at("content").text() : token.text();
}

// Which tokens are named, by either file; a later one counts.
void read_named_tokens(const JsonView& root, TokenizerConfig& config) {
  if (root.find("bos_token")) config.bos = token_text(root, "bos_token");
  if (root.find("eos_token")) config.eos = token_text(root, "eos_token");
  for (const auto& [key, value] : root.members()) {
    // "pad_token", and of models with pictures "image_token" and the like.
    if (!key.ends_with("_token") || key == "bos_token" || key == "eos_token") {
      continue;
    }
    if (!value.is_string() && !value.is_object()) continue;
    if (const auto text = token_text(root, key)) {
      config.special.push_back(*text);
    }
  }
  for (const char* list :
       {"additional_special_tokens", "extra_special_tokens"}) {
    const auto more = root.find(list);
    if (!more) continue;
    if (more->is_object()) {
      for (const auto& [key, token] : more->members()) {
        config.special.push_back(text_of(token));
      }
    } else {
      for (const JsonView& token : more->items()) {
        config.special.push_back(text_of(token));
      }
    }
  }
}

// {"<|im_start|>": 32000, ...}
void read_added_tokens(const JsonView& root, TokenizerConfig& config) {
  const std::unordered_set<std::string> named(config.special.begin(),
                                              config.special.end());
  for (const auto& [content, id] : root.members()) {
    check_added_token(content, id);
    const bool special = content == config.bos || content == config.eos ||
                         named.contains(content);
    config.added.push_back(
        {.id = static_cast<TokenId>(id.natural(kLargestTokenId)),
         .content = content,
         .normalized = !special,
         .special = special});
  }
}

}  // namespace

TokenizerConfig read_tokenizer_config(const TokenizerSideFiles& files,
                                      const std::string& folder) {
  const auto named = [&](const char* name) {
    return folder.empty() ? name : folder + "/" + name;
  };
  TokenizerConfig config{.origin = named("tokenizer_config.json")};
  if (!files.config.empty()) {
    const JsonDocument document(files.config, config.origin);
    const JsonView root = document.root();
    if (const auto add = root.find("add_bos_token")) {
      config.add_bos = add->boolean();
    }
    config.legacy = root.bool_or("legacy", true);
    read_named_tokens(root, config);
    if (const auto added = root.find("added_tokens_decoder")) {
      for (const auto& [key, entry] : added->members()) {
        config.added.push_back(read_added_token(entry, id_of_key(key, entry)));
      }
      return config;
    }
  }
  if (!files.special_tokens.empty()) {
    const JsonDocument document(files.special_tokens,
                                named("special_tokens_map.json"));
    read_named_tokens(document.root(), config);
  }
  if (!files.added_tokens.empty()) {
    const JsonDocument document(files.added_tokens, named("added_tokens.json"));
    read_added_tokens(document.root(), config);
  }
  return config;
}

void merge_added_tokens(std::vector<AddedToken>& tokens,
                        const TokenizerConfig& config) {
  std::unordered_map<std::string, std::size_t> index;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    index.emplace(tokens[i].content, i);
  }
  for (const AddedToken& token : config.added) {
    const auto same = index.find(token.content);
    if (same == index.end()) {
      index.emplace(token.content, tokens.size());
      tokens.push_back(token);
      continue;
    }
    AddedToken& own = tokens[same->second];
    const TokenId id = own.id;  // the tokenizer's own id counts
    own = token;
    own.id = id;
  }
}

}  // namespace llmpress
