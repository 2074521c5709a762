// Octets as layers.json of a finished block, which a run started again reads.
#include "compress/core/error.h"
#include "compress/pipeline/reports/layer_report_json.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  using namespace llmpress;
  try {
    const auto layers =
        layers_from_json({reinterpret_cast<const char*>(data), size}, "fuzz");
    if (layers_from_json(layers_to_json(layers), "fuzz").size() !=
        layers.size()) {
      __builtin_trap();
    }
  } catch (const Error&) {
  }
  return 0;
}
