// Tokens of a Jinja template, with its rules of white space as chat templates
// are read: trim_blocks (the line feed behind a block goes with it),
// lstrip_blocks (so do the blanks in front of a block that begins a line), "-"
// for all white space on that side, "+" for none of it. Comments are gone, and
// what stands between raw and endraw is text.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "formats/templates/template_source.h"

namespace llmpress {

enum class TemplateTokenKind {
  kText,
  kOutputBegin,  // {{
  kOutputEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,  // without its quotes and escapes
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct TemplateToken {
  TemplateTokenKind kind = TemplateTokenKind::kEnd;
  std::string text{};
  std::size_t at = 0;  // byte in the source
};

// The last one is kEnd. Throws Error(kInvalidInput) with the place of a tag or
// string without end and of a character that means nothing.
std::vector<TemplateToken> lex_template(const TemplateSource& source);

}  // namespace llmpress
