#include "compress/tool/option_checks.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

// All of `text`, or nothing.
template <class T>
bool parse(const std::string& text, T& value) {
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && at == end;
}

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

}  // namespace

OptionCheck whole_number(std::uint64_t least, std::uint64_t most) {
  return [=](const std::string& text) {
    std::uint64_t value = 0;
    if (parse(text, value) && value >= least && value <= most) {
      return std::string();
    }
    return formatted("found '{}', wanted a whole number from {} to {}", text,
                     least, most);
  };
}

OptionCheck any_seed() {
  return whole_number(0, std::numeric_limits<std::uint64_t>::max());
}

OptionCheck real_number(double least, double most) {
  return [=](const std::string& text) {
    double value = 0;
    if (parse(text, value) && value >= least && value <= most) {
      return std::string();
    }
    return "found '" + text + "', wanted a number from " + short_number(least) +
           " to " + short_number(most);
  };
}

OptionCheck not_empty() {
  return [](const std::string& text) {
    return text.empty() ? std::string("is empty") : std::string();
  };
}

OptionCheck positive_size() {
  return [](const std::string& text) -> std::string {
    const bool number = !text.empty() && text[0] >= '0' && text[0] <= '9';
    return number && std::strtod(text.c_str(), nullptr) > 0
               ? ""
               : "found '" + text + "', wanted a size above 0, such as 8GiB";
  };
}

}  // namespace llmpress
