// What an operation of a block program works on when it runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/matrix_reuse.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"
#include "compress/kernels/dropout.h"
#include "compress/kernels/linear_kernel.h"
#include "compress/model/kv_prefix.h"
#include "compress/model/kv_rounding.h"
#include "compress/model/norm_weights.h"
#include "compress/model/rope_positions.h"
#include "compress/model/sequence_cache.h"
#include "formats/linears/kv_scheme.h"

namespace llmpress {

// Which expert sees which tokens. The rows of a routed value are grouped by
// expert: rows [offsets[e], offsets[e + 1]) are expert e's, in the order of the
// tokens.
struct Routing {
  std::size_t tokens = 0;
  std::vector<std::size_t> offsets{};  // [experts + 1]
  std::vector<std::uint32_t> token{};  // [routed rows]
  std::vector<float> weight{};         // [routed rows]
  // [routed rows] or empty: the expert was not chosen, and what it gives is
  // dropped (OpContext::all_experts).
  std::vector<bool> idle{};

  std::size_t experts() const { return offsets.size() - 1; }
  std::size_t rows() const { return token.size(); }
};

// A value while its block runs.
struct Activations {
  MatrixF rows{};                            // [tokens or routed rows, width]
  std::shared_ptr<const Routing> routing{};  // of routes and routed values
};

// Consecutive rows of a batch that belong to one sequence.
struct Segment {
  std::size_t rows = 0;
  std::size_t past = 0;      // tokens of the sequence already in `cache`
  KvCache* cache = nullptr;  // null: the segment stands alone, but for a prefix
};

// What of a block an operation may need beside its inputs.
struct OpContext {
  std::size_t layer = 0;
  std::size_t first_layer = 0;  // that this process has
  std::span<const Segment> segments{};
  std::span<const std::unique_ptr<LinearKernel>> linears{};
  std::span<const NormWeights> norms{};              // as they multiply
  std::span<const std::vector<float>> parameters{};  // flat
  std::span<const std::shared_ptr<RopePositions>> ropes{};
  KvFormat kv{};
  const KvScheme* kv_scheme = nullptr;  // the checkpoint's own, if any
  KvRanges* kv_ranges = nullptr;        // widened where they are wanted
  // Before every segment, by slot; empty: nothing. Segments without a cache
  // have so many tokens of the past.
  std::span<const KvPrefix> prefix{};
  bool all_experts = false;     // every expert sees every token
  Dropout attention_dropout{};  // of probabilities, in training
  Isa isa = Isa::kScalar;
  ThreadPool* pool = nullptr;
};

// The inputs and outputs of one operation.
struct OpArguments {
  std::vector<Activations*> in{};
  std::vector<bool> last_use{};  // of in[i]: nothing reads it afterwards
  std::vector<Activations*> out{};

  void clear() {
    in.clear();
    last_use.clear();
    out.clear();
  }
  ConstMatrixView input(std::size_t i) const {
    return std::as_const(in[i]->rows).view();
  }
  // The rows of in[i] to be changed: moved if this is their last use.
  MatrixF take(std::size_t i) const {
    return last_use[i] ? std::move(in[i]->rows) : in[i]->rows;
  }
  // Of the shape of in[i] and any content: its own buffer if this is its last
  // use, where views of it stay good.
  MatrixF output_like(std::size_t i) const {
    MatrixF& rows = in[i]->rows;
    return last_use[i] ? std::move(rows)
                       : unset_matrix(rows.rows(), rows.cols());
  }
  // out[0] with the routing of in[i].
  void put(MatrixF rows, std::size_t i = 0) const {
    out[0]->rows = std::move(rows);
    out[0]->routing = in[i]->routing;
  }
};

}  // namespace llmpress
