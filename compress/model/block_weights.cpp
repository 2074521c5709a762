// Reading the weights of one block.
#include <algorithm>
#include <utility>

#include "compress/core/error.h"
#include "compress/model/block.h"

namespace llmpress {
namespace {

[[noreturn]] void invalid(const Checkpoint& checkpoint,
                          const std::string& what) {
  throw Error(ErrorCode::kInvalidInput,
              checkpoint.path().string() + ": " + what);
}

// Some quantizers write a bias of zeros for every Linear: that is no bias.
void check_bias(const Checkpoint& checkpoint, const std::string& name,
                const LinearSpec& spec, std::vector<float>& bias) {
  if (spec.bias) {
    if (bias.size() != spec.out) {
      invalid(checkpoint, "'" + name + "' has a bias of " +
                              std::to_string(bias.size()) + ", wanted " +
                              std::to_string(spec.out));
    }
    return;
  }
  if (std::any_of(bias.begin(), bias.end(), [](float b) { return b != 0; })) {
    invalid(checkpoint,
            "'" + name +
                "' has a bias, but config.json says that it has none "
                "(attention_bias, mlp_bias)");
  }
  bias.clear();
}

}  // namespace

std::size_t norm_width(const Architecture& arch, const std::string& norm) {
  const bool per_head =
      norm == arch.block.query_norm || norm == arch.block.key_norm;
  return per_head ? arch.head_dim : arch.hidden;
}

NormWeights read_norm(const Checkpoint& checkpoint, const Architecture& arch,
                      const std::string& name, std::size_t width) {
  NormWeights norm;
  norm.gain = read_vector(checkpoint.tensors(), name + ".weight", width);
  if (arch.norm == NormKind::kLayer &&
      checkpoint.tensors().find(name + ".bias") != nullptr) {
    norm.bias = read_vector(checkpoint.tensors(), name + ".bias", width);
  }
  return norm;
}

BlockWeights read_block(const Checkpoint& checkpoint, const Architecture& arch,
                        std::size_t layer) {
  BlockWeights block;
  for (std::size_t i = 0; i < arch.block.linears.size(); ++i) {
    const LinearSpec& spec = arch.block.linears[i];
    const std::string name = arch.linear_name(layer, i);
    LinearWeights linear = checkpoint.read_linear(name);
    const std::size_t out = rows_of(linear.weight), in = cols_of(linear.weight);
    if (out != spec.out || in != spec.in) {
      invalid(checkpoint, "'" + name + "' is [" + std::to_string(out) + ", " +
                              std::to_string(in) + "], wanted [" +
                              std::to_string(spec.out) + ", " +
                              std::to_string(spec.in) + "]");
    }
    check_bias(checkpoint, name, spec, linear.bias);
    block.linears.push_back(std::move(linear));
  }
  for (const std::string& norm : arch.block.norms) {
    block.norms[norm] =
        read_norm(checkpoint, arch, arch.block_name(layer) + "." + norm,
                  norm_width(arch, norm));
  }
  return block;
}

}  // namespace llmpress
