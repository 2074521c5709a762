// Typed access to the keys of a GGUF file.
#include <cmath>
#include <type_traits>

#include "compress/core/formatted.h"
#include "formats/containers/gguf.h"

namespace llmpress {
namespace {

template <class T>
constexpr bool kIsNumber = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;

constexpr std::size_t kShownElements = 4;

std::string element_text(const std::string& text) {
  return formatted("\"{}\"", text);
}
std::string element_text(const GgufArray&) { return "[...]"; }
template <class T>
requires std::is_arithmetic_v<T> std::string element_text(T value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_floating_point_v<T>) {
    return formatted("{:.6g}", value);
  } else {
    return formatted("{}", static_cast<std::int64_t>(value));
  }
}

std::string array_text(const GgufArray& array) {
  return std::visit(
      []<class T>(const std::vector<T>& elements) {
        std::string text = formatted("{} elements: ", elements.size());
        for (std::size_t i = 0; i < elements.size() && i < kShownElements;
             ++i) {
          const T& element = elements[i];
          text += (i == 0 ? "" : ", ") + element_text(element);
        }
        return text + (elements.size() > kShownElements ? ", ..." : "");
      },
      array.elements);
}

}  // namespace

std::string to_text(const GgufValue& value) {
  return std::visit(
      []<class T>(const T& v) -> std::string {
        if constexpr (std::is_same_v<T, std::string>) {
          return v;
        } else if constexpr (std::is_arithmetic_v<T>) {
          return element_text(v);
        } else {
          return array_text(*v);
        }
      },
      value);
}

void GgufMetadata::set(std::string key, GgufValue value) {
  const auto [at, added] = places_.try_emplace(key, values_.size());
  if (added) {
    values_.emplace_back(std::move(key), std::move(value));
  } else {
    values_[at->second].second = std::move(value);
  }
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto at = places_.find(key);
  return at == places_.end() ? nullptr : &values_[at->second].second;
}

void GgufMetadata::invalid(std::string_view key,
                           std::string_view wanted) const {
  fail(ErrorCode::kInvalidInput, "{}: metadata '{}': wanted {}", origin_, key,
       wanted);
}

std::optional<std::string> GgufMetadata::text(std::string_view key) const {
  const GgufValue* const value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* const text = std::get_if<std::string>(value)) return *text;
  invalid(key, "a string");
}

std::optional<std::size_t> GgufMetadata::size(std::string_view key) const {
  const GgufValue* const value = find(key);
  if (value == nullptr) return std::nullopt;
  return std::visit(
      [&]<class T>(const T& v) -> std::size_t {
        if constexpr (std::is_integral_v<T> && kIsNumber<T>) {
          if (v >= 0) return static_cast<std::size_t>(v);
        }
        invalid(key, "a size");
      },
      *value);
}

std::optional<double> GgufMetadata::number(std::string_view key) const {
  const GgufValue* const value = find(key);
  if (value == nullptr) return std::nullopt;
  return std::visit(
      [&]<class T>(const T& v) -> double {
        if constexpr (kIsNumber<T>) {
          if (std::isfinite(static_cast<double>(v))) {
            return static_cast<double>(v);
          }
        }
        invalid(key, "a finite number");
      },
      *value);
}

std::optional<bool> GgufMetadata::flag(std::string_view key) const {
  const GgufValue* const value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* const flag = std::get_if<bool>(value)) return *flag;
  invalid(key, "a boolean");
}

std::span<const std::string> GgufMetadata::texts(std::string_view key) const {
  const GgufValue* const value = find(key);
  if (value == nullptr) return {};
  const auto* const array =
      std::get_if<std::shared_ptr<const GgufArray>>(value);
  const auto* const texts =
      array == nullptr
          ? nullptr
          : std::get_if<std::vector<std::string>>(&(*array)->elements);
  if (texts == nullptr) invalid(key, "an array of strings");
  return *texts;
}

std::vector<double> GgufMetadata::numbers(std::string_view key) const {
  const GgufValue* const value = find(key);
  if (value == nullptr) return {};
  const auto* const array =
      std::get_if<std::shared_ptr<const GgufArray>>(value);
  if (array == nullptr) return {*number(key)};
  std::vector<double> numbers;
  std::visit(
      [&]<class T>(const std::vector<T>& elements) {
        if constexpr (std::is_arithmetic_v<T>) {
          for (const auto& e : elements) {
            numbers.push_back(static_cast<double>(e));
          }
        } else {
          if (!elements.empty()) invalid(key, "an array of numbers");
        }
      },
      (*array)->elements);
  return numbers;
}

}  // namespace llmpress
