#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "formats/gguf/gguf_tokenizer.h"

namespace llmpress {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kGpt2 =
    R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})";
constexpr std::string_view kDigitsThenGpt2 =
    R"({"type": "Sequence", "pretokenizers": [
      {"type": "Digits", "individual_digits": true},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]})";
constexpr std::string_view kLlama3 =
    R"x({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
       "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})x";
constexpr std::string_view kQwen2 =
    R"x({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
       "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})x";
constexpr std::string_view kQwen35 =
    R"x({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
       "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})x";
constexpr std::string_view kTekken =
    R"x({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
       "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})x";
constexpr std::string_view kGpt4o =
    R"x({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
       "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})x";
// What llama.cpp takes where a file does not say.
constexpr std::string_view kDefault =
    R"x({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "[\\p{P}\\$\\+<=>\\^~\\|]+"},
       "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex": "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"},
       "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex": "\\p{N}+"},
       "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"},
       "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})x";

// The first row of a kind is the one that is written.
constexpr std::array kRows{
    GgufPreTokenizer{"gpt-2", kGpt2},
    GgufPreTokenizer{"phi-2", kGpt2},
    GgufPreTokenizer{"olmo", kGpt2},
    GgufPreTokenizer{"mpt", kGpt2},
    GgufPreTokenizer{"jais", kGpt2},
    GgufPreTokenizer{"exaone4", kGpt2},
    GgufPreTokenizer{"smollm", kDigitsThenGpt2},
    GgufPreTokenizer{"starcoder", kDigitsThenGpt2},
    GgufPreTokenizer{"refact", kDigitsThenGpt2},
    GgufPreTokenizer{"command-r", kDigitsThenGpt2},
    GgufPreTokenizer{"codeshell", kDigitsThenGpt2},
    GgufPreTokenizer{"exaone", kDigitsThenGpt2},
    GgufPreTokenizer{"llama-bpe", kLlama3, true},
    GgufPreTokenizer{"llama3", kLlama3, true},
    GgufPreTokenizer{"llama-v3", kLlama3, true},
    GgufPreTokenizer{"falcon3", kLlama3, true},
    GgufPreTokenizer{"pixtral", kLlama3, true},
    GgufPreTokenizer{"lfm2", kLlama3, true},
    GgufPreTokenizer{"dbrx", kLlama3},
    GgufPreTokenizer{"smaug-bpe", kLlama3},
    GgufPreTokenizer{"qwen2", kQwen2},
    GgufPreTokenizer{"stablelm2", kQwen2},
    GgufPreTokenizer{"deepseek-r1-qwen", kQwen2},
    GgufPreTokenizer{"megrez", kQwen2},
    GgufPreTokenizer{"qwen35", kQwen35},
    GgufPreTokenizer{"tekken", kTekken, true},
    GgufPreTokenizer{"gpt-4o", kGpt4o},
    GgufPreTokenizer{"llama4", kGpt4o},
    GgufPreTokenizer{"default", kDefault},
};

// Without what changes offsets only, with what is left out written.
Json normal(Json json) {
  if (!json.is_object()) return json;
  json.erase("trim_offsets");
  const std::string type = json.value("type", "");
  if (type == "ByteLevel") {
    if (!json.contains("use_regex")) json["use_regex"] = true;
    if (!json.contains("add_prefix_space")) json["add_prefix_space"] = true;
  }
  if (json.contains("pretokenizers") && json["pretokenizers"].is_array()) {
    Json steps = Json::array();
    for (const Json& step : json["pretokenizers"])
      steps.push_back(normal(step));
    if (steps.size() == 1) return steps[0];
    json["pretokenizers"] = std::move(steps);
  }
  return json;
}

}  // namespace

const GgufPreTokenizer* find_gguf_pre_tokenizer(std::string_view name) {
  const auto at = std::ranges::find(kRows, name, &GgufPreTokenizer::name);
  return at == kRows.end() ? nullptr : &*at;
}

const GgufPreTokenizer* find_gguf_pre_tokenizer_like(
    const std::string& tokenizer_json) {
  const Json root = Json::parse(tokenizer_json, nullptr, false);
  if (!root.is_object() || !root.contains("pre_tokenizer")) return nullptr;
  const Json own = normal(root["pre_tokenizer"]);
  const bool ignores = root.contains("model") && root["model"].is_object() &&
                       root["model"].value("ignore_merges", false);
  for (const GgufPreTokenizer& row : kRows) {
    if (row.ignore_merges == ignores &&
        normal(Json::parse(row.tokenizers)) == own) {
      return &row;
    }
  }
  return nullptr;
}

std::string list_gguf_pre_tokenizers() {
  std::string list;
  for (const GgufPreTokenizer& row : kRows) {
    list += (list.empty() ? "" : ", ") + std::string(row.name);
  }
  return list;
}

}  // namespace llmpress
