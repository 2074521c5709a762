#include "recipes/section.h"

#include <cassert>
#include <charconv>
#include <cmath>
#include <sstream>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

// The whole of `text` as a number, or false.
template <class T>
bool parse_whole(const std::string& text, T& value) {
  const char* begin = text.data();
  const char* end = begin + text.size();
  if (begin != end && *begin == '+') ++begin;
  const auto [stop, code] = std::from_chars(begin, end, value);
  return code == std::errc() && stop == end && begin != end;
}

std::string short_number(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

struct ByteUnit {
  std::string_view suffix;
  double bytes;
};
constexpr ByteUnit kByteUnits[] = {
    {"KiB", 1024.0},
    {"MiB", 1048576.0},
    {"GiB", 1073741824.0},
    {"TiB", 1099511627776.0},
    {"KB", 1e3},
    {"MB", 1e6},
    {"GB", 1e9},
    {"TB", 1e12},
    {"B", 1.0},
};

}  // namespace

Section::Section(const YamlNode& node, std::string_view name)
    : node_(&node), name_(name) {
  const std::string label = name.empty() ? "a recipe" : quote(name);
  if (node.kind != YamlNode::Kind::kMap) {
    fail_at(node.position,
            label + " is " + describe(node) + "; wants keys with values");
  }
  for (const YamlKey& key : node.keys) {
    if (!is_key(name, key.name)) {
      fail_at(key.position, unknown_key_message(name, key.name));
    }
  }
}

const YamlNode* Section::find(std::string_view key) const {
  assert(is_key(name_, key));
  return node_->find(key);
}

const YamlNode& Section::require(std::string_view key) const {
  const YamlNode* node = find(key);
  if (node == nullptr) {
    const std::string label = name_.empty() ? "a recipe" : quote(name_);
    fail_at(node_->position, formatted("{} needs '{}'", label, key));
  }
  return *node;
}

void Section::refuse(std::string_view key, const std::string& message) const {
  const YamlNode* node = find(key);
  const SourcePosition& where =
      node == nullptr ? node_->position : node->position;
  std::string label = quote(key);
  if (!name_.empty()) label += formatted(" in '{}'", name_);
  fail_at(where, label + " " + message);
}

void Section::forbid(std::span<const std::string_view> keys,
                     const std::string& message) const {
  for (const std::string_view key : keys) {
    if (has(key)) refuse(key, message);
  }
}

const std::string& Section::scalar(std::string_view key,
                                   const char* wanted) const {
  const YamlNode& node = require(key);
  if (node.kind != YamlNode::Kind::kScalar) {
    refuse(key, "is " + describe(node) + "; wants " + wanted);
  }
  return node.scalar;
}

const std::string& Section::plain_scalar(std::string_view key,
                                         const char* wanted) const {
  const std::string& value = scalar(key, wanted);
  if (find(key)->quoted) {
    refuse(key, "is " + describe(*find(key)) + "; wants " + wanted);
  }
  return value;
}

std::int64_t Section::integer(std::string_view key, std::int64_t absent,
                              std::int64_t low, std::int64_t high) const {
  if (!has(key)) return absent;
  const std::string& value = plain_scalar(key, "an integer");
  std::int64_t number = 0;
  if (!parse_whole(value, number) || number < low || number > high) {
    std::string range = formatted(" from {}", low);
    if (high != std::numeric_limits<std::int64_t>::max()) {
      range += formatted(" to {}", high);
    }
    refuse(key, "is '" + value + "'; wants an integer" + range);
  }
  return number;
}

std::size_t Section::count(std::string_view key, std::size_t absent,
                           std::size_t low, std::size_t high) const {
  constexpr auto kMax =
      static_cast<std::size_t>(std::numeric_limits<std::int64_t>::max());
  if (!has(key)) return absent;
  return static_cast<std::size_t>(
      integer(key, 0, static_cast<std::int64_t>(low),
              static_cast<std::int64_t>(std::min(high, kMax))));
}

double Section::number(std::string_view key, double absent, double low,
                       double high) const {
  if (!has(key)) return absent;
  const std::string& value = plain_scalar(key, "a number");
  double number = 0;
  // from_chars knows "nan" and "inf", which no range contains.
  if (!parse_whole(value, number) || !(number >= low && number <= high)) {
    refuse(key, "is '" + value + "'; wants a number from " + short_number(low) +
                    " to " + short_number(high));
  }
  return number;
}

bool Section::boolean(std::string_view key, bool absent) const {
  if (!has(key)) return absent;
  const std::string& value = plain_scalar(key, "true or false");
  if (value != "true" && value != "false") {
    refuse(key, "is '" + value + "'; wants true or false");
  }
  return value == "true";
}

std::string text_of(const YamlNode& node, const std::string& what) {
  if (node.kind != YamlNode::Kind::kScalar || node.scalar.empty()) {
    const std::string found =
        node.scalar.empty() && node.kind == YamlNode::Kind::kScalar
            ? "empty"
            : describe(node);
    fail_at(node.position, what + " is " + found + "; wants a string");
  }
  if (node.scalar.find('\0') != std::string::npos) {
    fail_at(node.position, what + " has a NUL character");
  }
  return node.scalar;
}

std::string Section::text(std::string_view key,
                          const std::string& absent) const {
  if (!has(key)) return absent;
  return text_of(*find(key), quote(key));
}

std::vector<std::string> Section::texts(std::string_view key) const {
  if (!has(key)) return {};
  const YamlNode& node = *find(key);
  const std::string what = quote(key);
  if (node.kind != YamlNode::Kind::kList) return {text_of(node, what)};
  std::vector<std::string> values;
  for (const YamlNode& item : node.items) {
    values.push_back(text_of(item, "an entry of " + what));
  }
  return values;
}

std::uint64_t Section::bytes(std::string_view key, std::uint64_t absent) const {
  if (!has(key)) return absent;
  constexpr const char* kWanted =
      "a number of bytes such as 5GB, 512MiB or 1048576";
  const std::string& value = scalar(key, kWanted);
  std::string digits = value;
  double unit = 1;
  for (const ByteUnit& row : kByteUnits) {
    if (!digits.ends_with(row.suffix)) continue;
    digits.resize(digits.size() - row.suffix.size());
    while (digits.ends_with(' ')) digits.pop_back();
    unit = row.bytes;
    break;
  }
  std::uint64_t whole = 0;
  if (unit == 1 && parse_whole(digits, whole) && whole > 0) return whole;
  double number = 0;
  // 2^53: beyond it a double no longer counts single bytes.
  if (!parse_whole(digits, number) || !(number * unit >= 1) ||
      number * unit > 9007199254740992.0) {
    refuse(key, "is '" + value + "'; wants " + kWanted);
  }
  return static_cast<std::uint64_t>(std::llround(number * unit));
}

std::size_t Section::choice_index(
    std::string_view key, std::span<const std::string_view> names) const {
  const std::string& value = scalar(key, "a word");
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == value) return i;
  }
  std::string message = "is '" + value + "'; wants " + join_words(names);
  const std::string_view near = nearest_word(value, names);
  if (!near.empty()) message += formatted("; did you mean '{}'?", near);
  refuse(key, message);
}

}  // namespace llmpress
