// Octets as config.json, for what is quantized how, and as
// tokenizer_config.json.
#include "compress/core/error.h"
#include "formats/quantization_config.h"
#include "formats/tokenizer_config.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  using namespace llmpress;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto attempt = [&](auto&& parse) {
    try {
      (void)parse(text, "fuzz");
    } catch (const Error&) {
    }
  };
  attempt(parse_quantization_config);
  attempt(read_tokenizer_config);
  return 0;
}
