#include "compress/model/training/trainable_model.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "compress/model/ops/rows_before.h"
#include "compress/model/prefix_places.h"
#include "compress/model/tensor_places.h"

namespace llmpress {
namespace {

constexpr std::size_t kElementsPerTask = std::size_t{1} << 16;

// Blocks leave out numbers while it is there.
class DropoutOfPass {
 public:
  DropoutOfPass(std::vector<TrainableBlock>& blocks,
                std::optional<std::uint64_t> seed)
      : blocks_(blocks) {
    set(seed);
  }
  ~DropoutOfPass() { set(std::nullopt); }
  DropoutOfPass(const DropoutOfPass&) = delete;
  DropoutOfPass& operator=(const DropoutOfPass&) = delete;

 private:
  void set(std::optional<std::uint64_t> seed) {
    for (TrainableBlock& block : blocks_) block.set_dropout(seed);
  }

  std::vector<TrainableBlock>& blocks_;
};

bool asks_at(const BatchLoss& loss, std::size_t boundary) {
  return loss.stream && std::ranges::count(loss.boundaries, boundary) != 0;
}

}  // namespace

TrainableModel::TrainableModel(const Checkpoint& checkpoint,
                               const TrainableOptions& options)
    : arch_(std::make_unique<Architecture>(read_architecture(checkpoint))),
      options_(options) {
  ModelLearning& learning = options_.learning;
  if (!learning.learns) {
    learning.learns = [all = !learning.adapts && !learning.prefix &&
                             learning.prompt.empty()](const std::string&) {
      return all;
    };
  }
  check_model(checkpoint, *arch_);
  ends_ = std::make_unique<TrainableEnds>(checkpoint, *arch_, learning,
                                          options_.isa);
  if (learning.wraps) {
    ends_->wrap_head([&](std::unique_ptr<TrainableLinear> head) {
      return learning.wraps(arch_->layers, 0, std::move(head));
    });
  }
  const RopeTablesOfModel ropes = make_ropes(*arch_);
  blocks_.reserve(arch_->layers);
  for (std::size_t layer = 0; layer < arch_->layers; ++layer) {
    report(options_.progress,
           {"load", layer, arch_->layers, arch_->block_name(layer)});
    blocks_.emplace_back(
        *arch_, layer, read_block(checkpoint, *arch_, layer), learning,
        BlockOptions{.isa = options_.isa, .kv = options_.kv, .ropes = ropes});
  }
  report(options_.progress, {"load", arch_->layers, arch_->layers, ""});
  parameters_ = ends_->parameters();
  prompt_ = learning.prompt;
  if (!prompt_.empty()) {
    check_prompt_possible(*arch_);
    d_prompt_ = MatrixF(prompt_.rows(), prompt_.cols());
    parameters_.push_back({.name = "prompt",
                           .shape = {prompt_.rows(), prompt_.cols()},
                           .value = prompt_.data(),
                           .gradient = d_prompt_.data()});
  }
  for (TrainableBlock& block : blocks_) {
    for (Parameter& parameter : block.parameters()) {
      parameters_.push_back(std::move(parameter));
    }
  }
}

TrainableModel::Places TrainableModel::places_of(
    const TokenBatch& batch) const {
  const std::size_t past =
      blocks_.empty() ? 0 : blocks_[0].block().prefix_tokens();
  Places places;
  [[maybe_unused]] std::size_t tokens = 0;
  for (const std::size_t rows : batch.sequences) {
    places.tokens.push_back({.rows = rows, .past = past + prompt_.rows()});
    places.rows.push_back({.rows = prompt_.rows() + rows, .past = past});
    tokens += rows;
  }
  assert(tokens == batch.tokens.size());
  return places;
}

BlockState TrainableModel::begin(const TokenBatch& batch, const Places& places,
                                 ThreadPool& pool) const {
  BlockState state = ends_->begin(batch.tokens, places.tokens, pool);
  if (prompt_.empty()) return state;
  state.hidden = RowsBefore(places.tokens, prompt_.rows())
                     .join(state.hidden.view(), prompt_.view());
  return state;
}

void TrainableModel::begin_backward(const TokenBatch& batch,
                                    const Places& places, StreamGradient stream,
                                    ThreadPool& pool) {
  if (!prompt_.empty()) {
    RowsBefore(places.tokens, prompt_.rows())
        .add_apart(stream.hidden, {}, d_prompt_.view());
    stream.hidden = rows_of_tokens(places, std::move(stream.hidden));
  }
  ends_->begin_backward(batch.tokens, places.tokens, std::move(stream), pool);
}

MatrixF TrainableModel::rows_of_tokens(const Places& places,
                                       MatrixF rows) const {
  if (prompt_.empty()) return rows;
  const std::size_t before = places.tokens.size() * prompt_.rows();
  MatrixF own(rows.rows() - before, rows.cols());
  RowsBefore(places.tokens, prompt_.rows()).add_apart(rows, own.view(), {});
  return own;
}

void TrainableModel::values_changed(ThreadPool& pool) {
  ends_->values_changed(pool);
  for (TrainableBlock& block : blocks_) block.values_changed(pool);
}

std::map<std::string, LinearWeights> TrainableModel::packed_linears() const {
  std::map<std::string, LinearWeights> packed;
  const auto add = [&](const std::string& name, const TrainableLinear& linear) {
    if (auto learned = linear.packed()) packed[name] = std::move(*learned);
  };
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    for (std::size_t l = 0; l < arch_->block(layer).linears.size(); ++l) {
      add(arch_->linear_name(layer, l), blocks_[layer].linear(l));
    }
  }
  if (const TrainableLinear* const own = ends_->own_embedding()) {
    add(arch_->embedding, *own);
  }
  if (!arch_->tied_head) {
    add(arch_->head, ends_->head());
  } else if (auto learned = ends_->head().packed()) {
    learned->bias.clear();  // the head's alone, and no part of the embedding
    packed[arch_->embedding] = std::move(*learned);
  }
  return packed;
}

void TrainableModel::clear_gradients(ThreadPool& pool) {
  for (Parameter& parameter : parameters_) {
    pool.for_ranges(parameter.gradient.size(), kElementsPerTask,
                    [&](std::size_t begin, std::size_t end) {
                      std::fill_n(parameter.gradient.data() + begin,
                                  end - begin, 0.0f);
                    });
  }
}

double TrainableModel::run_backward(const TokenBatch& batch,
                                    const BatchLoss& loss, ThreadPool& pool) {
  if (std::exchange(stored_tokens_, batch.tokens.size()) !=
      batch.tokens.size()) {
    store_.clear();
  }
  const MatrixReuse reuse(store_);
  assert(prompt_.empty() || (!loss.stream && !loss.values));
  const Places places = places_of(batch);
  const std::vector<Segment>& segments = places.rows;
  const DropoutOfPass dropping(blocks_,
                               drops() ? loss.dropout_seed : std::nullopt);
  BlockState state = begin(batch, places, pool);
  std::vector<BlockState> before;
  std::vector<BlockPass> passes;
  for (const TrainableBlock& block : blocks_) {
    if (options_.keep_activations) {
      passes.push_back(block.block().run_keeping(segments, state, pool));
      continue;
    }
    before.push_back(
        {.hidden = copy_of(std::as_const(state.hidden).view(), pool),
         .carried = state.carried});
    block.block().run(segments, state, pool);
  }
  StreamGradient stream;
  state.hidden = rows_of_tokens(places, std::move(state.hidden));
  double total = ends_->loss(state.hidden.view(), loss.row_weights, loss.logits,
                             &stream.hidden, pool);
  if (asks_at(loss, blocks_.size())) {
    total +=
        loss.stream(blocks_.size(), state.hidden.view(), stream.hidden.view());
  }
  if (!prompt_.empty()) {
    stream.hidden = RowsBefore(places.tokens, prompt_.rows())
                        .join(std::as_const(stream.hidden).view());
  }
  for (std::size_t b = blocks_.size(); b-- > 0;) {
    BlockPass pass;
    if (options_.keep_activations) {
      pass = std::move(passes[b]);
    } else {
      pass = blocks_[b].block().run_keeping(segments, before[b], pool);
    }
    if (loss.values && b == loss.values_block) total += loss.values(pass);
    const MatrixF entering = asks_at(loss, b) ? pass.values[0].rows : MatrixF();
    blocks_[b].run_backward(pass, segments, stream, pool);
    give_back(std::move(pass.values[0].rows));
    if (!entering.empty()) {
      total += loss.stream(b, entering.view(), stream.hidden.view());
    }
    if (!before.empty()) before.pop_back();
  }
  begin_backward(batch, places, std::move(stream), pool);
  return total;
}

std::vector<MatrixF> TrainableModel::streams(
    const TokenBatch& batch, std::span<const std::size_t> boundaries,
    ThreadPool& pool, const PassVisit& visit) const {
  const Places places = places_of(batch);
  const std::vector<Segment>& segments = places.rows;
  BlockState state = begin(batch, places, pool);
  std::vector<MatrixF> kept(boundaries.size());
  const auto keep = [&](std::size_t boundary) {
    for (std::size_t i = 0; i < boundaries.size(); ++i) {
      if (boundaries[i] == boundary)
        kept[i] = rows_of_tokens(places, state.hidden);
    }
  };
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    keep(b);
    if (visit.look && visit.block == b) {
      BlockPass pass = blocks_[b].block().run_keeping(segments, state, pool);
      visit.look(pass);
    } else {
      blocks_[b].block().run(segments, state, pool);
    }
  }
  keep(blocks_.size());
  kept.push_back(rows_of_tokens(places, std::move(state.hidden)));
  return kept;
}

MatrixF TrainableModel::forward(const TokenBatch& batch,
                                ThreadPool& pool) const {
  return std::move(streams(batch, {}, pool).back());
}

double TrainableModel::loss(const TokenBatch& batch, const BatchLoss& loss,
                            ThreadPool& pool) {
  double inside = 0;
  PassVisit visit{.block = loss.values_block};
  if (loss.values) {
    visit.look = [&](BlockPass& pass) { inside = loss.values(pass); };
  }
  std::vector<MatrixF> kept = streams(batch, loss.boundaries, pool, visit);
  double total = inside + ends_->loss(kept.back().view(), loss.row_weights,
                                      loss.logits, nullptr, pool);
  if (!loss.stream) return total;
  for (std::size_t i = 0; i < loss.boundaries.size(); ++i) {
    total += loss.stream(loss.boundaries[i], kept[i].view(), {});
  }
  return total;
}

}  // namespace llmpress
