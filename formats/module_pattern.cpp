#include "formats/module_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>
#include <string>

#include "compress/core/error.h"

namespace llmpress {
namespace {

// A pattern that needs more steps than this was made to hang its reader.
constexpr std::uint32_t kMaxSteps = 1'000'000;

[[noreturn]] void fail(std::string_view pattern, const char* why) {
  throw Error(ErrorCode::kInvalidInput,
              "pattern 're:" + std::string(pattern) + "' " + why);
}

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using Code = std::unique_ptr<pcre2_code, Freed<pcre2_code_free>>;
using Data = std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>>;
using Context =
    std::unique_ptr<pcre2_match_context, Freed<pcre2_match_context_free>>;

PCRE2_SPTR text_of(std::string_view s) {
  return reinterpret_cast<PCRE2_SPTR>(s.data());
}

}  // namespace

bool matches_from_start(std::string_view pattern, std::string_view text) {
  int error = 0;
  PCRE2_SIZE at = 0;
  const Code code(pcre2_compile(text_of(pattern), pattern.size(),
                                PCRE2_ANCHORED, &error, &at, nullptr));
  if (!code) fail(pattern, "is not a regular expression");
  const Data data(pcre2_match_data_create(1, nullptr));
  const Context context(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), kMaxSteps);
  pcre2_set_heap_limit(context.get(), 64 * 1024);  // KiB
  const int found = pcre2_match(code.get(), text_of(text), text.size(), 0, 0,
                                data.get(), context.get());
  if (found < 0 && found != PCRE2_ERROR_NOMATCH)
    fail(pattern, "cannot be matched");
  return found >= 0;
}

}  // namespace llmpress
