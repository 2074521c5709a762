#include "formats/linears/encoded_linear.h"

#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {

void add_bias(const std::string& name, const LinearWeights& linear,
              DType preferred, EncodedLinear& encoded) {
  if (linear.bias.empty()) return;
  if (linear.bias.size() != rows_of(linear.weight)) {
    fail(ErrorCode::kInvalidArgument,
         "Linear '{}': bias has {} values, wanted {}", name, linear.bias.size(),
         rows_of(linear.weight));
  }
  encoded.tensors.push_back(lossless_float_tensor(
      name + ".bias", preferred, {linear.bias.size()}, linear.bias));
}

}  // namespace llmpress
