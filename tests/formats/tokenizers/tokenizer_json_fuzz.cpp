// The input is a tokenizer.json, a zero byte, and a text to encode with it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "compress/core/error.h"
#include "formats/tokenizers/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = input.find('\0');
  const std::string_view text =
      zero == std::string_view::npos ? "" : input.substr(zero + 1);
  try {
    const auto tokenizer =
        llmpress::tokenizer_from_json(input.substr(0, zero), {}, "fuzz");
    tokenizer->decode(tokenizer->encode_document(text));
  } catch (const llmpress::Error&) {
    // what broken files and texts are for
  }
  return 0;
}
