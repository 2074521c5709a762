// What an operation of a block program works on when it runs in reverse.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/model/ops/op_context.h"

namespace llmpress {

struct NormGradients {
  std::vector<float> gain{}, bias{};
};

// What the loss changes by with a block's own numbers, added to while the block
// runs in reverse. A part that is empty is not wanted. Linears keep their own
// (ReversibleLinear).
struct BlockGradients {
  std::vector<NormGradients> norms{};            // [BlockSpec::norms]
  std::vector<std::vector<float>> parameters{};  // [BlockSpec::parameters]
  BlockPrefix prefix{};
  // [routed rows] of each routing of the pass: with respect to its weights.
  std::map<const Routing*, std::vector<float>> routing{};
};

// sum += d; a sum that is empty becomes d.
void add_matrix(MatrixF& sum, MatrixF d);

// A Linear that can run in reverse. A frozen one gives dX alone; one that
// learns adds to its own gradients as well.
class ReversibleLinear {
 public:
  virtual ~ReversibleLinear() = default;
  // X [rows, in] as it went in, dY [rows, out]; dX [rows, in] is added to, or
  // empty where it is not wanted.
  virtual void run_backward(ConstMatrixView X, ConstMatrixView dY,
                            MatrixView<float> dX, ThreadPool& pool) = 0;
  // The same with dX overwritten, whatever it holds.
  virtual void run_backward_over(ConstMatrixView X, ConstMatrixView dY,
                                 MatrixView<float> dX, ThreadPool& pool);
};

// A gradient on its way.
struct GradientSum {
  MatrixView<float> view{};  // empty: not wanted
  bool is_new = false;       // of any content, to be overwritten
};

// The values and gradients of one operation. The segments of a pass that is run
// in reverse stand alone: no caches, nothing of the past but a prefix.
struct OpGradients {
  std::vector<const Activations*> in{};   // as the operation read them
  std::vector<const Activations*> out{};  // as it wrote them
  // dL/d(out[i]), of the shape of out[i]; zeros where nothing depends on it.
  std::vector<const MatrixF*> d_out{};
  // dL/d(in[i]) so far, empty while nothing was added, or null where it is not
  // wanted. The same matrix twice where a value is read twice.
  std::vector<MatrixF*> d_in{};
  std::span<ReversibleLinear* const> linears{};  // [BlockSpec::linears]
  BlockGradients* own = nullptr;
  ThreadPool* pool = nullptr;  // null: zeros are written by this thread

  ConstMatrixView input(std::size_t i) const { return in[i]->rows.view(); }
  ConstMatrixView gradient(std::size_t i = 0) const { return d_out[i]->view(); }
  bool wants(std::size_t i) const { return d_in[i] != nullptr; }
  // Adds to dL/d(in[i]), if it is wanted.
  void add(std::size_t i, MatrixF d) const;
  // dL/d(in[i]) to be added to, made of zeros where it was empty; an empty view
  // where it is not wanted.
  MatrixView<float> to_add(std::size_t i) const;
  // The same without the zeros: who asks overwrites or adds.
  GradientSum to_write(std::size_t i) const;
  // Of a norm's or another parameter; empty where it is not wanted.
  std::span<float> parameter(std::size_t index) const {
    return own->parameters.empty() ? std::span<float>()
                                   : std::span<float>(own->parameters[index]);
  }
};

}  // namespace llmpress
