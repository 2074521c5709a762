#include "formats/tokenizer_config.h"

#include <algorithm>
#include <array>
#include <charconv>

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

}  // namespace

TokenizerConfig read_tokenizer_config(std::string_view json,
                                      const std::string& origin) {
  TokenizerConfig config{.origin = origin};
  if (json.empty()) return config;
  const JsonDocument document(json, origin);
  const JsonView root = document.root();
  if (const auto add = root.find("add_bos_token"))
    config.add_bos = add->boolean();
  config.bos = token_text(root, "bos_token");
  config.eos = token_text(root, "eos_token");
  config.legacy = root.bool_or("legacy", true);
  constexpr std::array<std::string_view, 5> kOthers{
      "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"};
  for (const std::string_view name : kOthers) {
    if (auto text = token_text(root, name)) config.special.push_back(*text);
  }
  if (const auto more = root.find("additional_special_tokens")) {
    for (const JsonView& token : more->items()) {
      config.special.push_back(token.is_object() ? token.at("content").text()
                                                 : token.text());
    }
  }
  if (const auto added = root.find("added_tokens_decoder")) {
    for (const auto& [key, entry] : added->members()) {
      config.added.push_back(read_added_token(entry, id_of_key(key, entry)));
    }
  }
  return config;
}

void merge_added_tokens(std::vector<AddedToken>& tokens,
                        const TokenizerConfig& config) {
  for (const AddedToken& token : config.added) {
    const auto same = std::find_if(
        tokens.begin(), tokens.end(),
        [&](const AddedToken& own) { return own.content == token.content; });
    if (same == tokens.end()) {
      tokens.push_back(token);
      continue;
    }
    const TokenId id = same->id;  // the tokenizer's own id counts
    *same = token;
    same->id = id;
  }
}

}  // namespace llmpress
