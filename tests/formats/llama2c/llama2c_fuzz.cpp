// Any octets as a checkpoint of llama2.c, and as its tokenizer.
#include "compress/core/error.h"
#include "formats/llama2c/llama2c_file.h"
#include "formats/llama2c/llama2c_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  using namespace llmpress;
  const auto octets = std::as_bytes(std::span(data, size));
  try {
    const Llama2cModel model = read_llama2c({octets, {}}, "fuzz");
    for (const TensorInfo& info : model.reader->tensors()) {
      if (model.reader->read(info).bytes.size() != info.bytes) {
        __builtin_trap();
      }
    }
  } catch (const Error&) {
  }
  try {
    (void)sentencepiece_of_llama2c(octets, 3, "fuzz");
  } catch (const Error&) {
  }
  return 0;
}
