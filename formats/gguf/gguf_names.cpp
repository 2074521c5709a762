#include "formats/gguf/gguf_names.h"

#include <array>
#include <charconv>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_change.h"
#include "formats/gguf/gguf_parts.h"

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

// A bias has the order of its matrix's rows, and nothing else of it.
GgufChange change_of(const GgufTensorName& row, std::string_view suffix) {
  const bool kept = moves_rows(row.change) || is_part(row.change);
  return suffix == ".bias" && !kept ? GgufChange::kNone : row.change;
}

// What a row says of `tensor`, called by `from` there and by `to` elsewhere.
std::optional<GgufPlace> place_by(const GgufTensorName& row,
                                  std::string_view tensor,
                                  std::string_view GgufTensorName::*from,
                                  std::string_view GgufTensorName::*to) {
  const auto parts = parts_of(tensor);
  if (!row.whole && !parts) return std::nullopt;
  const auto numbers = match(row.*from, row.whole ? tensor : parts->first);
  if (!numbers) return std::nullopt;
  const std::string_view suffix = row.whole ? "" : parts->second;
  return GgufPlace{
      .block = numbers->block,
      .name = with_number(row.*to, numbers->block) + std::string(suffix),
      .change = change_of(row, suffix),
      .stacked = row.ours.find("{e}") != std::string_view::npos,
      .expert = numbers->expert};
}

std::vector<GgufPlace> places_of(const GgufArchitecture& architecture,
                                 std::string_view tensor) {
  std::vector<GgufPlace> places;
  for (const GgufTensorName& row : architecture.tensors) {
    const auto place =
        place_by(row, tensor, &GgufTensorName::ours, &GgufTensorName::gguf);
    if (!place) continue;
    // Rows behind the first are further parts, or names of other files.
    if (places.empty() || is_part(place->change)) places.push_back(*place);
    if (!is_part(places[0].change)) break;
  }
  return places;
}

}  // namespace

std::optional<GgufPlace> our_name(const GgufArchitecture& architecture,
                                  std::string_view tensor,
                                  const GgufFile* file) {
  for (const GgufTensorName& row : architecture.tensors) {
    auto place =
        place_by(row, tensor, &GgufTensorName::gguf, &GgufTensorName::ours);
    if (!place) continue;
    if (row.beside.empty() || file == nullptr ||
        file->find(with_number(row.beside, place->block)) != nullptr) {
      return place;
    }
  }
  return std::nullopt;
}

std::vector<GgufPlace> gguf_places(const GgufArchitecture& architecture,
                                   std::string_view tensor) {
  auto places = places_of(architecture, tensor);
  if (!places.empty()) return places;
  // Checkpoints of the model without its head leave the body's name out.
  const std::string_view first = architecture.tensors[0].ours;
  return places_of(
      architecture,
      std::string(first.substr(0, first.find('.') + 1)) + std::string(tensor));
}

bool is_gguf_setting(const GgufArchitecture& architecture,
                     std::string_view tensor) {
  return (architecture.scales && tensor.ends_with(".scale")) ||
         tensor == "rope_freqs.weight" ||
         tensor == "rope_factors_long.weight" ||
         tensor == "rope_factors_short.weight";
}

}  // namespace llmpress
