#include "compress/calibration/dense_block.h"

namespace llmpress {

BlockWeights DenseBlock::runnable() const {
  BlockWeights weights{.linears = {}, .norms = norms, .parameters = parameters};
  for (const DenseLinear& linear : linears) {
    weights.linears.push_back(linear.stored);
    if (linear.changed) {
      weights.linears.back().weight = make_dense(linear.W.view(), DType::kF32);
    }
  }
  return weights;
}

std::map<std::string, DType> read_norm_dtypes(const Checkpoint& checkpoint,
                                              const Architecture& arch,
                                              std::size_t layer) {
  std::map<std::string, DType> dtypes;
  for (const NormSpec& norm : arch.block(layer).norms) {
    const TensorInfo* info = checkpoint.tensors().find(
        arch.block_name(layer) + "." + norm.name + ".weight");
    dtypes[norm.name] = info == nullptr ? DType::kF32 : info->dtype;
  }
  return dtypes;
}

DenseBlock load_dense_block(const Checkpoint& checkpoint,
                            const Architecture& arch, std::size_t layer) {
  BlockWeights stored = read_block(checkpoint, arch, layer);
  DenseBlock block{.linears = {},
                   .norms = std::move(stored.norms),
                   .norm_dtypes = read_norm_dtypes(checkpoint, arch, layer),
                   .parameters = std::move(stored.parameters)};
  for (std::size_t l = 0; l < stored.linears.size(); ++l) {
    LinearWeights& linear = stored.linears[l];
    DenseLinear dense{.W = dequantize(linear.weight)};
    if (const auto* plain = std::get_if<DenseWeight>(&linear.weight)) {
      // A checkpoint that is changed as it is read gives float32 where its file
      // holds a narrower type, which is what the result is rounded to.
      const TensorInfo* info =
          checkpoint.tensors().find(arch.linear_name(layer, l) + ".weight");
      dense.dtype = info == nullptr ? plain->dtype : info->dtype;
      dense.changed = dense.dtype != plain->dtype;
    }
    dense.stored = std::move(linear);
    block.linears.push_back(std::move(dense));
  }
  return block;
}

LinearWeights kept_form(const DenseLinear& linear) {
  LinearWeights kept = linear.stored;
  if (linear.changed) {
    kept.weight =
        make_dense(linear.W.view(), linear.dtype.value_or(DType::kF32));
  }
  return kept;
}

}  // namespace llmpress
