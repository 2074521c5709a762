// A Linear on its way out: the tensors to store and what the configuration must
// say about them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "compress/core/packed_weight.h"
#include "formats/containers/tensor_io.h"
#include "formats/linears/quantization_config.h"

namespace llmpress {

struct EncodedLinear {
  std::vector<NamedTensor> tensors{};
  LinearScheme scheme{};
  LinearExtension extension{};
  // Of the first tensor, if it is blocks of GGUF: its octets are U8, and the
  // last of its shape counts them.
  std::optional<GgmlType> blocks{};
};

// `<name>.bias`, when there is one, in `preferred` if that loses nothing.
void add_bias(const std::string& name, const LinearWeights& linear,
              DType preferred, EncodedLinear& encoded);

}  // namespace llmpress
