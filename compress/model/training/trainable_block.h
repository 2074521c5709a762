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
#include "compress/model/training/gated_linear.h"
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

// What stands around a Linear instead of it, made from it.
using LinearWrap = std::function<std::unique_ptr<TrainableLinear>(
    std::size_t layer, std::size_t linear, std::unique_ptr<TrainableLinear>)>;

// What stands before every sequence of a block when training begins.
using PrefixChoice = std::function<BlockPrefix(std::size_t layer)>;

// How the numbers of a model learn. For a Linear the first that has something
// to say of it decides: `makes`, `adapts`, `learns`.
struct ModelLearning {
  LinearMaker makes{};     // empty: none
  AdapterChoice adapts{};  // empty: no adapters
  LearningChoice learns{};
  // Keys and values that stand before every sequence and learn, as many tokens
  // in every block; empty: none.
  PrefixChoice prefix{};
  // [virtual tokens, hidden]: rows of the stream that stand before every
  // sequence and learn (prompt tuning, arXiv:2104.08691); empty: none.
  MatrixF prompt{};
  // Around a Linear of a block, or the head (layer: how many there are).
  LinearWrap wraps{};  // empty: nothing
  // Probabilities that what a Linear adds to the stream, and a probability of
  // attention, is left out of a pass.
  float dropout = 0, attention_dropout = 0;
};

// The Linear of this module path as `learning` says. A packed one that learns
// has scales that do (scaled_linear.h). Throws Error naming the Linear.
std::unique_ptr<TrainableLinear> make_trainable_linear(
    const std::string& name, LinearWeights weights,
    const ModelLearning& learning, Isa isa);

class TrainableBlock {
 public:
  // `arch` must outlive the block. Linears that do not learn stay in the form
  // in which they are stored. Throws Error(kUnsupported) for a dropout of what
  // is added to a stream that is changed in other ways too, or of attention's
  // probabilities behind a prefix.
  TrainableBlock(const Architecture& arch, std::size_t layer,
                 BlockWeights weights, const ModelLearning& learning,
                 const BlockOptions& options);

  const Block& block() const { return block_; }
  // What learns, in the order of the program's tables.
  std::vector<Parameter> parameters();
  // After the values of parameters were changed.
  void values_changed(ThreadPool& pool);
  // What the passes from now on leave out; nothing: they are whole.
  void set_dropout(std::optional<std::uint64_t> seed);
  // [BlockSpec::linears]
  const TrainableLinear& linear(std::size_t index) const {
    return *linears_[index];
  }
  // See Block::run_backward; adds to the parameters' gradients.
  void run_backward(BlockPass& pass, std::span<const Segment> segments,
                    StreamGradient& stream, ThreadPool& pool);
  std::size_t bytes() const;

 private:
  void add_linear(std::size_t index, LinearWeights weights,
                  const ModelLearning& learning, Isa isa);
  void add_prefix(BlockPrefix prefix);
  void list_prefix(std::vector<Parameter>& to);

  const Architecture* arch_;
  std::size_t layer_;
  std::map<std::string, NormWeights> norms_;  // as they are stored
  std::vector<std::vector<float>> values_;    // of other parameters
  std::vector<bool> norm_learns_, value_learns_;
  Block block_;
  std::vector<std::unique_ptr<TrainableLinear>> linears_;
  std::vector<ReversibleLinear*> reversible_;
  float dropout_, attention_dropout_;
  std::vector<DroppedLinear*> dropped_{};  // of linears_
  BlockPrefix prefix_{};
  BlockGradients gradients_;
};

}  // namespace llmpress
