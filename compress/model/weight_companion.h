// What runs beside the stored weights of a model without being part of them: an
// adapter that is kept unmerged. A decoder asks it once for every Linear.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/kernels/linear_kernel.h"
#include "compress/model/kv_prefix.h"
#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

class WeightCompanion {
 public:
  virtual ~WeightCompanion() = default;
  // What runs the Linear `name` ("model.layers.0.self_attn.q_proj", or the
  // head) in the place of `kernel`, which was prepared from `weights`.
  virtual std::unique_ptr<LinearKernel> beside(
      const std::string& name, const LinearWeights& weights,
      std::unique_ptr<LinearKernel> kernel) const = 0;
  // What stands before every sequence, by block; empty: nothing.
  virtual std::vector<BlockPrefix> prefix() const { return {}; }
  // X [tokens, hidden] comes in as rows of the embedding.
  virtual void change_embedding(std::span<const TokenId> tokens,
                                MatrixView<float> X) const = 0;
};

}  // namespace llmpress
