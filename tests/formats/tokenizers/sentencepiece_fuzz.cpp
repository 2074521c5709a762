// The input is a text of at most 64 bytes, a zero byte, and a tokenizer.model.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "compress/core/error.h"
#include "formats/tokenizers/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = input.substr(0, 65).find('\0');
  if (zero == std::string_view::npos) return 0;
  try {
    const auto tokenizer = llmpress::tokenizer_from_sentencepiece(
        input.substr(zero + 1), {}, "fuzz");
    tokenizer->decode(tokenizer->encode_document(input.substr(0, zero)));
    tokenizer->decode(tokenizer->encode("A \u00BD\uFDFA caf\u0065\u0301 "));
  } catch (const llmpress::Error&) {
    // what broken files and texts are for
  }
  return 0;
}
