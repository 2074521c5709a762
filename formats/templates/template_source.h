// The text of a template, to name places in it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "compress/core/error.h"

namespace llmpress {

class TemplateSource {
 public:
  // As Jinja reads it: every kind of line end becomes a line feed, and one at
  // the very end is not part of it. Throws Error(kInvalidInput) if `text` is
  // longer than 4 MiB or no UTF-8.
  TemplateSource(std::string_view text, std::string name);

  const std::string& text() const { return text_; }
  // Throws Error(code, "<name>: line 3, column 7: <what>"); `at` is a byte.
  [[noreturn]] void fail_at(std::size_t at, ErrorCode code,
                            const std::string& what) const;
  [[noreturn]] void unsupported(std::size_t at, const std::string& what) const {
    fail_at(at, ErrorCode::kUnsupported, what);
  }

 private:
  std::string text_, name_;
};

}  // namespace llmpress
