#include "formats/gguf/gguf_names.h"

#include <array>
#include <charconv>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

constexpr std::array<std::string_view, 2> kSuffixes{".weight", ".bias"};

// A number in front of what is left of a name, taken away.
std::optional<std::size_t> take_number(std::string_view& text) {
  std::size_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  // "07" is no number of a name.
  const bool padded =
      text.size() > 1 && text[0] == '0' && stop > text.data() + 1;
  if (error != std::errc{} || padded || text.starts_with('+')) {
    return std::nullopt;
  }
  text.remove_prefix(static_cast<std::size_t>(stop - text.data()));
  return number;
}

struct Numbers {
  std::size_t block = 0, expert = 0;
};

// The numbers in `name` if it is what `pattern` says.
std::optional<Numbers> match(std::string_view pattern, std::string_view name) {
  Numbers numbers;
  while (!pattern.empty()) {
    const bool block = pattern.starts_with("{}");
    if (block || pattern.starts_with("{e}")) {
      const auto number = take_number(name);
      if (!number) return std::nullopt;
      (block ? numbers.block : numbers.expert) = *number;
      pattern.remove_prefix(block ? 2 : 3);
      continue;
    }
    const std::size_t literal = std::min(pattern.find('{'), pattern.size());
    if (!name.starts_with(pattern.substr(0, literal))) return std::nullopt;
    name.remove_prefix(literal);
    pattern.remove_prefix(literal);
  }
  return name.empty() ? std::optional(numbers) : std::nullopt;
}

// "blk.0.attn_q" and ".weight".
std::optional<std::pair<std::string_view, std::string_view>> parts_of(
    std::string_view tensor) {
  for (const std::string_view suffix : kSuffixes) {
    if (tensor.ends_with(suffix)) {
      return std::pair(tensor.substr(0, tensor.size() - suffix.size()), suffix);
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<GgufPlace> our_name(const GgufArchitecture& architecture,
                                  std::string_view tensor) {
  const auto parts = parts_of(tensor);
  if (!parts) return std::nullopt;
  for (const GgufTensorName& row : architecture.tensors) {
    const auto numbers = match(row.gguf, parts->first);
    if (!numbers) continue;
    const bool bare = row.change == GgufChange::kBare;
    return GgufPlace{.name = with_number(row.ours, numbers->block) +
                             (bare ? "" : std::string(parts->second)),
                     .change = row.change,
                     .stacked = row.ours.find("{e}") != std::string_view::npos};
  }
  return std::nullopt;
}

namespace {

std::optional<GgufPlace> bare_place_of(const GgufArchitecture& architecture,
                                       std::string_view tensor) {
  for (const GgufTensorName& row : architecture.tensors) {
    if (row.change != GgufChange::kBare) continue;
    const auto numbers = match(row.ours, tensor);
    if (!numbers) continue;
    return GgufPlace{.name = with_number(row.gguf, numbers->block) + ".weight",
                     .change = row.change};
  }
  return std::nullopt;
}

std::optional<GgufPlace> place_of(const GgufArchitecture& architecture,
                                  std::string_view tensor) {
  if (auto bare = bare_place_of(architecture, tensor)) return bare;
  const auto parts = parts_of(tensor);
  if (!parts) return std::nullopt;
  for (const GgufTensorName& row : architecture.tensors) {
    const auto numbers = match(row.ours, parts->first);
    if (!numbers) continue;
    return GgufPlace{.name = with_number(row.gguf, numbers->block) +
                             std::string(parts->second),
                     .change = row.change,
                     .stacked = row.ours.find("{e}") != std::string_view::npos,
                     .expert = numbers->expert};
  }
  return std::nullopt;
}

}  // namespace

std::optional<GgufPlace> gguf_place(const GgufArchitecture& architecture,
                                    std::string_view tensor) {
  if (auto place = place_of(architecture, tensor)) return place;
  // Checkpoints of the model without its head leave the body's name out.
  const std::string_view first = architecture.tensors[0].ours;
  return place_of(
      architecture,
      std::string(first.substr(0, first.find('.') + 1)) + std::string(tensor));
}

bool is_gguf_setting(std::string_view tensor) {
  return tensor == "rope_freqs.weight" ||
         tensor == "rope_factors_long.weight" ||
         tensor == "rope_factors_short.weight";
}

}  // namespace llmpress
