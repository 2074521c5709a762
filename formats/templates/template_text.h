// Python's methods of strings, over UTF-8.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/templates/template_runtime.h"

namespace llmpress {

// Where [begin:end:step] of something of `size` is: the indices, in order.
// Throws TemplateFault for a step of 0.
struct TemplateSlice {
  std::optional<std::int64_t> begin{}, end{}, step{};
};
std::vector<std::size_t> slice_indices(std::size_t size,
                                       const TemplateSlice& slice);

enum class StripSide { kLeft, kRight, kBoth };
// White space, or any of the characters in `characters`.
std::string strip(std::string_view text, StripSide side,
                  const std::optional<std::string>& characters);

// At runs of white space, or at each `separator`, at most `most` times (-1: no
// limit), from the left or the right.
std::vector<std::string> split(TemplateRuntime& runtime, std::string_view text,
                               const std::optional<std::string>& separator,
                               std::int64_t most, bool from_right);
std::vector<std::string> split_lines(std::string_view text, bool keeps_ends);

// `most` of them at most, -1: all.
std::string replace(TemplateRuntime& runtime, std::string_view text,
                    std::string_view from, std::string_view to,
                    std::int64_t most);
std::string repeat(TemplateRuntime& runtime, std::string_view text,
                   std::int64_t times);

// Byte offset, or npos. The time it can take is paid for first.
std::size_t find_text(TemplateRuntime& runtime, std::string_view text,
                      std::string_view what, bool from_right = false);
std::size_t count_characters(std::string_view text);

std::string upper_case(const std::string& text);
std::string lower_case(const std::string& text);
std::string capitalized(const std::string& text);
std::string title_case(const std::string& text);        // str.title()
std::string jinja_title_case(const std::string& text);  // the filter

// A method of a string; an undefined value if it has no such.
TemplateValue string_method(TemplateRuntime& runtime, const TemplateValue& text,
                            const std::string& name);

}  // namespace llmpress
