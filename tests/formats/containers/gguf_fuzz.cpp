// Any octets as a GGUF file: header, metadata, and every tensor decoded.
#include "compress/core/error.h"
#include "compress/core/ggml/ggml_block.h"
#include "formats/containers/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  using namespace llmpress;
  try {
    const GgufFile file =
        GgufFile::read({std::as_bytes(std::span(data, size)), {}}, "fuzz");
    std::size_t octets = 0;
    for (const GgufTensor& tensor : file.tensors()) {
      const TensorBytes bytes = file.read(tensor);
      octets += bytes.bytes.size();
      const GgmlTypeFacts& f = facts(tensor.type);
      std::vector<float> values(bytes.bytes.size() / f.bytes * f.elements);
      try {
        decode_ggml(tensor.type, bytes.bytes, values);
      } catch (const Error&) {
      }
    }
    if (octets > size) __builtin_trap();
    std::vector<GgufTensor> tensors(file.tensors().begin(),
                                    file.tensors().end());
    (void)gguf_header(file.metadata(), tensors);
  } catch (const Error&) {
  }
  return 0;
}
