#include "compress/core/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <utility>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

// The compiler of PCRE2 is recursive and quadratic in places.
constexpr std::size_t kLongestPattern = 1 << 16;
constexpr std::uint32_t kMaxHeapKiB = 256 * 1024;

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using Code = std::unique_ptr<pcre2_code, Freed<pcre2_code_free>>;
using Data = std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>>;
using CompileContext =
    std::unique_ptr<pcre2_compile_context, Freed<pcre2_compile_context_free>>;
using MatchContext =
    std::unique_ptr<pcre2_match_context, Freed<pcre2_match_context_free>>;

PCRE2_SPTR units(std::string_view s) {
  return reinterpret_cast<PCRE2_SPTR>(s.data());
}

std::string message_of(int code) {
  std::array<unsigned char, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

std::string cut(std::string_view text) {
  constexpr std::size_t kLongest = 120;
  if (text.size() <= kLongest) return std::string(text);
  return std::string(text.substr(0, kLongest)) + "...";
}

}  // namespace

struct Regex::Program {
  RegexOptions options{};
  Code code{};
  MatchContext limits{};

  [[noreturn]] void refuse(const std::string& what) const {
    fail(options.code, "{}regular expression '{}' {}",
         options.place.empty() ? "" : options.place + ": ", cut(options.shown),
         what);
  }

  [[noreturn]] void fail_at(int rc, std::string_view text,
                            std::size_t from) const {
    const std::string where = options.for_texts
                                  ? formatted(" at byte {} of a text", from)
                                  : " on '" + cut(text) + "'";
    if (rc == PCRE2_ERROR_MATCHLIMIT) {
      refuse(formatted("takes more than {} steps{}", options.max_steps, where));
    }
    refuse("cannot be matched" + where + ": " + message_of(rc));
  }

  int match(std::string_view text, std::size_t from, std::uint32_t flags,
            pcre2_match_data* data) const {
    int rc = pcre2_match(code.get(), units(text), text.size(), from, flags,
                         data, limits.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter uses the heap
      rc = pcre2_match(code.get(), units(text), text.size(), from,
                       flags | PCRE2_NO_JIT, data, limits.get());
    }
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) fail_at(rc, text, from);
    return rc;
  }
};

Regex::Regex(std::string_view pattern, RegexOptions options) {
  auto program = std::make_shared<Program>();
  program->options = std::move(options);
  if (program->options.shown.empty()) program->options.shown = pattern;
  if (pattern.size() > kLongestPattern)
    program->refuse("is longer than 64 KiB");
  const CompileContext context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::uint32_t flags =
      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C |
      (program->options.every_line ? std::uint32_t{PCRE2_MULTILINE} : 0);
  program->code.reset(pcre2_compile(units(pattern), pattern.size(), flags,
                                    &error, &offset, context.get()));
  if (!program->code) {
    program->refuse(
        formatted("is malformed at offset {}: {}", offset, message_of(error)));
  }
  if (program->options.for_texts) {  // where the system allows it
    pcre2_jit_compile(program->code.get(), PCRE2_JIT_COMPLETE);
    program->options.code = ErrorCode::kInvalidInput;  // of matching
  }
  program->limits.reset(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(program->limits.get(), program->options.max_steps);
  pcre2_set_heap_limit(program->limits.get(), kMaxHeapKiB);
  program_ = std::move(program);
}

std::vector<Regex::Match> Regex::find_all(std::string_view text) const {
  const Data data(pcre2_match_data_create(1, nullptr));
  std::vector<Match> matches;
  std::size_t from = 0;
  while (from <= text.size()) {
    if (program_->match(text, from, PCRE2_NO_UTF_CHECK, data.get()) < 0) break;
    const PCRE2_SIZE* const range = pcre2_get_ovector_pointer(data.get());
    // Only \K, which no dialect passes on, could break this.
    if (range[0] > range[1] || range[0] < from) break;
    matches.push_back({range[0], range[1]});
    from = range[1];
    if (range[0] == range[1]) {  // an empty match: one character on
      if (from == text.size()) break;
      do {
        ++from;
      } while (from < text.size() &&
               (static_cast<unsigned char>(text[from]) & 0xC0) == 0x80);
    }
  }
  return matches;
}

bool Regex::matches(std::string_view text, std::uint32_t anchors) const {
  const Data data(pcre2_match_data_create(1, nullptr));
  return program_->match(text, 0, anchors, data.get()) >= 0;
}

bool Regex::matches_start(std::string_view text) const {
  return matches(text, PCRE2_ANCHORED);
}

bool Regex::matches_whole(std::string_view text) const {
  return matches(text, PCRE2_ANCHORED | PCRE2_ENDANCHORED);
}

}  // namespace llmpress
