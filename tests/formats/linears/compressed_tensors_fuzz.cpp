// Octets as a packed model: up to the first line feed config.json, after it a
// safetensors file; every module that a tensor's name can stand for is read as
// a Linear and decoded.
#include <algorithm>
#include <memory>
#include <set>

#include "compress/core/error.h"
#include "formats/checkpoints/expert_stacks.h"
#include "formats/containers/safetensors.h"
#include "formats/linears/linear_form.h"

namespace {

std::set<std::string> modules_of(const llmpress::TensorReader& reader) {
  std::set<std::string> modules;
  for (const auto& info : reader.tensors()) {
    const std::string& name = info.name;
    for (std::size_t at = name.find('.'); at != std::string::npos;
         at = name.find('.', at + 1)) {
      modules.insert(name.substr(0, at));
    }
  }
  return modules;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  using namespace llmpress;
  const unsigned char* const line = std::find(data, data + size, '\n');
  const std::string config(data, line);
  const std::span rest(std::min(line + 1, data + size), data + size);
  try {
    const QuantizationConfig quantization =
        parse_quantization_config(config, "fuzz");
    std::unique_ptr<TensorReader> reader =
        read_safetensors({std::as_bytes(rest), {}}, "fuzz");
    unstack_experts(reader, config, "fuzz");
    for (const std::string& module : modules_of(*reader)) {
      try {
        const LinearWeights linear =
            read_linear({*reader, module, quantization.scheme_of(module),
                         quantization.extension_of(module),
                         quantization.int8_threshold, quantization.method},
                        "fuzz");
        if (dequantize(linear.weight).rows() != rows_of(linear.weight)) {
          __builtin_trap();
        }
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
