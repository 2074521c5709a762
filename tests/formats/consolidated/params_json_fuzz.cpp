// Any octets as params.json.
#include <initializer_list>
#include <string>

#include "compress/core/error.h"
#include "formats/consolidated/params_json.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  using namespace llmpress;
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const std::size_t parts : std::initializer_list<std::size_t>{1, 8}) {
    try {
      (void)read_params_json(text, {.rows = 32, .columns = 24, .parts = parts},
                             "fuzz");
    } catch (const Error&) {
    }
  }
  return 0;
}
