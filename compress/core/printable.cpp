#include "compress/core/printable.h"

#include <cstddef>
#include <cstdint>
#include <cstdio>

namespace llmpress {
namespace {

struct Character {
  std::uint32_t code = 0;
  std::size_t octets = 0;  // 0: not UTF-8
};

Character first_of(std::string_view text) {
  const auto octet = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const std::uint32_t lead = octet(0);
  if (lead < 0x80) return {lead, 1};
  const std::size_t n = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  std::uint32_t code = lead & (0xFFu >> (n + 1));
  for (std::size_t i = 1; i < n; ++i) {
    if ((octet(i) & 0xC0u) != 0x80u) return {};
    code = code << 6 | (octet(i) & 0x3Fu);
  }
  constexpr std::uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool valid = lead >= 0xC2 && lead <= 0xF4 && code >= kLeast[n] &&
                     code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
  return valid ? Character{code, n} : Character{};
}

bool steers(std::uint32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x61C || c == 0x200E ||
         c == 0x200F || (c >= 0x2028 && c <= 0x202E) ||
         (c >= 0x2066 && c <= 0x2069);
}

void append_escape(std::string& out, const char* format, std::uint32_t code) {
  char escape[16];
  std::snprintf(escape, sizeof escape, format, static_cast<unsigned>(code));
  out += escape;
}

}  // namespace

std::string printable(std::string_view text, std::string_view kept) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Character c = first_of(text);
    if (c.octets == 0) {
      append_escape(out, "\\x%02x", static_cast<unsigned char>(text[0]));
    } else if (steers(c.code) && kept.find(text[0]) == std::string_view::npos) {
      append_escape(out, "\\u%04x", c.code);
    } else {
      out += text.substr(0, c.octets);
    }
    text.remove_prefix(c.octets == 0 ? 1 : c.octets);
  }
  return out;
}

}  // namespace llmpress
