#include "compress/model/block.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/hadamard.h"
#include "compress/kernels/activations.h"
#include "compress/kernels/attention.h"
#include "compress/kernels/norms.h"

namespace llmpress {
namespace {

constexpr std::size_t kElementsPerTask = 16384;

void add_in_place(MatrixF& to, const MatrixF& from, ThreadPool& pool) {
  assert(to.size() == from.size());
  float* const t = to.data().data();
  const float* const f = from.data().data();
  pool.for_ranges(to.size(), kElementsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t i = begin; i < end; ++i) t[i] += f[i];
                  });
}

// The position of every row in its sequence.
std::vector<std::uint32_t> row_positions(std::span<const Segment> segments) {
  std::vector<std::uint32_t> positions;
  for (const Segment& segment : segments) {
    for (std::size_t r = 0; r < segment.rows; ++r) {
      positions.push_back(static_cast<std::uint32_t>(segment.past + r));
    }
  }
  return positions;
}

void check_segments(std::span<const Segment> segments, std::size_t rows) {
  std::size_t total = 0;
  for (const Segment& segment : segments) {
    total += segment.rows;
    const std::size_t cached = segment.cache ? segment.cache->tokens() : 0;
    if (segment.past != cached) {
      throw Error(ErrorCode::kInvalidArgument,
                  "segment: past is " + std::to_string(segment.past) +
                      ", but its cache holds " + std::to_string(cached));
    }
  }
  if (total != rows) {
    throw Error(ErrorCode::kInvalidArgument,
                "segments have " + std::to_string(total) + " rows, the batch " +
                    std::to_string(rows));
  }
}

struct KeyValues {
  MatrixF keys, values;
};
struct KvPlace {
  std::size_t layer = 0, head_dim = 0;
  KvFormat format{};  // for segments without a cache
};

// Stores new rows K, V of a segment and points `to` at all its keys and values
// as they read back; returns what had to be decoded for it.
KeyValues expose_key_values(const Segment& segment, const KvPlace& place,
                            MatrixView<float> K, MatrixView<float> V,
                            AttentionSegment& to) {
  if (segment.cache == nullptr) {
    round_kv_in_place(place.format, place.head_dim, K);
    round_kv_in_place(place.format, place.head_dim, V);
    to.keys = kv_view(K);
    to.values = kv_view(V);
    return {};
  }
  segment.cache->append(place.layer, K, V);
  if (segment.cache->format().type == KvType::kF32) {
    to.keys = segment.cache->keys(place.layer);
    to.values = segment.cache->values(place.layer);
    return {};
  }
  const std::size_t rows = segment.past + segment.rows;
  KeyValues decoded{MatrixF(rows, K.cols()), MatrixF(rows, V.cols())};
  segment.cache->read(place.layer, 0, decoded.keys.view(),
                      decoded.values.view());
  to.keys = kv_view(decoded.keys.view());
  to.values = kv_view(decoded.values.view());
  return decoded;  // moving a Matrix keeps its buffer
}

}  // namespace

Block::Block(const Architecture& arch, std::size_t layer,
             const BlockWeights& weights, Isa isa, KvFormat kv,
             std::shared_ptr<RopePositions> positions)
    : arch_(&arch),
      layer_(layer),
      isa_(isa),
      kv_(kv),
      positions_(std::move(positions)) {
  if (!positions_) positions_ = std::make_shared<RopePositions>(arch);
  if (kv_.rotate_keys && !hadamard_size_supported(arch.head_dim)) {
    throw Error(ErrorCode::kUnsupported,
                "rotated keys: there is no Hadamard transform of head_dim " +
                    std::to_string(arch.head_dim));
  }
  linears_.resize(arch.block.linears.size());
  if (weights.linears.size() != linears_.size()) {
    throw Error(ErrorCode::kInvalidInput,
                arch.block_name(layer) + ": has " +
                    std::to_string(weights.linears.size()) +
                    " Linears, wanted " + std::to_string(linears_.size()));
  }
  for (std::size_t i = 0; i < linears_.size(); ++i) {
    replace_linear(i, weights.linears[i]);
  }
  for (const std::string& name : arch.block.norms) {
    const auto norm = weights.norms.find(name);
    replace_norm(name,
                 norm == weights.norms.end() ? NormWeights{} : norm->second);
  }
}

void Block::replace_linear(std::size_t index, const LinearWeights& weights) {
  const LinearSpec& spec = arch_->block.linears.at(index);
  if (rows_of(weights.weight) != spec.out ||
      cols_of(weights.weight) != spec.in) {
    throw Error(ErrorCode::kInvalidInput,
                arch_->linear_name(layer_, index) + ": weight is [" +
                    std::to_string(rows_of(weights.weight)) + ", " +
                    std::to_string(cols_of(weights.weight)) + "], wanted [" +
                    std::to_string(spec.out) + ", " + std::to_string(spec.in) +
                    "]");
  }
  linears_[index] = make_linear_kernel(weights, isa_);
}

void Block::wrap_linear(std::size_t index,
                        const std::function<std::unique_ptr<LinearKernel>(
                            std::unique_ptr<LinearKernel>)>& wrap) {
  linears_.at(index) = wrap(std::move(linears_.at(index)));
}

void Block::replace_norm(const std::string& name, const NormWeights& weights) {
  const std::size_t width = norm_width(*arch_, name);
  if (weights.gain.size() != width ||
      (!weights.bias.empty() && weights.bias.size() != width)) {
    throw Error(ErrorCode::kInvalidInput,
                arch_->block_name(layer_) + "." + name + ": gain has " +
                    std::to_string(weights.gain.size()) + " values, wanted " +
                    std::to_string(width));
  }
  norms_[name] = weights;
}

std::size_t Block::bytes() const {
  std::size_t total = 0;
  for (const auto& linear : linears_) total += linear->bytes();
  for (const auto& [name, norm] : norms_) {
    total += (norm.gain.size() + norm.bias.size()) * sizeof(float);
  }
  return total;
}

MatrixF Block::apply(std::size_t index, ConstMatrixView X,
                     ThreadPool& pool) const {
  MatrixF Y(X.rows(), linears_[index]->out());
  linears_[index]->run(X, Y.view(), pool);
  return Y;
}

MatrixF Block::normed(const std::string& norm, const MatrixF& X,
                      ThreadPool& pool) const {
  MatrixF Y(X.rows(), X.cols());
  const NormWeights& weights = norms_.at(norm);
  const auto epsilon = static_cast<float>(arch_->norm_eps);
  switch (arch_->norm) {
    case NormKind::kRms:
      rms_norm(X.view(), weights.gain, epsilon, Y.view(), pool);
      break;
    case NormKind::kLayer:
      layer_norm(X.view(), weights.gain, weights.bias, epsilon, Y.view(), pool);
      break;
  }
  return Y;
}

void Block::norm_heads(const std::string& norm, MatrixF& X,
                       ThreadPool& pool) const {
  if (norm.empty()) return;
  const MatrixView<float> heads(X.data(), X.size() / arch_->head_dim,
                                arch_->head_dim);
  rms_norm(heads, norms_.at(norm).gain, static_cast<float>(arch_->norm_eps),
           heads, pool);
}

void Block::begin(BlockState& state, ThreadPool& pool) const {
  state.stage_input = normed(arch_->block.attention_norm, state.hidden, pool);
}

void Block::rotate(std::span<const Segment> segments, MatrixF& Q, MatrixF& K,
                   ThreadPool& pool) const {
  const auto positions = row_positions(segments);
  if (positions.empty()) return;
  const std::uint32_t last =
      *std::max_element(positions.begin(), positions.end());
  const auto tables = positions_->at_least(std::size_t{last} + 1);
  for (MatrixF* const X : {&Q, &K}) {
    apply_rope_in_place(X->view(), arch_->head_dim, positions, *tables,
                        RopeStyle::kHalves, pool);
  }
}

// Heads mixed by attention: [tokens, heads * head_dim].
MatrixF Block::attend(const StageSpec& stage, std::span<const Segment> segments,
                      ConstMatrixView X, ThreadPool& pool) const {
  MatrixF Q = apply(stage.linears[0], X, pool);
  MatrixF K = apply(stage.linears[1], X, pool);
  MatrixF V = apply(stage.linears[2], X, pool);
  norm_heads(arch_->block.query_norm, Q, pool);
  norm_heads(arch_->block.key_norm, K, pool);
  rotate(segments, Q, K, pool);
  if (kv_.rotate_keys) {
    hadamard_rows_in_place(Q.view(), arch_->head_dim, pool);
    hadamard_rows_in_place(K.view(), arch_->head_dim, pool);
  }

  std::vector<AttentionSegment> attended(segments.size());
  std::size_t row = 0;
  for (std::size_t s = 0; s < segments.size(); row += segments[s++].rows) {
    attended[s].first_query = row;
    attended[s].queries = segments[s].rows;
    attended[s].past = segments[s].past;
  }
  std::vector<KeyValues> decoded(segments.size());
  pool.for_each(segments.size(), [&](std::size_t s) {
    decoded[s] = expose_key_values(
        segments[s], {layer_, arch_->head_dim, kv_},
        K.view().rows_slice(attended[s].first_query, segments[s].rows),
        V.view().rows_slice(attended[s].first_query, segments[s].rows),
        attended[s]);
  });

  MatrixF mixed(Q.rows(), Q.cols());
  const double scale = 1.0 / std::sqrt(static_cast<double>(arch_->head_dim));
  const AttentionConfig config{.heads = arch_->heads,
                               .kv_heads = arch_->kv_heads,
                               .head_dim = arch_->head_dim,
                               .scale = static_cast<float>(scale),
                               .window = arch_->uses_window(layer_)
                                             ? arch_->sliding_window.value_or(0)
                                             : 0};
  attention(Q.view(), attended, config, mixed.view(), pool, isa_);
  return mixed;
}

void Block::run_stage(std::size_t stage, std::span<const Segment> segments,
                      BlockState& state, ThreadPool& pool) const {
  const StageSpec& spec = arch_->block.stages.at(stage);
  check_segments(segments, state.hidden.rows());
  assert(state.stage_input.rows() == state.hidden.rows() &&
         state.stage_input.cols() == spec.in);
  const ConstMatrixView X = state.stage_input.view();
  switch (spec.kind) {
    case StageKind::kAttentionInput:
      state.stage_input = attend(spec, segments, X, pool);
      break;
    case StageKind::kAttentionOutput:
      add_in_place(state.hidden, apply(spec.linears[0], X, pool), pool);
      state.stage_input = normed(arch_->block.mlp_norm, state.hidden, pool);
      break;
    case StageKind::kMlpInput: {
      MatrixF gate = apply(spec.linears[0], X, pool);
      if (arch_->gated_mlp) {
        const MatrixF up = apply(spec.linears[1], X, pool);
        gated_activation(arch_->activation, gate.view(), up.view(), gate.view(),
                         pool, isa_);
      } else {
        activate_in_place(arch_->activation, gate.view(), pool, isa_);
      }
      state.stage_input = std::move(gate);
      break;
    }
    case StageKind::kMlpOutput:
      add_in_place(state.hidden, apply(spec.linears[0], X, pool), pool);
      state.stage_input = MatrixF();
      break;
  }
}

void Block::run(std::span<const Segment> segments, BlockState& state,
                ThreadPool& pool) const {
  begin(state, pool);
  for (std::size_t stage = 0; stage < arch_->block.stages.size(); ++stage) {
    run_stage(stage, segments, state, pool);
  }
}

}  // namespace llmpress
