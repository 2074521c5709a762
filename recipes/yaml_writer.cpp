#include "recipes/yaml_writer.h"

#include <charconv>

namespace llmpress {
namespace {

std::string in_quotes(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto octet = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (octet < 0x20 || octet == 0x7f) {
      out += "\\x";
      out += kHex[octet >> 4];
      out += kHex[octet & 15];
    } else {
      out += c;
    }
  }
  return out + '"';
}

// The shortest text that reads back as the same number.
std::string written(double value) {
  char buffer[32];
  const auto [end, code] = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, end};
}

}  // namespace

void YamlWriter::word(std::string_view key, std::string_view value) {
  indent();
  text_ += key;
  text_ += ": ";
  text_ += value;
  text_ += '\n';
}

void YamlWriter::text(std::string_view key, std::string_view value) {
  word(key, in_quotes(value));
}

void YamlWriter::number(std::string_view key, double value) {
  word(key, written(value));
}

void YamlWriter::count(std::string_view key, std::uint64_t value) {
  word(key, std::to_string(value));
}

void YamlWriter::boolean(std::string_view key, bool value) {
  word(key, value ? "true" : "false");
}

void YamlWriter::texts(std::string_view key,
                       const std::vector<std::string>& values) {
  std::string list = "[";
  for (const std::string& value : values) {
    if (list.size() > 1) list += ", ";
    list += in_quotes(value);
  }
  word(key, list + "]");
}

void YamlWriter::open(std::string_view key) {
  indent();
  text_ += key;
  text_ += ":\n";
  ++depth_;
}

void YamlWriter::open_entry() {
  ++depth_;
  entry_ = true;
}

void YamlWriter::indent() {
  text_.append(2 * (depth_ - entry_), ' ');
  if (entry_) text_ += "- ";
  entry_ = false;
}

}  // namespace llmpress
