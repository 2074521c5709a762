// A block whose numbers learn.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/model/block.h"
#include "compress/model/training/lora_linear.h"
#include "compress/model/training/parameter.h"
#include "compress/model/training/trainable_linear.h"

namespace llmpress {

// Whether the tensor of this name learns.
using LearningChoice = std::function<bool(const std::string& tensor)>;
// The adapter that learns beside the Linear of this module path, which is
// frozen then; nothing: none.
using AdapterChoice =
    std::function<std::optional<LoraConfig>(const std::string& linear)>;

class TrainableBlock {
 public:
  // `arch` must outlive the block. Linears that do not learn stay in the form
  // in which they are stored; the others must be dense (Error(kInvalidArgument)
  // naming one that is packed). `adapts` may be empty; it goes before `learns`.
  TrainableBlock(const Architecture& arch, std::size_t layer,
                 BlockWeights weights, const LearningChoice& learns,
                 const AdapterChoice& adapts, const BlockOptions& options);

  const Block& block() const { return block_; }
  // What learns, in the order of the program's tables.
  std::vector<Parameter> parameters();
  // After the values of parameters were changed.
  void values_changed();
  // See Block::run_backward; adds to the parameters' gradients.
  void run_backward(BlockPass& pass, std::span<const Segment> segments,
                    StreamGradient& stream, ThreadPool& pool);
  std::size_t bytes() const;

 private:
  void add_linear(std::size_t index, LinearWeights weights,
                  const LearningChoice& learns, const AdapterChoice& adapts,
                  Isa isa);

  const Architecture* arch_;
  std::size_t layer_;
  std::map<std::string, NormWeights> norms_;  // as they are stored
  std::vector<std::vector<float>> values_;    // of other parameters
  std::vector<bool> norm_learns_, value_learns_;
  Block block_;
  std::vector<std::unique_ptr<TrainableLinear>> linears_;
  std::vector<ReversibleLinear*> reversible_;
  BlockGradients gradients_;
};

}  // namespace llmpress
