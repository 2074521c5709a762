#include "compress/calibration/dense_block.h"

#include <utility>

namespace llmpress {

DenseLinear dense_linear(LinearWeights stored, ThreadPool& pool) {
  DenseLinear linear{.W = dequantize(stored.weight, pool)};
  if (const auto* plain = std::get_if<DenseWeight>(&stored.weight)) {
    linear.dtype = plain->dtype;
  }
  linear.stored = std::move(stored);
  return linear;
}

LinearWeights DenseBlock::runnable(std::size_t linear) const {
  const auto& [W, stored, changed, dtype] = linears[linear];
  if (!changed) return stored;
  return {.weight = make_dense(W.view(), DType::kF32),
          .bias = stored.bias,
          .input = stored.input,
          .input_hadamard = stored.input_hadamard};
}

Block runner_of(const Architecture& arch, std::size_t layer,
                const DenseBlock& block, BlockOptions options) {
  return Block(
      arch, layer, {.norms = block.norms, .parameters = block.parameters},
      [&](std::size_t l) { return block.runnable(l); }, std::move(options));
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

DenseLinear load_dense_linear(const Checkpoint& checkpoint,
                              const Architecture& arch, std::size_t layer,
                              std::size_t index, ThreadPool& pool) {
  DenseLinear linear =
      dense_linear(read_block_linear(checkpoint, arch, layer, index), pool);
  if (!linear.dtype) return linear;
  // A checkpoint that is changed as it is read gives float32 where its file
  // holds a narrower type, which is what the result is rounded to.
  const TensorInfo* const info =
      checkpoint.tensors().find(arch.linear_name(layer, index) + ".weight");
  if (info == nullptr) return linear;
  linear.changed = info->dtype != *linear.dtype;
  linear.dtype = info->dtype;
  return linear;
}

DenseBlock load_unread_block(const Checkpoint& checkpoint,
                             const Architecture& arch, std::size_t layer) {
  return {.linears = {},
          .unread = true,
          .norms = read_block_norms(checkpoint, arch, layer),
          .norm_dtypes = read_norm_dtypes(checkpoint, arch, layer),
          .parameters = read_block_parameters(checkpoint, arch, layer)};
}

DenseBlock load_dense_block(const Checkpoint& checkpoint,
                            const Architecture& arch, std::size_t layer,
                            ThreadPool& pool) {
  DenseBlock block = load_unread_block(checkpoint, arch, layer);
  block.unread = false;
  for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
    block.linears.push_back(
        load_dense_linear(checkpoint, arch, layer, l, pool));
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
