// The input is a config.json.
#include <cstddef>
#include <cstdint>
#include <string>

#include "compress/core/error.h"
#include "compress/model/architecture.h"
#include "compress/model/rope_positions.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  try {
    const auto arch = llmpress::parse_architecture(
        std::string(reinterpret_cast<const char*>(data), size), "fuzz");
    // Angles of the size of an ordinary head, whatever the scaling.
    for (const llmpress::RopeConfig& rope : arch.ropes) {
      if (rope.dim <= 512) rope_frequencies(rope);
    }
  } catch (const llmpress::Error&) {
    // what broken files are for
  }
  return 0;
}
