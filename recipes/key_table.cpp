#include "recipes/key_table.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "compress/core/formatted.h"
#include "distill/distill_config.h"
#include "distill/train_config.h"
#include "distill/tune_config.h"
#include "pruning/prune_config.h"
#include "quantizers/method.h"
#include "recipes/yaml_tree.h"

namespace llmpress {
namespace {

// All but the settings of methods.
constexpr RecipeKey kKeys[] = {
    {"", "name"},
    {"", "description"},
    {"", "model"},
    {"", "calibration"},
    {"", "stages"},
    {"", "variants"},
    {"", "output"},
    {"", "evaluate"},
    {"", "report"},
    {"", "isa"},
    {"", "memory_limit"},
    {"", "scratch"},

    {"calibration", "text"},
    {"calibration", "samples"},
    {"calibration", "sequence_length"},
    {"calibration", "sampling"},
    {"calibration", "seed"},
    {"calibration", "experts"},
    {"calibration", "expert_min_tokens"},

    {"stage", "merge_lora"},
    {"stage", "prune"},
    {"stage", "smooth"},
    {"stage", "rotate"},
    {"stage", "inject_outliers"},
    {"stage", "quantize"},
    {"stage", "quantize_kv_cache"},
    {"stage", "train"},
    {"stage", "distill"},
    {"stage", "tune"},

    {"merge_lora", "adapter"},
    {"merge_lora", "scale"},

    {"prune", "method"},
    {"prune", "sparsity"},
    {"prune", "pattern"},
    {"prune", "targets"},
    {"prune", "ignore"},

    {"smooth", "method"},
    {"smooth", "weights"},

    {"rotate", "seed"},
    {"rotate", "online"},

    {"inject_outliers", "factor"},
    {"inject_outliers", "channels"},

    {"quantize", "method"},
    {"quantize", "scheme"},
    {"quantize", "weights"},
    {"quantize", "input"},
    {"quantize", "activations"},
    {"quantize", "targets"},
    {"quantize", "ignore"},
    {"quantize", "solver"},
    {"quantize", "importance"},
    {"quantize", "target_bits"},
    {"quantize", "target_bytes"},

    {"weights", "type"},
    {"weights", "bits"},
    {"weights", "group_size"},
    {"weights", "symmetric"},
    {"weights", "range"},
    {"weights", "mse_norm"},
    {"weights", "scale_dtype"},
    {"weights", "block_size"},
    {"weights", "double_quant"},

    {"input", "type"},
    {"input", "bits"},
    {"input", "range"},
    {"input", "dynamic"},
    {"input", "symmetric"},

    {"domain", "text"},
    {"domain", "held_out"},
    {"domain", "weight"},
    {"domain", "reference_loss"},

    {"train", "text"},
    {"train", "held_out"},
    {"train", "domains"},
    {"train", "domain_rate"},
    {"train", "learn"},
    {"train", "student"},
    {"train", "quantization_aware"},

    {"distill", "text"},
    {"distill", "held_out"},
    {"distill", "domains"},
    {"distill", "domain_rate"},
    {"distill", "teacher"},
    {"distill", "teacher_cache"},
    {"distill", "learn"},
    {"distill", "student"},
    {"distill", "quantization_aware"},

    {"tune", "text"},
    {"tune", "held_out"},
    {"tune", "targets"},
    {"tune", "ignore"},

    {"student", "every"},
    {"student", "config"},
    {"student", "seed"},

    {"quantization_aware", "learn_scales"},
    {"quantization_aware", "activations"},
    {"quantization_aware", "kv_cache"},

    {"variant", "name"},
    {"variant", "stages"},
    {"variant", "output"},

    {"output", "path"},
    {"output", "format"},
    {"output", "max_shard_size"},
    {"output", "incompatible"},

    {"evaluate", "text"},
    {"evaluate", "context"},
    {"evaluate", "protocol"},
    {"evaluate", "stride"},
    {"evaluate", "max_windows"},
    {"quantize_kv_cache", "type"},

    {"evaluate", "kv_cache"},
    {"evaluate", "activations"},

    {"kv_cache", "type"},
    {"kv_cache", "rotate_keys"},
};

std::vector<RecipeKey> make_table() {
  std::vector<RecipeKey> table(std::begin(kKeys), std::end(kKeys));
  for (const auto& setting : prune_settings()) {
    table.push_back({"prune", setting.key});
  }
  for (const auto& setting : train_settings()) {
    table.push_back({"train", setting.key});
    table.push_back({"distill", setting.key});
    table.push_back({"tune", setting.key});
  }
  for (const auto& setting : distill_settings()) {
    table.push_back({"distill", setting.key});
  }
  for (const auto& setting : tune_settings()) {
    table.push_back({"tune", setting.key});
  }
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (method.has_section()) table.push_back({"quantize", method.name});
    for (const auto& setting : method.settings) {
      table.push_back(
          {method.settings_in_stage ? "quantize" : method.name, setting.key});
      if (method.moves_scales()) {
        table.push_back({"smooth", setting.key});
      }
    }
  }
  return table;
}

// Levenshtein's distance with adjacent transpositions counted once.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before, previous(b.size() + 1);
  std::iota(previous.begin(), previous.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::vector<std::size_t> row(b.size() + 1, i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = previous[j - 1] + (a[i - 1] != b[j - 1]);
      row[j] = std::min({change, previous[j] + 1, row[j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    before = std::exchange(previous, std::move(row));
  }
  return previous.back();
}

std::string section_in_words(std::string_view section) {
  if (section.empty()) return "at the top level";
  if (section == "stage") return "in an entry of 'stages'";
  if (section == "variant") return "in an entry of 'variants'";
  return formatted("in '{}'", section);
}

std::vector<std::string_view> keys_of(std::string_view section) {
  std::vector<std::string_view> keys;
  for (const RecipeKey& row : key_table()) {
    if (row.section == section) keys.push_back(row.key);
  }
  return keys;
}

// Where `key` is at home, sections inside `section` first.
std::vector<std::string> homes_of(std::string_view section,
                                  std::string_view key) {
  std::vector<std::string> inside, outside;
  for (const RecipeKey& row : key_table()) {
    if (row.key != key) continue;
    const bool child = is_key(section, row.section);
    (child ? inside : outside).push_back(section_in_words(row.section));
  }
  return inside.empty() ? outside : inside;
}

}  // namespace

std::span<const RecipeKey> key_table() {
  static const std::vector<RecipeKey> table = make_table();
  return table;
}

std::vector<RecipeKey> recipe_keys() {
  return {key_table().begin(), key_table().end()};
}

bool is_key(std::string_view section, std::string_view key) {
  return std::ranges::any_of(key_table(), [&](const RecipeKey& row) {
    return row.section == section && row.key == key;
  });
}

std::string_view nearest_word(std::string_view word,
                              std::span<const std::string_view> words) {
  std::string_view best;
  // One slip in a short word, two in a long one.
  std::size_t best_distance = word.size() <= 4 ? 2 : 3;
  for (const std::string_view candidate : words) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance >= best_distance) continue;
    best = candidate;
    best_distance = distance;
  }
  return best;
}

std::string join_words(std::span<const std::string_view> words,
                       std::string_view last) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? last : ", ";
    text += words[i];
  }
  return text;
}

std::string unknown_key_message(std::string_view section,
                                std::string_view key) {
  const std::string quoted = quote(key);
  const std::vector<std::string> homes = homes_of(section, key);
  if (!homes.empty()) {
    const std::vector<std::string_view> views(homes.begin(), homes.end());
    return quoted + " does not belong " + section_in_words(section) +
           "; it belongs " + join_words(views);
  }
  const std::vector<std::string_view> keys = keys_of(section);
  const std::string_view near = nearest_word(key, keys);
  std::string message =
      "unknown key " + quoted + " " + section_in_words(section);
  if (!near.empty()) return formatted("{}; did you mean '{}'?", message, near);
  return message + "; known are " + join_words(keys, " and ");
}

}  // namespace llmpress
