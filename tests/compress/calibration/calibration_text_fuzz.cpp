// Octets as a calibration text: plain, JSONL, and token ids in HDF5.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "compress/calibration/calibration_text.h"
#include "compress/core/error.h"
#include "tests/formats/tokenizers/tiny_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  using namespace llmpress;
  static const auto tokenizer = tokenizer_from_json(
      testing::byte_level_tokenizer({{"a", "b"}}).dump(), {}, "fuzz");
  static const std::string stem =
      (std::filesystem::temp_directory_path() /
       ("llmpress-fuzz-" + std::to_string(::getpid())))
          .string();
  for (const char* extension : {".txt", ".jsonl", ".h5"}) {
    const std::string path = stem + extension;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(data),
               static_cast<std::streamsize>(size));
    try {
      const CalibrationSet set = load_calibration(
          {.text = path, .samples = 2, .sequence_length = 4}, *tokenizer);
      if (set.tokens() != 8) __builtin_trap();
    } catch (const Error&) {
    }
  }
  return 0;
}
