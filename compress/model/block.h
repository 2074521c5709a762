// One decoder block, run stage by stage so that calibration can look at (and
// replace) the Linears of a stage before the next one runs:
//   begin; for each stage: [state.stage_input is X]; run_stage.
// What happens in between is the block's program (program.h). All arithmetic
// between the Linears is in float32, and a row's result does not depend on the
// number of threads.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "compress/core/ranks.h"
#include "compress/kernels/cpu.h"
#include "compress/kernels/linear_kernel.h"
#include "compress/model/architecture.h"
#include "compress/model/block_weights.h"
#include "compress/model/kv_prefix.h"
#include "compress/model/kv_rounding.h"

namespace llmpress {

// The rotary embeddings of a model, shared by its blocks.
using RopeTablesOfModel = std::vector<std::shared_ptr<RopePositions>>;
RopeTablesOfModel make_ropes(const Architecture& arch);

// Rows of all segments one after another.
struct BlockState {
  MatrixF hidden{};  // [tokens, hidden], the residual stream
  // Input of the stage that runs next: [rows, stage.in]. The rows are tokens,
  // or grouped by expert as `routing` says.
  MatrixF stage_input{};
  std::shared_ptr<const Routing> routing{};
  // What else later operations read, by ValueId; empty outside of a block.
  std::vector<Activations> others{};
  // What travels between blocks beside the stream, by channel.
  std::vector<Activations> carried{};
};

// What the operations of a pass read and wrote, kept to run it in reverse.
struct BlockPass {
  std::vector<Activations> values{};  // [BlockSpec::values]
  // dL/d of values that a loss looks at inside of the block.
  std::map<std::size_t, MatrixF> gradients{};  // by ValueId
};

// dL/d of what stands between two blocks, made block by block from the last.
struct StreamGradient {
  MatrixF hidden{};  // [tokens, hidden]
  // Of what travels beside the stream, by channel; empty: nothing depends on
  // it.
  std::vector<MatrixF> carried{};
};

// How a block runs.
struct BlockOptions {
  Isa isa = best_isa();
  // How the KV cache or, without one, the keys and values of this pass are
  // rounded.
  KvFormat kv{};
  // Blocks of one model may share them; null: made here.
  RopeTablesOfModel ropes{};
  // Of Linears that take floats.
  InputPrecision inputs = InputPrecision::kExact;
  // Who has the rows of its Linears; passes are collective then.
  Ranks tensor{};
  std::size_t first_layer = 0;  // of those that this process has
  // Widened by whatever runs through the block; null: not wanted. Must outlive
  // the block.
  KvRanges* kv_ranges = nullptr;
};

// A block with its weights laid out for the kernels.
class Block {
 public:
  // Prepares a kernel for every Linear. `arch` must outlive the block. Throws
  // Error(kInvalidInput) if the weights are not of the shapes of `arch`.
  Block(const Architecture& arch, std::size_t layer,
        const BlockWeights& weights, BlockOptions options);
  // `rest` without Linears: each is read when its kernel is prepared and gone
  // before the next.
  using LinearReader = std::function<LinearWeights(std::size_t linear)>;
  Block(const Architecture& arch, std::size_t layer, const BlockWeights& rest,
        const LinearReader& read, BlockOptions options);
  // Each has the kernel that is made for it.
  using KernelMaker =
      std::function<std::unique_ptr<LinearKernel>(std::size_t linear)>;
  Block(const Architecture& arch, std::size_t layer, const BlockWeights& rest,
        const KernelMaker& make, BlockOptions options);
  Block(const Architecture& arch, std::size_t layer,
        const BlockWeights& weights, Isa isa, KvFormat kv = {})
      : Block(arch, layer, weights, {.isa = isa, .kv = kv, .ropes = {}}) {}

  std::size_t layer() const { return layer_; }
  const std::optional<KvScheme>& kv_scheme() const { return kv_scheme_; }
  const BlockSpec& spec() const { return arch_->block(layer_); }
  const LinearKernel& linear(std::size_t index) const {
    return *linears_[index];
  }
  void replace_linear(std::size_t index, const LinearWeights& weights);
  // What runs the Linear from now on, made from what ran it.
  void wrap_linear(std::size_t index,
                   const std::function<std::unique_ptr<LinearKernel>(
                       std::unique_ptr<LinearKernel>)>& wrap);
  // After scales moved into or out of a norm.
  void replace_norm(const std::string& name, const NormWeights& weights);
  void replace_parameter(std::size_t index, std::span<const float> values);
  // Probabilities of attention that passes leave out from now on, as training
  // does; not with caches.
  void set_attention_dropout(const Dropout& dropout) { dropout_ = dropout; }
  // What stands before every sequence from now on; empty: nothing. Segments
  // without a cache then say its tokens as their past, and a cache holds it
  // before they come. Throws Error(kInvalidInput) for shapes that do not fit;
  // as check_prefix_possible().
  void set_prefix(BlockPrefix prefix, ThreadPool& pool);
  // As a cache holds it.
  const BlockPrefix& prefix() const { return prefix_; }
  std::size_t prefix_tokens() const;
  // From now on every expert sees every token, those that it was not chosen for
  // with weight zero.
  void route_to_all_experts() { all_experts_ = true; }
  std::size_t bytes() const;  // of the prepared weights

  // Sets state.stage_input for stage 0 from state.hidden.
  void begin(BlockState& state, std::span<const Segment> segments,
             ThreadPool& pool) const;
  // Runs the Linears of `stage` and what follows them up to the next stage:
  // sets its stage_input, and `hidden` to the stream as it then is. After the
  // last stage stage_input is empty. Segments with a cache are appended to it,
  // which needs segment.past == cache->tokens() (Error(kInvalidArgument)).
  void run_stage(std::size_t stage, std::span<const Segment> segments,
                 BlockState& state, ThreadPool& pool) const;
  // begin() and all stages.
  void run(std::span<const Segment> segments, BlockState& state,
           ThreadPool& pool) const;
  // run() of segments that stand alone, with everything kept.
  BlockPass run_keeping(std::span<const Segment> segments, BlockState& state,
                        ThreadPool& pool) const;
  // The pass in reverse: turns the gradient behind the block into that in front
  // of it, and adds to those of its own numbers. `pass` is used up.
  void run_backward(BlockPass& pass, std::span<const Segment> segments,
                    std::span<ReversibleLinear* const> linears,
                    BlockGradients& own, StreamGradient& stream,
                    ThreadPool& pool) const;

 private:
  enum class Keep { kNothing, kAll };
  void prepare(const BlockWeights& weights);
  void check_shape(std::size_t index, std::size_t out, std::size_t in) const;
  void run_operations(std::size_t begin, std::size_t end,
                      std::vector<Activations>& values,
                      const OpContext& context,
                      Keep keep = Keep::kNothing) const;
  // Values of a block that begins, and what is left when it ends.
  std::vector<Activations> enter(BlockState& state,
                                 std::span<const Segment> segments) const;
  void leave(std::vector<Activations> values, BlockState& state) const;
  void expose(std::size_t stage, std::vector<Activations> values,
              BlockState& state) const;
  OpContext context(std::span<const Segment> segments, ThreadPool& pool) const;

  const Architecture* arch_;
  std::size_t layer_;
  BlockOptions options_;
  bool all_experts_ = false;
  Dropout dropout_{};
  std::vector<std::unique_ptr<LinearKernel>> linears_;
  std::vector<NormWeights> norms_;  // as they multiply
  std::vector<std::vector<float>> parameters_;
  std::optional<KvScheme> kv_scheme_;
  BlockPrefix prefix_{};
};

}  // namespace llmpress
