// Any octets as adapter_config.json, a zero octet, and the adapter's tensors.
#include <algorithm>

#include "compress/core/error.h"
#include "formats/adapters/peft_adapter.h"
#include "formats/containers/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  using namespace llmpress;
  const unsigned char* const end = data + size;
  const unsigned char* const zero = std::find(data, end, 0);
  const unsigned char* const tensors = zero == end ? end : zero + 1;
  try {
    const auto config =
        parse_peft_config({reinterpret_cast<const char*>(data),
                           static_cast<std::size_t>(zero - data)},
                          "fuzz");
    const auto reader =
        read_safetensors({std::as_bytes(std::span(tensors, end)), {}}, "fuzz");
    for (const auto& [path, module] :
         read_peft_tensors(config, *reader).modules) {
      if (module.has_factors() && module.A.rows() != module.B.cols()) {
        __builtin_trap();
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
