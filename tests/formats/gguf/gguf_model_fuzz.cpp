// Any octets as a model in GGUF: the description that its metadata become, every
// tensor under its name in the folder, and blocks as Linears.
#include "compress/core/error.h"
#include "formats/checkpoints/config_reader.h"
#include "formats/gguf/gguf_model.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  using namespace llmpress;
  try {
    const GgufModel model(
        GgufFile::read({std::as_bytes(std::span(data, size)), {}}, "fuzz"));
    (void)ConfigReader::parse(model.config_json(), "fuzz");
    for (const TensorInfo& info : model.tensors()) {
      const TensorBytes bytes = model.read(info);
      if (bytes.bytes.size() != info.bytes) __builtin_trap();
      if (!info.name.ends_with(".weight")) continue;
      const GgufView* const blocks =
          model.find_blocks(info.name.substr(0, info.name.size() - 7));
      if (blocks != nullptr) (void)model.read_blocks(*blocks);
    }
  } catch (const Error&) {
  }
  return 0;
}
