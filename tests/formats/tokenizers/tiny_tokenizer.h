// Hand-made tokenizer.json files for the tests of tokenizers.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "compress/core/formatted.h"
#include "formats/tokenizers/token_decoder.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress::testing {

inline constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Ids 0..255 are the bytes; `merges` get the ids from 256 on.
inline nlohmann::json byte_level_tokenizer(
    const std::vector<std::pair<std::string, std::string>>& merges) {
  nlohmann::json vocab;
  for (int b = 0; b < 256; ++b) {
    std::string token;
    append_utf8(token, byte_level_character(static_cast<unsigned char>(b)));
    vocab[token] = b;
  }
  auto list = nlohmann::json::array();
  for (const auto& [left, right] : merges) {
    vocab[left + right] = vocab.size();
    list.push_back(left + " " + right);
  }
  return {{"added_tokens", nlohmann::json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", list}}}};
}

// "pre_tokenizer" of Llama-3's kind.
inline nlohmann::json split_then_bytes(const std::string& pattern) {
  return {{"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"},
             {"pattern", {{"Regex", pattern}}},
             {"behavior", "Isolated"},
             {"invert", false}},
            {{"type", "ByteLevel"},
             {"add_prefix_space", false},
             {"use_regex", false}}}}};
}

inline nlohmann::json special_token(const std::string& content, int id) {
  return {{"id", id},        {"content", content}, {"single_word", false},
          {"lstrip", false}, {"rstrip", false},    {"normalized", false},
          {"special", true}};
}

// Llama-2's kind: <unk> 0, <s> 1, </s> 2, the bytes from 3, then U+2581 259,
// a 260, b 261, c 262, the merges from 263 on.
inline nlohmann::json metaspace_tokenizer(
    const std::vector<std::pair<std::string, std::string>>& merges) {
  nlohmann::json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  constexpr const char* kDigits = "0123456789ABCDEF";
  for (std::size_t b = 0; b < 256; ++b) {
    vocab[formatted("<0x{}{}>", kDigits[b / 16], kDigits[b % 16])] = b + 3;
  }
  for (const char* character : {"▁", "a", "b", "c"}) {
    vocab[character] = vocab.size();
  }
  auto list = nlohmann::json::array();
  for (const auto& [left, right] : merges) {
    vocab[left + right] = vocab.size();
    list.push_back({left, right});
  }
  return {
      {"added_tokens",
       {special_token("<unk>", 0), special_token("<s>", 1),
        special_token("</s>", 2)}},
      {"normalizer",
       {{"type", "Sequence"},
        {"normalizers",
         {{{"type", "Prepend"}, {"prepend", "▁"}},
          {{"type", "Replace"},
           {"pattern", {{"String", " "}}},
           {"content", "▁"}}}}}},
      {"pre_tokenizer", nullptr},
      {"post_processor", nullptr},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders",
         {{{"type", "Replace"},
           {"pattern", {{"String", "▁"}}},
           {"content", " "}},
          {{"type", "ByteFallback"}},
          {{"type", "Fuse"}},
          {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"vocab", vocab},
        {"merges", list}}}};
}

}  // namespace llmpress::testing
