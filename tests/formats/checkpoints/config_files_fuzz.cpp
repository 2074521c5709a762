// Octets as config.json, for what is quantized how, and as
// tokenizer_config.json.
#include "compress/core/error.h"
#include "formats/linears/quantization_config.h"
#include "formats/tokenizers/tokenizer_config.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  using namespace llmpress;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto attempt = [](auto&& parse) {
    try {
      parse();
    } catch (const Error&) {
    }
  };
  attempt([&] { (void)parse_quantization_config(text, "fuzz"); });
  attempt([&] { (void)read_tokenizer_config({.config = text}, "fuzz"); });
  attempt([&] { (void)read_tokenizer_config({.added_tokens = text}, "fuzz"); });
  return 0;
}
