#include "tests/places.h"

namespace llmpress {

const std::string& source_dir() {
  static const std::string path = LLMPRESS_SOURCE_DIR;
  return path;
}

const std::string& program() {
  static const std::string path = LLMPRESS_BINARY;
  return path;
}

}  // namespace llmpress
