// One decoder block, run stage by stage so that calibration can look at (and
// replace) the Linears of a stage before the next one runs:
//   begin; for each stage: [state.stage_input is X]; run_stage.
//
//   x += o(attention(rope(norm(q)), rope(norm(k)), v));  q, k, v of norm(x)
//   x += down(act(gate) * up);                           gate, up of norm(x)
//
// All arithmetic between the Linears is in float32, and a row's result does not
// depend on the number of threads.
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
#include "compress/kernels/cpu.h"
#include "compress/kernels/linear_kernel.h"
#include "compress/model/architecture.h"
#include "compress/model/kv_cache.h"
#include "compress/model/rope_positions.h"
#include "formats/checkpoint.h"

namespace llmpress {

struct NormWeights {
  std::vector<float> gain{}, bias{};  // bias empty for RMS norms
};

// The weights of one block as they are stored.
struct BlockWeights {
  std::vector<LinearWeights> linears{};  // [BlockSpec::linears.size()]
  std::map<std::string, NormWeights> norms{};
};

// Throws Error(kInvalidInput) naming the first missing, misshapen or non-finite
// tensor, or a bias that config.json does not speak of (unless it is zero).
BlockWeights read_block(const Checkpoint& checkpoint, const Architecture& arch,
                        std::size_t layer);
// The width of a norm of the block: hidden, or head_dim for per-head norms.
std::size_t norm_width(const Architecture& arch, const std::string& norm);
NormWeights read_norm(const Checkpoint& checkpoint, const Architecture& arch,
                      const std::string& name, std::size_t width);

// Consecutive rows of a batch that belong to one sequence.
struct Segment {
  std::size_t rows = 0;
  std::size_t past = 0;      // tokens of the sequence already in `cache`
  KvCache* cache = nullptr;  // null: the segment stands alone (past = 0)
};

// Rows of all segments one after another.
struct BlockState {
  MatrixF hidden;       // [tokens, hidden], the residual stream
  MatrixF stage_input;  // [tokens, stage.in], input of the stage that runs next
};

// A block with its weights laid out for the kernels.
class Block {
 public:
  // Keeps norms; prepares a kernel for every Linear. How the KV cache or,
  // without one, the keys and values of this pass are rounded follows `kv`.
  // `arch` must outlive the block. Blocks of one model may share their
  // `positions`. Throws Error(kInvalidInput) if the weights are not of the
  // shapes of `arch`.
  Block(const Architecture& arch, std::size_t layer,
        const BlockWeights& weights, Isa isa, KvFormat kv = {},
        std::shared_ptr<RopePositions> positions = nullptr);

  std::size_t layer() const { return layer_; }
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
  std::size_t bytes() const;  // of the prepared weights

  // Sets state.stage_input for stage 0 from state.hidden.
  void begin(BlockState& state, ThreadPool& pool) const;
  // Runs the Linears of `stage` and the glue after them: sets stage_input of
  // the next stage; after stages that add to the residual, `hidden` too. After
  // the last stage stage_input is empty. Segments with a cache are appended to
  // it, which needs segment.past == cache->tokens() (Error(kInvalidArgument)).
  void run_stage(std::size_t stage, std::span<const Segment> segments,
                 BlockState& state, ThreadPool& pool) const;
  // begin() and all stages.
  void run(std::span<const Segment> segments, BlockState& state,
           ThreadPool& pool) const;

 private:
  MatrixF apply(std::size_t index, ConstMatrixView X, ThreadPool& pool) const;
  MatrixF normed(const std::string& norm, const MatrixF& X,
                 ThreadPool& pool) const;
  void norm_heads(const std::string& norm, MatrixF& X, ThreadPool& pool) const;
  void rotate(std::span<const Segment> segments, MatrixF& Q, MatrixF& K,
              ThreadPool& pool) const;
  MatrixF attend(const StageSpec& stage, std::span<const Segment> segments,
                 ConstMatrixView X, ThreadPool& pool) const;

  const Architecture* arch_;
  std::size_t layer_;
  Isa isa_;
  KvFormat kv_;
  std::shared_ptr<RopePositions> positions_;
  std::vector<std::unique_ptr<LinearKernel>> linears_;
  std::map<std::string, NormWeights> norms_;
};

}  // namespace llmpress
