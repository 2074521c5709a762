// Any octets as a safetensors file, and as the text of a shard index.
#include "compress/core/error.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/sharded.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  using namespace llmpress;
  try {
    const auto reader =
        read_safetensors({std::as_bytes(std::span(data, size)), {}}, "fuzz");
    std::size_t octets = 0;
    for (const TensorInfo& info : reader->tensors()) {
      octets += reader->read(info).bytes.size();
    }
    if (octets > size) __builtin_trap();
  } catch (const Error&) {
  }
  try {
    parse_shard_index({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const Error&) {
  }
  return 0;
}
