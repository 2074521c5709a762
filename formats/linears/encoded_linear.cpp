#include "formats/linears/encoded_linear.h"

#include "formats/containers/typed_tensors.h"

namespace llmpress {

void add_bias(const std::string& name, const LinearWeights& linear,
              DType preferred, EncodedLinear& encoded) {
  if (linear.bias.empty()) return;
  if (linear.bias.size() != rows_of(linear.weight)) {
    throw Error(ErrorCode::kInvalidArgument,
                "Linear '" + name + "': bias has " +
                    std::to_string(linear.bias.size()) + " values, wanted " +
                    std::to_string(rows_of(linear.weight)));
  }
  encoded.tensors.push_back(lossless_float_tensor(
      name + ".bias", preferred, {linear.bias.size()}, linear.bias));
}

}  // namespace llmpress
