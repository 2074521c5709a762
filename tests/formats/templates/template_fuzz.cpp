// The input is a chat template, a zero byte, and what the user says.
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <string>
#include <string_view>

#include "compress/core/error.h"
#include "formats/templates/chat_template.h"
#include "formats/tokenizers/unicode_text.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = input.find('\0');
  const std::string said = llmpress::replace_invalid_utf8(
      zero == std::string_view::npos ? "hi" : input.substr(zero + 1));
  // As small as a context can be, so that a step is what takes time.
  const std::string context =
      R"({"messages": [{"role": "system", "content": " b\n"},
      {"role": "user", "content": [1, -2.5, null, {"type": "text"}]},
      {"role": "tool", "content": "u"}], "tools": null, "bos_token": "<s>",
      "add_generation_prompt": true})";
  std::tm now{};
  now.tm_mday = 1;
  try {
    llmpress::render_template(input.substr(0, zero), "fuzz", context, now,
                              {.most_steps = 20'000});
    llmpress::render_template("{{ messages }}" + said, "fuzz", context, now,
                              {.most_steps = 20'000});
  } catch (const llmpress::Error&) {
    // what broken templates are for
  }
  return 0;
}
