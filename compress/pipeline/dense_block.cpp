#include "compress/pipeline/dense_block.h"

namespace llmpress {

BlockWeights DenseBlock::runnable() const {
  BlockWeights weights{.linears = {}, .norms = norms};
  for (const DenseLinear& linear : linears) {
    weights.linears.push_back(linear.stored);
    if (linear.changed) {
      weights.linears.back().weight = make_dense(linear.W.view(), DType::kF32);
    }
  }
  return weights;
}

DenseBlock load_dense_block(const Checkpoint& checkpoint,
                            const Architecture& arch, std::size_t layer) {
  BlockWeights stored = read_block(checkpoint, arch, layer);
  DenseBlock block{.linears = {}, .norms = std::move(stored.norms)};
  for (LinearWeights& linear : stored.linears) {
    DenseLinear dense{.W = dequantize(linear.weight)};
    if (const auto* plain = std::get_if<DenseWeight>(&linear.weight)) {
      dense.dtype = plain->dtype;
    }
    dense.stored = std::move(linear);
    block.linears.push_back(std::move(dense));
  }
  for (const auto& [name, norm] : block.norms) {
    const TensorInfo* info = checkpoint.tensors().find(
        arch.block_name(layer) + "." + name + ".weight");
    block.norm_dtypes[name] = info == nullptr ? DType::kF32 : info->dtype;
  }
  return block;
}

LinearWeights kept_form(const DenseLinear& linear) {
  LinearWeights kept = linear.stored;
  if (linear.changed) {
    kept.weight = make_dense(linear.W.view(), linear.dtype.value_or(DType::kF32));
  }
  return kept;
}

}  // namespace llmpress
