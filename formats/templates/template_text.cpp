#include "formats/templates/template_text.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

bool is_space(char32_t c) {
  return is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

}  // namespace

std::vector<std::size_t> slice_indices(std::size_t size,
                                       const TemplateSlice& slice) {
  const std::int64_t step = slice.step.value_or(1);
  if (step == 0) throw TemplateFault("a slice of step 0");
  const auto length = static_cast<std::int64_t>(size);
  const auto clamped = [&](std::int64_t at) {
    if (at < 0) at = at < -length ? -1 : at + length;
    return step > 0 ? std::clamp<std::int64_t>(at, 0, length)
                    : std::clamp<std::int64_t>(at, -1, length - 1);
  };
  std::int64_t at = slice.begin ? clamped(*slice.begin)
                    : step > 0  ? 0
                                : length - 1;
  const std::int64_t end = slice.end  ? clamped(*slice.end)
                           : step > 0 ? length
                                      : -1;
  std::vector<std::size_t> indices;
  while (step > 0 ? at < end : at > end) {
    indices.push_back(static_cast<std::size_t>(at));
    // The distance to the end, not beyond: no overflow.
    if (step > 0 ? step >= end - at : step <= end - at) break;
    at += step;
  }
  return indices;
}

std::string strip(std::string_view text, StripSide side,
                  const std::optional<std::string>& characters) {
  std::u32string set;
  if (characters) {
    for (std::size_t at = 0; at < characters->size();) {
      set += next_utf8(*characters, at);
    }
    std::ranges::sort(set);
  }
  const auto goes = [&](char32_t c) {
    return characters ? std::ranges::binary_search(set, c) : is_space(c);
  };
  std::size_t begin = 0, end = text.size();
  while (side != StripSide::kRight && begin < end) {
    std::size_t next = begin;
    if (!goes(next_utf8(text, next))) break;
    begin = next;
  }
  while (side != StripSide::kLeft && end > begin) {
    const std::size_t last = previous_utf8(text, end);
    std::size_t at = last;
    if (!goes(next_utf8(text, at))) break;
    end = last;
  }
  return std::string(text.substr(begin, end - begin));
}

namespace {

struct Range {
  std::size_t begin = 0, end = 0;
};

// Runs of what is no white space.
std::vector<Range> words_of(std::string_view text) {
  std::vector<Range> words;
  bool inside = false;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const bool space = is_space(next_utf8(text, at));
    if (space) {
      inside = false;
    } else if (!inside) {
      words.push_back({begin, at});
      inside = true;
    } else {
      words.back().end = at;
    }
  }
  return words;
}

std::vector<std::string> split_words(std::string_view text, std::size_t most,
                                     bool from_right) {
  const std::vector<Range> words = words_of(text);
  std::vector<std::string> parts;
  // Words beyond `most` stay one part, with the spaces inside it.
  const std::size_t cuts = std::min(most, words.size());
  const std::size_t rest = words.size() - cuts;
  const auto part = [&](std::size_t begin, std::size_t end) {
    parts.emplace_back(text.substr(begin, end - begin));
  };
  if (from_right && rest > 0) {
    // All white space in front of it stays, as in Python.
    part(0, words[rest - 1].end);
  }
  for (std::size_t i = 0; i < cuts; ++i) {
    const Range& word = words[from_right ? rest + i : i];
    part(word.begin, word.end);
  }
  if (!from_right && rest > 0) part(words[cuts].begin, text.size());
  return parts;
}

}  // namespace

std::vector<std::string> split(TemplateRuntime& runtime, std::string_view text,
                               const std::optional<std::string>& separator,
                               std::int64_t most, bool from_right) {
  runtime.step(text.size() / 16 + 1);
  const std::size_t cuts = most < 0 ? std::numeric_limits<std::size_t>::max()
                                    : static_cast<std::size_t>(most);
  if (!separator) return split_words(text, cuts, from_right);
  if (separator->empty()) throw TemplateFault("an empty separator");
  std::vector<std::string> parts;
  std::string_view rest = text;
  while (parts.size() < cuts) {
    const std::size_t at = find_text(runtime, rest, *separator, from_right);
    if (at == std::string_view::npos) break;
    const std::string_view before = rest.substr(0, at);
    const std::string_view after = rest.substr(at + separator->size());
    runtime.step(1);
    parts.emplace_back(from_right ? after : before);
    rest = from_right ? before : after;
  }
  parts.emplace_back(rest);
  if (from_right) std::ranges::reverse(parts);
  return parts;
}

std::vector<std::string> split_lines(std::string_view text, bool keeps_ends) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end =
        std::min(text.find_first_of("\n\r\v\f", at), text.size());
    std::size_t next = std::min(end + 1, text.size());
    if (text.substr(end).starts_with("\r\n")) ++next;
    lines.emplace_back(text.substr(at, (keeps_ends ? next : end) - at));
    at = next;
  }
  return lines;
}

std::size_t find_text(TemplateRuntime& runtime, std::string_view text,
                      std::string_view what, bool from_right) {
  if (from_right) {
    // At worst, everything is compared at every place.
    runtime.step(text.size() / 64 * what.size() / 64 + 1);
    return text.rfind(what);
  }
  if (what.empty()) return 0;
  // Linear in the text whatever is looked for, unlike std::string's.
  const void* const found =
      memmem(text.data(), text.size(), what.data(), what.size());
  const std::size_t at =
      found == nullptr ? std::string_view::npos
                       : static_cast<std::size_t>(
                             static_cast<const char*>(found) - text.data());
  runtime.step((found ? at + what.size() : text.size()) / 64 + 1);
  return at;
}

std::string replace(TemplateRuntime& runtime, std::string_view text,
                    std::string_view from, std::string_view to,
                    std::int64_t most) {
  std::string out;
  std::size_t at = 0;
  for (std::int64_t done = 0; most < 0 || done < most; ++done) {
    if (from.empty()) {  // stands before every character, and at the end
      if (done != 0) {
        if (at >= text.size()) return out;
        const std::size_t begin = at;
        next_utf8(text, at);
        runtime.append(out, text.substr(begin, at - begin));
      }
      runtime.append(out, to);
      continue;
    }
    const std::size_t found = find_text(runtime, text.substr(at), from);
    if (found == std::string_view::npos) break;
    runtime.append(out, text.substr(at, found));
    runtime.append(out, to);
    at += found + from.size();
  }
  runtime.append(out, text.substr(at));
  return out;
}

std::string repeat(TemplateRuntime& runtime, std::string_view text,
                   std::int64_t times) {
  std::string out;
  if (text.empty()) return out;
  for (std::int64_t i = 0; i < times; ++i) runtime.append(out, text);
  return out;
}

std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::string upper_case(const std::string& text) {
  return map_case(text, UnicodeCase::kUpper);
}

std::string lower_case(const std::string& text) {
  return map_case(text, UnicodeCase::kLower);
}

std::string capitalized(const std::string& text) {
  std::size_t first = 0;
  if (!text.empty()) next_utf8(text, first);
  return map_case(text.substr(0, first), UnicodeCase::kTitle) +
         lower_case(text.substr(first));
}

std::string title_case(const std::string& text) {
  std::string out;
  bool after_letter = false;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const bool letter = is_cased(next_utf8(text, at));
    const std::string character = text.substr(begin, at - begin);
    out += map_case(character,
                    after_letter ? UnicodeCase::kLower : UnicodeCase::kTitle);
    after_letter = letter;
  }
  return out;
}

std::string jinja_title_case(const std::string& text) {
  std::string out;
  bool starts = true;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t c = next_utf8(text, at);
    const std::string character = text.substr(begin, at - begin);
    out += starts ? upper_case(character) : lower_case(character);
    starts =
        is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  }
  return out;
}

}  // namespace llmpress
