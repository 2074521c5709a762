#include "compress/model/decoder.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <mutex>
#include <optional>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/kernels/norms.h"
#include "compress/model/end_operations.h"
#include "compress/model/model_head.h"
#include "compress/model/spread_linear.h"
#include "compress/model/state_bytes.h"
#include "compress/model/tensor_places.h"
#include "formats/linears/dense_linear.h"

namespace llmpress {
namespace {

std::string place(const Checkpoint& checkpoint) {
  return checkpoint.path().string();
}

void check_matrix_shape(const Checkpoint& checkpoint, const std::string& name,
                        std::size_t rows, std::size_t cols,
                        const Architecture& arch) {
  if (rows == arch.vocabulary && cols == arch.input_width()) return;
  fail(ErrorCode::kInvalidInput,
       "{}: '{}' is [{}, {}], wanted [vocab_size {}, hidden_size {}]",
       place(checkpoint), name, rows, cols, arch.vocabulary,
       arch.input_width());
}

// As it multiplies; empty without a name.
NormWeights read_end_norm(const Checkpoint& checkpoint,
                          const Architecture& arch, const std::string& name,
                          const NormOptions& options) {
  if (options.weightless) {
    return {.gain = std::vector<float>(arch.hidden, 1.0f)};
  }
  if (name.empty()) return {};
  NormWeights norm = read_norm(checkpoint, name, arch.hidden, options.bias);
  for (float& gain : norm.gain) gain += options.offset;
  return norm;
}

// A Linear between widths that differ (OPT-350m); null without a name.
std::unique_ptr<LinearKernel> read_projection(const Checkpoint& checkpoint,
                                              const std::string& name,
                                              Isa isa) {
  if (name.empty()) return nullptr;
  return make_linear_kernel(checkpoint.read_linear(name), isa);
}

MatrixF project(const LinearKernel& kernel, ConstMatrixView X,
                ThreadPool& pool) {
  MatrixF Y(X.rows(), kernel.out());
  kernel.run(X, Y.view(), pool);
  return Y;
}

Block load_block(const Checkpoint& checkpoint, const Architecture& arch,
                 std::size_t layer, const Decoder::Options& options,
                 const RopeTablesOfModel& ropes, std::size_t first_layer) {
  const auto read = [&](std::size_t linear) {
    return read_block_linear(checkpoint, arch, layer, linear);
  };
  const auto make = [&](std::size_t linear) {
    if (options.prepacked) {
      auto kernel = options.prepacked->linear(arch, layer, linear, options.isa,
                                              options.inputs);
      if (kernel != nullptr) return kernel;
    }
    const Ranks& ranks = options.tensor;
    if (!ranks.is_spread()) {
      return make_linear_kernel(read(linear), options.isa, options.inputs);
    }
    return make_spread_linear(read_block_linear_part(checkpoint, arch, layer,
                                                     linear, choice_of(ranks)),
                              options.isa, options.inputs, ranks);
  };
  Block block(arch, layer, read_block_rest(checkpoint, arch, layer), make,
              BlockOptions{.isa = options.isa,
                           .kv = options.kv,
                           .ropes = ropes,
                           .inputs = options.inputs,
                           .tensor = options.tensor,
                           .first_layer = first_layer});
  const std::size_t linears = block.spec().linears.size();
  for (std::size_t l = 0; options.companion && l < linears; ++l) {
    block.wrap_linear(l, [&](std::unique_ptr<LinearKernel> kernel) {
      return options.companion->beside(arch.linear_name(layer, l), read(l),
                                       std::move(kernel));
    });
  }
  return block;
}

}  // namespace

ModelEnds::ModelEnds(const Checkpoint& checkpoint, const Architecture& arch,
                     Isa isa)
    : ModelEnds(checkpoint, arch, EndOptions{.isa = isa}) {}

ModelEnds::ModelEnds(const Checkpoint& checkpoint, const Architecture& arch,
                     const EndOptions& options)
    : ModelEnds(checkpoint, arch, options, Head::kLoaded) {}

ModelEnds ModelEnds::without_head(const Checkpoint& checkpoint,
                                  const Architecture& arch, Isa isa) {
  return {checkpoint, arch, EndOptions{.isa = isa}, Head::kNone};
}

ModelEnds::ModelEnds(const Checkpoint& checkpoint, const Architecture& arch,
                     const EndOptions& options, Head head)
    : arch_(&arch),
      embedding_(checkpoint, arch.embedding, arch.vocabulary,
                 arch.input_width()),
      projection_(
          read_projection(checkpoint, arch.embedding_projection, options.isa)),
      head_projection_(
          read_projection(checkpoint, arch.head_projection, options.isa)),
      embedding_norm_(read_end_norm(checkpoint, arch, arch.embedding_norm,
                                    arch.embedding_norm_options)),
      final_norm_(read_end_norm(checkpoint, arch, arch.final_norm,
                                arch.final_norm_options)),
      companion_(options.companion) {
  if (const LayerInputs& inputs = arch.layer_inputs; inputs.width != 0) {
    layer_embedding_ =
        EmbeddingRows(checkpoint, inputs.embedding, inputs.vocabulary,
                      arch.layers * inputs.width);
    layer_projection_ =
        read_projection(checkpoint, inputs.projection, options.isa);
    layer_norm_ = read_norm(checkpoint, inputs.norm, inputs.width, false);
  }
  if (!arch.position_embedding.empty()) {
    positions_ =
        read_matrix(checkpoint.tensors(), arch.position_embedding + ".weight");
  }
  if (head == Head::kLoaded) load_head(checkpoint, options);
}

void ModelEnds::load_head(const Checkpoint& checkpoint,
                          const EndOptions& options) {
  const Architecture& arch = *arch_;
  if (options.prepacked) {
    head_ = options.prepacked->head(arch, options.isa, options.inputs);
    if (head_ != nullptr) {
      check_matrix_shape(checkpoint, head_name(arch), head_->out(), head_->in(),
                         arch);
      return;
    }
  }
  if (options.tensor.is_spread() && !companion_) {
    LinearPart part =
        read_head_part(checkpoint, arch, choice_of(options.tensor));
    check_matrix_shape(checkpoint, head_name(arch), part.out, part.in, arch);
    head_ = make_spread_linear(std::move(part), options.isa, options.inputs,
                               options.tensor);
    return;
  }
  const LinearWeights weights = read_head(checkpoint, arch);
  check_matrix_shape(checkpoint, head_name(arch), rows_of(weights.weight),
                     cols_of(weights.weight), arch);
  head_ =
      make_spread_linear(weights, options.isa, options.inputs, options.tensor);
  // A tied head has the embedding's weights, but a module of its own.
  if (companion_) {
    head_ = companion_->beside(arch.head, weights, std::move(head_));
  }
}

MatrixF ModelEnds::embed(std::span<const TokenId> tokens,
                         std::span<const Segment> segments,
                         ThreadPool& pool) const {
  MatrixF X = embedding_.rows(tokens);
  if (companion_) companion_->change_embedding(tokens, X.view());
  if (arch_->embedding_scale != 1) {
    for (float& x : X.data()) x *= arch_->embedding_scale;
  }
  if (projection_) X = project(*projection_, X.view(), pool);
  if (!positions_.empty()) {
    add_positions(*arch_, positions_.view(), segments, X);
  }
  if (!arch_->embedding_norm.empty()) {
    X = apply_norm(X.view(), embedding_norm_, arch_->embedding_norm_options,
                   pool);
  }
  return X;
}

// See LayerInputs.
MatrixF ModelEnds::layer_inputs(std::span<const TokenId> tokens,
                                ConstMatrixView X, ThreadPool& pool) const {
  const LayerInputs& inputs = arch_->layer_inputs;
  const MatrixF table = layer_embedding_.rows(tokens);
  MatrixF P = project(*layer_projection_, X, pool);
  const float before = layer_projection_scale(*arch_);
  for (float& p : P.data()) p *= before;
  const MatrixView<float> parts(P.data(), P.size() / inputs.width,
                                inputs.width);
  rms_norm(parts, layer_norm_.gain, inputs.epsilon, parts, pool);
  add_layer_table(*arch_, table.view(), P.view());
  return P;
}

BlockState ModelEnds::begin(std::span<const TokenId> tokens,
                            std::span<const Segment> segments,
                            ThreadPool& pool) const {
  BlockState state{.hidden = embed(tokens, segments, pool)};
  if (arch_->layer_inputs.width != 0) {
    state.carried.resize(1);
    state.carried[0].rows = layer_inputs(tokens, state.hidden.view(), pool);
  }
  return state;
}

MatrixF ModelEnds::head_input(ConstMatrixView hidden, ThreadPool& pool) const {
  MatrixF X =
      final_norm_.gain.empty()
          ? MatrixF(hidden)
          : apply_norm(hidden, final_norm_, arch_->final_norm_options, pool);
  if (head_projection_) X = project(*head_projection_, X.view(), pool);
  return X;
}

MatrixF ModelEnds::logits(ConstMatrixView hidden, ThreadPool& pool) const {
  const MatrixF X = head_input(hidden, pool);
  MatrixF logits(hidden.rows(), arch_->vocabulary);
  head_->run(X.view(), logits.view(), pool);
  finish_logits(*arch_, logits.view());
  return logits;
}

std::size_t ModelEnds::bytes() const {
  return (head_ == nullptr ? 0 : head_->bytes()) + embedding_.bytes() +
         layer_embedding_.bytes() +
         (final_norm_.gain.size() + positions_.size()) * sizeof(float);
}

Decoder::Decoder(const Checkpoint& checkpoint)
    : Decoder(checkpoint, Options{}) {}

Decoder::Decoder(const Checkpoint& checkpoint, const Options& options)
    : arch_(std::make_unique<Architecture>(read_architecture(checkpoint))),
      stages_(options.stages),
      own_(share_of(arch_->layers, 1, stages_.rank(), stages_.size())),
      kv_(options.kv) {
  check_model(checkpoint, *arch_, PackedLinears::kReadLater);
  if (stages_.size() > 1 && stages_.size() > arch_->layers) {
    fail(ErrorCode::kInvalidArgument,
         "{} stages: the model has {} blocks, and each stage needs one",
         stages_.size(), arch_->layers);
  }
  assert(!options.tensor.is_spread() || options.companion == nullptr);
  assert(!stages_.is_spread() || !options.streamed);
  assert(options.prepacked == nullptr ||
         (!options.tensor.is_spread() && options.companion == nullptr &&
          options.isa != Isa::kScalar));
  if (options.inputs == InputPrecision::kInt8 && options.isa == Isa::kScalar) {
    fail(ErrorCode::kInvalidArgument,
         "activations of int8 need kernels of avx2 or avx512-vnni, these are "
         "scalar");
  }
  const RopeTablesOfModel ropes = make_ropes(*arch_);
  if (!options.streamed) {
    load_all(checkpoint, options, ropes);
    if (!blocks_.empty()) kv_scheme_ = blocks_[0].kv_scheme();
    if (options.companion) set_prefix(options.companion->prefix());
    return;
  }
  assert(options.companion == nullptr || options.companion->prefix().empty());
  load_ends(checkpoint, options);
  load_ = [&checkpoint, &arch = *arch_, options, ropes](std::size_t layer) {
    return load_block(checkpoint, arch, layer, options, ropes, 0);
  };
  if (arch_->layers != 0) kv_scheme_ = load_(0).kv_scheme();
}

void Decoder::load_ends(const Checkpoint& checkpoint, const Options& options) {
  ends_ =
      std::make_unique<ModelEnds>(checkpoint, *arch_,
                                  EndOptions{.isa = options.isa,
                                             .companion = options.companion,
                                             .inputs = options.inputs,
                                             .tensor = options.tensor,
                                             .prepacked = options.prepacked});
}

void Decoder::load_all(const Checkpoint& checkpoint, const Options& options,
                       const RopeTablesOfModel& ropes) {
  std::vector<std::optional<Block>> loaded(own_.count);
  std::mutex mutex;
  std::size_t done = 0;
  const auto load = [&](std::size_t index) {
    const std::size_t layer = own_.first + index;
    {
      const std::lock_guard lock(mutex);
      report(options.progress,
             {"load", done++, own_.count, arch_->block_name(layer)});
    }
    loaded[index] =
        load_block(checkpoint, *arch_, layer, options, ropes, own_.first);
  };
  ThreadPool alone(1);
  // The head, at times the largest Linear of all, beside the first blocks.
  (options.pool != nullptr ? *options.pool : alone)
      .for_each(own_.count + 1, [&](std::size_t item) {
        if (item == 0) {
          load_ends(checkpoint, options);
        } else {
          load(item - 1);
        }
      });
  blocks_.reserve(own_.count);
  for (std::optional<Block>& block : loaded) {
    blocks_.push_back(std::move(*block));
  }
  report(options.progress, {"load", own_.count, own_.count, ""});
}

void Decoder::for_each_block(
    const std::function<void(const Block&)>& body) const {
  if (!is_streamed()) {
    for (const Block& block : blocks_) body(block);
    return;
  }
  for (std::size_t layer = 0; layer < arch_->layers; ++layer) {
    body(load_(layer));
  }
}

void Decoder::set_prefix(std::vector<BlockPrefix> prefix) {
  if (prefix.empty()) return;
  assert(prefix.size() == arch_->layers);
  const std::vector<bool> cached = cached_layers();
  if (std::any_of(cached.begin(),
                  cached.begin() + static_cast<std::ptrdiff_t>(own_.first),
                  [](bool read) { return read; })) {
    fail(ErrorCode::kUnsupported,
         "{}: tokens in front of every sequence cannot stand before a stage "
         "that reads keys of another one; use fewer stages",
         arch_->model_type);
  }
  ThreadPool alone(1);
  for (Block& block : blocks_) {
    block.set_prefix(std::move(prefix[block.layer()]), alone);
  }
}

std::size_t Decoder::prefix_tokens() const {
  return blocks_.empty() ? 0 : blocks_[0].prefix_tokens();
}

std::size_t Decoder::bytes() const {
  std::size_t total = ends_->bytes();
  for (const Block& block : blocks_) total += block.bytes();
  return total;
}

std::vector<Segment> Decoder::placed(std::span<const Segment> segments) const {
  std::vector<Segment> placed(segments.begin(), segments.end());
  for (Segment& segment : placed) {
    if (segment.cache == nullptr) segment.past += prefix_tokens();
  }
  return placed;
}

BlockState Decoder::begin(std::span<const TokenId> tokens,
                          std::span<const Segment> segments,
                          ThreadPool& pool) const {
  return ends_->begin(tokens, placed(segments), pool);
}

void Decoder::run_blocks(std::span<const Segment> segments, BlockState& state,
                         ThreadPool& pool) const {
  const std::vector<Segment> all = placed(segments);
  for_each_block([&](const Block& block) { block.run(all, state, pool); });
}

void Decoder::through_stages(BlockState& state, const BlockBody& body) const {
  for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
    const bool is_own = stage == stages_.rank();
    if (is_own) {
      for_each_block([&](const Block& block) { body(block, state); });
    }
    if (stage + 1 == stages_.size()) break;
    const std::string before =
        stages_.shift(is_own ? to_bytes(state) : std::string());
    if (stage + 1 == stages_.rank()) state = state_from_bytes(before);
  }
  if (!stages_.is_spread()) return;
  const std::size_t last = stages_.size() - 1;
  const std::string bytes = stages_.broadcast(
      stages_.rank() == last ? to_bytes(state) : std::string(), last);
  if (stages_.rank() != last) state = state_from_bytes(bytes);
}

MatrixF Decoder::forward(std::span<const TokenId> tokens,
                         std::span<const Segment> segments,
                         ThreadPool& pool) const {
  const std::vector<Segment> all = placed(segments);
  BlockState state;
  if (stages_.is_first()) state = ends_->begin(tokens, all, pool);
  through_stages(state, [&](const Block& block, BlockState& passing) {
    block.run(all, passing, pool);
  });
  for (const Segment& segment : segments) {
    if (segment.cache != nullptr) segment.cache->advance(segment.rows);
  }
  return std::move(state.hidden);
}

// Of this rank's blocks, and of those before whose keys they read.
std::vector<bool> Decoder::cached_layers() const {
  std::vector<bool> cached(arch_->layers);
  for (std::size_t l = own_.first; l < own_.first + own_.count; ++l) {
    cached[l] = true;
    for (const Operation& op : arch_->block(l).operations) {
      const auto* const attention = std::get_if<AttentionOp>(&op.kind);
      if (attention == nullptr || !attention->shared_layer) continue;
      cached[*attention->shared_layer] = true;
    }
  }
  return cached;
}

KvCache Decoder::make_cache(std::size_t capacity) const {
  const std::size_t before = prefix_tokens();
  auto slots = arch_->cache_slots();
  const std::vector<bool> cached = cached_layers();
  for (std::size_t layer = 0; layer < slots.size(); ++layer) {
    if (!cached[layer]) slots[layer].clear();
  }
  KvCache cache(slots, before + capacity, kv_);
  if (before == 0) return cache;
  for (const Block& block : blocks_) {
    for (std::size_t slot = 0; slot < block.prefix().size(); ++slot) {
      const KvPrefix& prefix = block.prefix()[slot];
      cache.append({block.layer(), slot}, prefix.keys.view(),
                   prefix.values.view());
    }
  }
  cache.advance(before);
  return cache;
}

}  // namespace llmpress
