// Octets as config.json: the architecture, and what is quantized how.
#include "compress/core/error.h"
#include "compress/model/architecture.h"
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
  attempt(parse_architecture);
  attempt(parse_quantization_config);
  attempt(read_tokenizer_config);
  return 0;
}
