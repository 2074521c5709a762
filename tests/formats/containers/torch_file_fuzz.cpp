// Any octets as a file of torch.save, as a zip archive of a pickle and a
// storage made of them, and as a pickle.
#include "compress/core/error.h"
#include "formats/containers/pickle.h"
#include "formats/containers/torch_file.h"
#include "formats/containers/torch_pickle.h"
#include "tests/formats/containers/torch_writer.h"

namespace {

using namespace llmpress;

void read_all(TensorBytes file) {
  const std::size_t size = file.bytes.size();
  try {
    const auto reader = read_torch_file(std::move(file), "fuzz");
    for (const TensorInfo& info : reader->tensors()) {
      const TensorBytes bytes = reader->read(info);
      if (bytes.bytes.size() != info.bytes || info.bytes > size) {
        __builtin_trap();
      }
    }
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  const auto octets = std::as_bytes(std::span(data, size));
  read_all({octets, {}});
  try {
    const Pickle pickle = read_pickle(octets, torch_globals(), "fuzz");
    if (pickle.values.size() > size) __builtin_trap();
  } catch (const Error&) {
  }
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (size < 4096) {
    read_all(testing::bytes_of_text(
        testing::torch_archive(text, {std::string(64, 'x')})));
  }
  return 0;
}
