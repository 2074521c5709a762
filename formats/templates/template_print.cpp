// Values as text: Python's str(), repr() and json.dumps().
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string>

#include "compress/core/formatted.h"
#include "formats/templates/template_value.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";

void append_hex(std::string& out, std::uint32_t value, int digits) {
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) {
    out += kHexDigits[value >> shift & 15];
  }
}

// The shortest digits that read back as `value`, with an exponent below 1e-4 and
// from 1e16 on.
std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 400> buffer{};
  const double size = std::fabs(value);
  const bool scientific = size != 0 && (size < 1e-4 || size >= 1e16);
  const auto end =
      std::to_chars(
          buffer.data(), buffer.data() + buffer.size(), value,
          scientific ? std::chars_format::scientific : std::chars_format::fixed)
          .ptr;
  std::string text(buffer.data(), end);
  if (!scientific && text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string quoted(const std::string& text) {
  const bool twice = text.find('\'') != std::string::npos &&
                     text.find('"') == std::string::npos;
  const char quote = twice ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == quote || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      out += "\\x";
      append_hex(out, byte, 2);
    } else {
      out += c;
    }
  }
  return out + quote;
}

std::string list_text(const TemplateList& list) {
  std::string out(1, list.tuple ? '(' : '[');
  for (const TemplateValue& item : list.items) {
    if (out.size() > 1) out += ", ";
    out += represented(item);
  }
  if (list.tuple && list.items.size() == 1) out += ',';
  return out + (list.tuple ? ')' : ']');
}

std::string dict_text(const TemplateDict& dict) {
  std::string out = "{";
  for (const auto& [key, value] : dict.members()) {
    if (out.size() > 1) out += ", ";
    out += represented(key) + ": " + represented(value);
  }
  return out + "}";
}

class JsonWriter {
 public:
  explicit JsonWriter(const TemplateJsonStyle& style) : style_(style) {}

  void write(const TemplateValue& value) {
    if (value.is_none()) {
      out += "null";
    } else if (const auto* flag = value.get_if<bool>()) {
      out += *flag ? "true" : "false";
    } else if (const auto* integer = value.get_if<std::int64_t>()) {
      out += formatted("{}", *integer);
    } else if (const auto number = value.number()) {
      out += std::isnan(*number)   ? "NaN"
             : std::isinf(*number) ? (*number < 0 ? "-Infinity" : "Infinity")
                                   : number_text(*number);
    } else if (value.text()) {
      write_text(*value.text());
    } else if (value.list()) {
      write_list(*value.list());
    } else if (value.dict()) {
      write_dict(*value.dict());
    } else {
      throw TemplateFault(value.type_name() + " is nothing that JSON has");
    }
  }

  std::string out{};

 private:
  void line() {
    if (!style_.indent) return;
    out += '\n';
    for (std::size_t i = 0; i < level_; ++i) out += *style_.indent;
  }

  void write_list(const TemplateList& list) {
    if (list.items.empty()) {
      out += "[]";
      return;
    }
    out += '[';
    ++level_;
    for (std::size_t i = 0; i < list.items.size(); ++i) {
      if (i != 0) out += style_.item_separator;
      line();
      write(list.items[i]);
    }
    --level_;
    line();
    out += ']';
  }

  void write_dict(const TemplateDict& dict) {
    if (dict.members().empty()) {
      out += "{}";
      return;
    }
    auto members = dict.members();
    if (style_.sorts_keys) {
      std::ranges::stable_sort(members, [](const auto& a, const auto& b) {
        return less(a.first, b.first);
      });
    }
    out += '{';
    ++level_;
    for (std::size_t i = 0; i < members.size(); ++i) {
      if (i != 0) out += style_.item_separator;
      line();
      write_key(members[i].first);
      out += style_.key_separator;
      write(members[i].second);
    }
    --level_;
    line();
    out += '}';
  }

  // A key that is no string is written as its value, in quotes.
  void write_key(const TemplateValue& key) {
    if (key.text()) {
      write_text(*key.text());
      return;
    }
    out += '"';
    write(key);
    out += '"';
  }

  void write_text(const std::string& text) {
    out += '"';
    for (std::size_t at = 0; at < text.size();)
      write_character(next_utf8(text, at));
    out += '"';
  }

  void write_character(char32_t c) {
    constexpr std::string_view kShort = "\"\\\n\r\t\b\f";
    constexpr std::string_view kLetters = "\"\\nrtbf";
    const std::size_t known =
        c < 0x80 ? kShort.find(static_cast<char>(c)) : std::string_view::npos;
    if (known != std::string_view::npos) {
      out += '\\';
      out += kLetters[known];
    } else if (c < 0x20 || (style_.ascii_only && c >= 0x7F && c < 0x10000)) {
      if (c == 0x7F) {
        out += static_cast<char>(c);
        return;
      }
      out += "\\u";
      append_hex(out, c, 4);
    } else if (style_.ascii_only && c >= 0x10000) {  // a pair of surrogates
      out += "\\u";
      append_hex(out, 0xD800 + ((c - 0x10000) >> 10), 4);
      out += "\\u";
      append_hex(out, 0xDC00 + ((c - 0x10000) & 0x3FF), 4);
    } else {
      append_utf8(out, c);
    }
  }

  const TemplateJsonStyle& style_;
  std::size_t level_ = 0;
};

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const std::string_view written = c == '&'    ? "&amp;"
                                     : c == '<'  ? "&lt;"
                                     : c == '>'  ? "&gt;"
                                     : c == '"'  ? "&#34;"
                                     : c == '\'' ? "&#39;"
                                                 : std::string_view(&c, 1);
    out += written;
  }
  return out;
}

std::string represented(const TemplateValue& value) {
  return value.text() ? quoted(*value.text()) : printed(value);
}

std::string printed(const TemplateValue& value) {
  if (value.is_undefined()) return "";
  if (value.is_none()) return "None";
  if (const auto* flag = value.get_if<bool>()) return *flag ? "True" : "False";
  if (const auto* integer = value.get_if<std::int64_t>()) {
    return formatted("{}", *integer);
  }
  if (const auto number = value.number()) return number_text(*number);
  if (value.text()) return *value.text();
  if (value.list()) return list_text(*value.list());
  if (value.dict()) return dict_text(*value.dict());
  throw TemplateFault("cannot print " + value.type_name());
}

std::string to_json(const TemplateValue& value,
                    const TemplateJsonStyle& style) {
  JsonWriter writer(style);
  writer.write(value);
  return std::move(writer.out);
}

}  // namespace llmpress
