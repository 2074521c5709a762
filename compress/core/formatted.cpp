#include "compress/core/formatted.h"

#include <fmt/args.h>

namespace llmpress {

std::string format_values(std::string_view pattern,
                          std::initializer_list<FormatValue> values) {
  fmt::dynamic_format_arg_store<fmt::format_context> store;
  for (const FormatValue& v : values) {
    std::visit([&](const auto& value) { store.push_back(value); }, v.value());
  }
  return fmt::vformat(fmt::string_view(pattern.data(), pattern.size()), store);
}

std::string fixed(double value, int digits) {
  return fmt::format("{:.{}f}", value, digits);
}

std::string scientific(double value) {
  return value == 0 ? "0" : fmt::format("{:.2e}", value);
}

std::string megabytes(std::size_t bytes) {
  return fixed(static_cast<double>(bytes) / 1e6, 2) + " MB";
}

}  // namespace llmpress
