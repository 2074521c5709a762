#include "formats/templates/template_source.h"

#include <algorithm>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {

TemplateSource::TemplateSource(std::string_view text, std::string name)
    : name_(std::move(name)) {
  constexpr std::size_t kLongest = 4u << 20;
  if (text.size() > kLongest) {
    fail(ErrorCode::kInvalidInput, "{}: a template of {} bytes is too long",
         name_, text.size());
  }
  if (const std::size_t valid = valid_utf8_length(text); valid < text.size()) {
    fail(ErrorCode::kInvalidInput, "{}: byte {} is not UTF-8", name_, valid);
  }
  text_.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r') {
      text_ += text[i];
    } else if (i + 1 == text.size() || text[i + 1] != '\n') {
      text_ += '\n';
    }
  }
  if (text_.ends_with('\n')) text_.pop_back();
}

void TemplateSource::fail_at(std::size_t at, ErrorCode code,
                             const std::string& what) const {
  const std::string_view before = std::string_view(text_).substr(0, at);
  const auto lines = std::ranges::count(before, '\n');
  const std::size_t start = before.rfind('\n') + 1;  // 0 if there is none
  const auto columns = std::ranges::count_if(before.substr(start), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  });
  fail(code, "{}: line {}, column {}: {}", name_, lines + 1, columns + 1, what);
}

}  // namespace llmpress
