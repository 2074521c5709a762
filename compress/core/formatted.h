// Text with values filled in, and errors made of such text:
//
//   fail(ErrorCode::kCorruptFile, "{}: tensor '{}': {} bytes, not {}", path, ...)
//
// Placeholders are those of libfmt: "{}", "{:.4f}", "{:.2e}", "{{" for a brace.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

#include "compress/core/error.h"

namespace llmpress {

// One value as formatted() takes it; strings are not copied.
class FormatValue {
 public:
  template <std::integral T>
  FormatValue(T value) {
    if constexpr (std::same_as<T, char>) {
      value_ = value;
    } else if constexpr (std::is_signed_v<T>) {
      value_ = static_cast<std::int64_t>(value);
    } else {
      value_ = static_cast<std::uint64_t>(value);
    }
  }
  FormatValue(double value) : value_(value) {}
  FormatValue(float value) : value_(static_cast<double>(value)) {}
  FormatValue(const char* value) : value_(std::string_view(value)) {}
  FormatValue(const std::string& value) : value_(std::string_view(value)) {}
  FormatValue(std::string_view value) : value_(value) {}
  FormatValue(const std::filesystem::path& value)
      : value_(std::string_view(value.native())) {}

  using Value =
      std::variant<std::int64_t, std::uint64_t, double, char, std::string_view>;
  const Value& value() const { return value_; }

 private:
  Value value_;
};

// A literal with exactly `kValues` placeholders; anything else does not compile.
template <std::size_t kValues>
class FormatPattern {
 public:
  consteval FormatPattern(const char* text) : text_(text) {
    if (placeholders(text) != kValues) throw "placeholders and values differ";
  }
  std::string_view text() const { return text_; }

 private:
  static consteval std::size_t placeholders(std::string_view text) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '{') continue;
      if (i + 1 < text.size() && text[i + 1] == '{') {
        ++i;
      } else {
        ++count;
      }
    }
    return count;
  }

  std::string_view text_;
};

std::string format_values(std::string_view pattern,
                          std::initializer_list<FormatValue> values);

template <class... Values>
std::string formatted(FormatPattern<sizeof...(Values)> pattern,
                      const Values&... values) {
  return format_values(pattern.text(), {FormatValue(values)...});
}

// Throws Error(code) that says `pattern`.
template <class... Values>
[[noreturn]] void fail(ErrorCode code, FormatPattern<sizeof...(Values)> pattern,
                       const Values&... values) {
  throw Error(code, format_values(pattern.text(), {FormatValue(values)...}));
}

// "4.1070", with `digits` after the point.
std::string fixed(double value, int digits);
// "1.2e-03", for errors that span magnitudes; "0" for zero.
std::string scientific(double value);
// "14.69 MB".
std::string megabytes(std::size_t bytes);

}  // namespace llmpress
