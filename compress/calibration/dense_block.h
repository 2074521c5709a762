// A block's weights as float32 while stages change them.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "compress/core/dtype.h"
#include "compress/core/matrix.h"
#include "compress/model/architecture.h"
#include "compress/model/block.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

struct DenseLinear {
  MatrixF W;               // [out, in]
  LinearWeights stored{};  // as it was read; bias, activations, rotation
  bool changed = false;    // W is no longer what `stored.weight` decodes to
  std::optional<DType> dtype{};  // of a dense `stored.weight`
};

DenseLinear dense_linear(LinearWeights stored, ThreadPool& pool);

struct DenseBlock {
  std::vector<DenseLinear> linears{};  // in the order of BlockSpec::linears
  // `linears` is empty: each is read when it is worked on.
  bool unread = false;
  std::map<std::string, NormWeights> norms{};
  std::map<std::string, DType> norm_dtypes{};
  std::vector<std::vector<float>> parameters{};  // as BlockWeights has them

  // As a runner wants it: changed weights in float32, the others as stored.
  LinearWeights runnable(std::size_t linear) const;
};

// Runs it; beside its kernels no more than one Linear is copied.
Block runner_of(const Architecture& arch, std::size_t layer,
                const DenseBlock& block, BlockOptions options);

DenseBlock load_dense_block(const Checkpoint& checkpoint,
                            const Architecture& arch, std::size_t layer,
                            ThreadPool& pool);
// All but its Linears, and one of them: for who needs no more than one in
// float32 at a time.
DenseBlock load_unread_block(const Checkpoint& checkpoint,
                             const Architecture& arch, std::size_t layer);
DenseLinear load_dense_linear(const Checkpoint& checkpoint,
                              const Architecture& arch, std::size_t layer,
                              std::size_t linear, ThreadPool& pool);

// The types in which the norms of a block are stored.
std::map<std::string, DType> read_norm_dtypes(const Checkpoint& checkpoint,
                                              const Architecture& arch,
                                              std::size_t layer);

// What a weight that no stage packed is written as: unchanged as it was stored,
// changed in the type it was stored in (float32 if it was packed).
LinearWeights kept_form(const DenseLinear& linear);

}  // namespace llmpress
