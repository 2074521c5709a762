#include "compress/model/training/trainable_ends.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/matrix_reuse.h"
#include "compress/kernels/norms_backward.h"
#include "compress/model/end_operations.h"
#include "compress/model/model_check.h"

namespace llmpress {
namespace {

// Of a chunk of logits: 64 MiB.
constexpr std::size_t kChunkElements = std::size_t{1} << 24;
constexpr std::size_t kFewestRows = 64, kMostRows = 512;

std::size_t rows_per_chunk(std::size_t vocabulary) {
  return std::clamp(kChunkElements / vocabulary, kFewestRows, kMostRows);
}

MatrixF run_linear(const TrainableLinear& linear, ConstMatrixView X,
                   ThreadPool& pool) {
  MatrixF Y = unset_matrix(X.rows(), linear.out());
  linear.run(X, Y.view(), pool);
  return Y;
}

MatrixView<float> in_units(MatrixF& X, std::size_t width) {
  return {X.data(), X.size() / width, width};
}

}  // namespace

std::vector<float> TrainableEnds::EndNorm::gain() const {
  std::vector<float> gain = weights.gain;
  for (float& g : gain) g += options.offset;
  return gain;
}

MatrixF TrainableEnds::EndNorm::apply(ConstMatrixView X,
                                      ThreadPool& pool) const {
  if (weights.gain.empty()) return MatrixF(X);
  return apply_norm(X, {.gain = gain(), .bias = weights.bias}, options, pool);
}

void TrainableEnds::EndNorm::backward(ConstMatrixView X, ConstMatrixView dY,
                                      MatrixView<float> dX, ThreadPool& pool) {
  if (weights.gain.empty()) {
    for (std::size_t i = 0; i < dX.size(); ++i) dX.data()[i] += dY.data()[i];
    return;
  }
  const std::vector<float> multiplies = gain();
  norm_backward({.X = X,
                 .gain = multiplies,
                 .epsilon = options.epsilon,
                 .centred = options.kind == NormKind::kLayer},
                dY, {.dX = dX, .gain = d.gain, .bias = d.bias}, pool);
}

void TrainableEnds::EndNorm::list(const std::string& name,
                                  std::vector<Parameter>& to) {
  if (!d.gain.empty()) {
    to.push_back({name + ".weight", {d.gain.size()}, weights.gain, d.gain});
  }
  if (!d.bias.empty()) {
    to.push_back({name + ".bias", {d.bias.size()}, weights.bias, d.bias});
  }
}

TrainableEnds::EndNorm TrainableEnds::read_norm_of(
    const std::string& name, std::size_t width,
    const NormOptions& options) const {
  EndNorm norm{.options = options};
  if (options.weightless) {
    norm.weights.gain.assign(width, 1.0f - options.offset);
    return norm;
  }
  if (name.empty()) return norm;
  norm.weights = read_norm(*checkpoint_, name, width, options.bias);
  const bool gain = learns(name + ".weight");
  if (gain) norm.d.gain.resize(norm.weights.gain.size());
  if (gain || learns(name + ".bias")) {
    norm.d.bias.resize(norm.weights.bias.size());
  }
  return norm;
}

bool TrainableEnds::learns_dense(const std::string& module) const {
  return learns(module + ".weight") &&
         dense_matrix(*checkpoint_, module) != nullptr;
}

std::unique_ptr<TrainableLinear> TrainableEnds::read_linear_of(
    const std::string& name, LinearWeights weights) const {
  return make_trainable_linear(name, std::move(weights), learning_, isa_);
}

TrainableEnds::Table TrainableEnds::read_table(
    const std::string& name, std::size_t rows, std::size_t width,
    std::unique_ptr<TrainableLinear>& own) const {
  // Checks the shape.
  Table table{.frozen = EmbeddingRows(*checkpoint_, name, rows, width)};
  own = make_table(name);
  if (own == nullptr) return table;
  auto* const learning = dynamic_cast<LearningTable*>(own.get());
  assert(learning != nullptr);
  return {.learning = learning};
}

// Null: it stays as it is stored.
std::unique_ptr<TrainableLinear> TrainableEnds::make_table(
    const std::string& name) const {
  const bool dense = learns_dense(name);
  if (!dense && !learning_.makes) return nullptr;
  LinearWeights weights = checkpoint_->read_linear(name);
  if (learning_.makes) {
    if (auto own = learning_.makes(name, weights)) return own;
  }
  if (!dense) return nullptr;
  return std::make_unique<LearningLinear>(dequantize(weights.weight),
                                          std::vector<float>(), isa_);
}

TrainableEnds::TrainableEnds(const Checkpoint& checkpoint,
                             const Architecture& arch,
                             const ModelLearning& learning, Isa isa)
    : checkpoint_(&checkpoint), arch_(&arch), learning_(learning), isa_(isa) {
  learning_.adapts = {};
  const auto projection = [&](const std::string& name) {
    return name.empty() ? nullptr
                        : read_linear_of(name, checkpoint.read_linear(name));
  };
  embedding_projection_ = projection(arch.embedding_projection);
  head_projection_ = projection(arch.head_projection);
  read_head();
  auto* const tied = dynamic_cast<LearningTable*>(head_.get());
  if (arch.tied_head && tied != nullptr) {
    table_.learning = tied;
  } else {
    table_ = read_table(arch.embedding, arch.vocabulary, arch.input_width(),
                        own_table_);
  }
  if (!arch.position_embedding.empty()) {
    const std::string name = arch.position_embedding + ".weight";
    positions_ = read_matrix(checkpoint.tensors(), name);
    if (learns(name)) {
      d_positions_ = MatrixF(positions_.rows(), positions_.cols());
    }
  }
  embedding_norm_ = read_norm_of(arch.embedding_norm, arch.hidden,
                                 arch.embedding_norm_options);
  final_norm_ =
      read_norm_of(arch.final_norm, arch.hidden, arch.final_norm_options);
  read_layer_parts();
  learning_.makes = {};
  checkpoint_ = nullptr;
}

void TrainableEnds::read_head() {
  const std::string& name = arch_->tied_head ? arch_->embedding : arch_->head;
  LinearWeights weights = checkpoint_->read_linear(name);
  weights.bias.clear();
  if (arch_->head_bias) {
    weights.bias = read_vector(checkpoint_->tensors(), arch_->head + ".bias",
                               arch_->vocabulary);
  }
  if (learning_.makes) head_ = learning_.makes(name, weights);
  if (head_ != nullptr) return;
  if (arch_->tied_head && dense_matrix(*checkpoint_, name) == nullptr) {
    head_ = std::make_unique<FrozenLinear>(
        std::move(weights), isa_,
        learns(name + ".bias") ? BiasRole::kLearns : BiasRole::kFrozen);
    return;
  }
  head_ = read_linear_of(name, std::move(weights));
}

void TrainableEnds::read_layer_parts() {
  const LayerInputs& inputs = arch_->layer_inputs;
  if (inputs.width == 0) return;
  layers_.table = read_table(inputs.embedding, inputs.vocabulary,
                             arch_->layers * inputs.width, layers_.own_table);
  layers_.projection = read_linear_of(
      inputs.projection, checkpoint_->read_linear(inputs.projection));
  layers_.norm =
      read_norm_of(inputs.norm, inputs.width, {.epsilon = inputs.epsilon});
}

void TrainableEnds::values_changed(ThreadPool& pool) {
  for (TrainableLinear* const linear :
       {head_.get(), own_table_.get(), embedding_projection_.get(),
        head_projection_.get(), layers_.own_table.get(),
        layers_.projection.get()}) {
    if (linear != nullptr) linear->values_changed(pool);
  }
}

std::vector<Parameter> TrainableEnds::parameters() {
  std::vector<Parameter> all;
  const auto add = [&](TrainableLinear* linear, const std::string& name) {
    if (linear != nullptr) linear->list_parameters(name, all);
  };
  add(own_table_.get(), arch_->embedding);
  add(embedding_projection_.get(), arch_->embedding_projection);
  add(layers_.own_table.get(), arch_->layer_inputs.embedding);
  add(layers_.projection.get(), arch_->layer_inputs.projection);
  layers_.norm.list(arch_->layer_inputs.norm, all);
  if (!d_positions_.empty()) {
    all.push_back({arch_->position_embedding + ".weight",
                   {positions_.rows(), positions_.cols()},
                   positions_.data(),
                   d_positions_.data()});
  }
  embedding_norm_.list(arch_->embedding_norm, all);
  final_norm_.list(arch_->final_norm, all);
  add(head_projection_.get(), arch_->head_projection);
  // A tied head's matrix is the embedding's; its bias is its own.
  std::vector<Parameter> head;
  head_->list_parameters(arch_->tied_head ? arch_->embedding : arch_->head,
                         head);
  for (Parameter& parameter : head) {
    if (parameter.shape.size() == 1) parameter.name = arch_->head + ".bias";
    all.push_back(std::move(parameter));
  }
  return all;
}

MatrixF TrainableEnds::Table::rows(std::span<const TokenId> tokens) const {
  if (learning == nullptr) return frozen.rows(tokens);
  const ConstMatrixView table = learning->table();
  MatrixF X(tokens.size(), table.cols());
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    if (tokens[t] >= table.rows()) {
      fail(ErrorCode::kInvalidInput,
           "token id {} is not in the model's vocabulary of {}", tokens[t],
           table.rows());
    }
    std::ranges::copy(table.row(tokens[t]), X.row(t).begin());
  }
  return X;
}

void TrainableEnds::Table::backward(std::span<const TokenId> tokens,
                                    ConstMatrixView d, float factor,
                                    ThreadPool& pool) const {
  if (learning == nullptr) return;
  learning->add_row_gradients(tokens, d, factor, pool);
}

MatrixF TrainableEnds::before_norm(std::span<const TokenId> tokens,
                                   std::span<const Segment> segments,
                                   ThreadPool& pool) const {
  MatrixF X = table_.rows(tokens);
  for (float& x : X.data()) x *= arch_->embedding_scale;
  if (embedding_projection_) {
    X = run_linear(*embedding_projection_, X.view(), pool);
  }
  if (!positions_.empty()) {
    add_positions(*arch_, std::as_const(positions_).view(), segments, X);
  }
  return X;
}

MatrixF TrainableEnds::projected(ConstMatrixView stream,
                                 ThreadPool& pool) const {
  MatrixF P = run_linear(*layers_.projection, stream, pool);
  const float before = layer_projection_scale(*arch_);
  for (float& p : P.data()) p *= before;
  return P;
}

// See LayerInputs.
MatrixF TrainableEnds::layer_inputs(std::span<const TokenId> tokens,
                                    ConstMatrixView stream,
                                    ThreadPool& pool) const {
  MatrixF P = projected(stream, pool);
  const MatrixF normed =
      layers_.norm.apply(in_units(P, arch_->layer_inputs.width), pool);
  std::ranges::copy(normed.data(), P.data().begin());
  add_layer_table(*arch_, layers_.table.rows(tokens).view(), P.view());
  return P;
}

void TrainableEnds::layer_inputs_backward(std::span<const TokenId> tokens,
                                          ConstMatrixView stream,
                                          ConstMatrixView d,
                                          MatrixView<float> d_stream,
                                          ThreadPool& pool) {
  const std::size_t width = arch_->layer_inputs.width;
  const float after = 1 / std::sqrt(2.0f);
  layers_.table.backward(tokens, d,
                         after * std::sqrt(static_cast<float>(width)), pool);
  MatrixF scaled(d);
  for (float& x : scaled.data()) x *= after;
  MatrixF P = projected(stream, pool), dP(P.rows(), P.cols());
  layers_.norm.backward(in_units(P, width), in_units(scaled, width),
                        in_units(dP, width), pool);
  const float before = layer_projection_scale(*arch_);
  for (float& x : dP.data()) x *= before;
  layers_.projection->run_backward(stream, std::as_const(dP).view(), d_stream,
                                   pool);
}

BlockState TrainableEnds::begin(std::span<const TokenId> tokens,
                                std::span<const Segment> segments,
                                ThreadPool& pool) const {
  BlockState state{.hidden = before_norm(tokens, segments, pool)};
  if (!arch_->embedding_norm.empty()) {
    state.hidden = embedding_norm_.apply(state.hidden.view(), pool);
  }
  if (arch_->layer_inputs.width != 0) {
    state.carried.resize(1);
    state.carried[0].rows = layer_inputs(tokens, state.hidden.view(), pool);
  }
  return state;
}

void TrainableEnds::begin_backward(std::span<const TokenId> tokens,
                                   std::span<const Segment> segments,
                                   StreamGradient gradient, ThreadPool& pool) {
  MatrixF d = std::move(gradient.hidden);
  if (arch_->layer_inputs.width != 0 && !gradient.carried.empty() &&
      !gradient.carried[0].empty()) {
    const MatrixF stream = begin(tokens, segments, pool).hidden;
    layer_inputs_backward(tokens, stream.view(), gradient.carried[0].view(),
                          d.view(), pool);
  }
  if (!arch_->embedding_norm.empty()) {
    const MatrixF X = before_norm(tokens, segments, pool);
    MatrixF dX(X.rows(), X.cols());
    embedding_norm_.backward(X.view(), d.view(), dX.view(), pool);
    d = std::move(dX);
  }
  if (!d_positions_.empty()) {
    const auto positions = row_positions(segments);
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const auto to = d_positions_.row(positions[t] + arch_->position_offset);
      for (std::size_t c = 0; c < to.size(); ++c) to[c] += d(t, c);
    }
  }
  if (embedding_projection_) {
    MatrixF X = table_.rows(tokens);
    for (float& x : X.data()) x *= arch_->embedding_scale;
    MatrixF dX(X.rows(), X.cols());
    embedding_projection_->run_backward(X.view(), std::as_const(d).view(),
                                        dX.view(), pool);
    d = std::move(dX);
  }
  table_.backward(tokens, d.view(), arch_->embedding_scale, pool);
}

MatrixF TrainableEnds::head_input(ConstMatrixView normed,
                                  ThreadPool& pool) const {
  return head_projection_ ? run_linear(*head_projection_, normed, pool)
                          : MatrixF(normed);
}

MatrixF TrainableEnds::logits(ConstMatrixView hidden, ThreadPool& pool) const {
  const MatrixF normed = final_norm_.apply(hidden, pool);
  MatrixF Z = run_linear(*head_, head_input(normed.view(), pool).view(), pool);
  finish_logits(*arch_, Z.view());
  return Z;
}

double TrainableEnds::loss(ConstMatrixView hidden,
                           std::span<const float> row_weights,
                           const LogitLoss& loss, MatrixF* d_hidden,
                           ThreadPool& pool) {
  if (d_hidden != nullptr) {
    *d_hidden = zero_matrix(hidden.rows(), hidden.cols(), pool);
  }
  const float scale = arch_->logit_scale, cap = arch_->logit_softcap;
  const std::size_t chunk = rows_per_chunk(arch_->vocabulary);
  double total = 0;
  for (std::size_t first = 0; first < hidden.rows(); first += chunk) {
    const std::size_t rows = std::min(chunk, hidden.rows() - first);
    if (std::ranges::all_of(row_weights.subspan(first, rows),
                            [](float w) { return w == 0; })) {
      continue;
    }
    const ConstMatrixView H = hidden.rows_slice(first, rows);
    MatrixF normed = final_norm_.apply(H, pool);
    const MatrixF projected =
        head_projection_ ? run_linear(*head_projection_, normed.view(), pool)
                         : MatrixF();
    const ConstMatrixView X =
        std::as_const(head_projection_ ? projected : normed).view();
    MatrixF Z = run_linear(*head_, X, pool);
    finish_logits(*arch_, Z.view());
    MatrixF G = zero_matrix(rows, arch_->vocabulary, pool);
    total += loss(first, std::as_const(Z).view(), G.view());
    if (d_hidden == nullptr) continue;
    for (std::size_t i = 0; cap != 0 && i < G.size(); ++i) {
      const float t = Z.data()[i] / cap;
      G.data()[i] *= 1 - t * t;
    }
    if (scale != 1) {
      for (float& g : G.data()) g *= scale;
    }
    give_back(std::move(Z));
    MatrixF dX = unset_matrix(X.rows(), X.cols());
    head_->run_backward_over(X, std::as_const(G).view(), dX.view(), pool);
    give_back(std::move(G));
    if (head_projection_) {
      MatrixF d_normed(normed.rows(), normed.cols());
      head_projection_->run_backward(normed.view(), std::as_const(dX).view(),
                                     d_normed.view(), pool);
      dX = std::move(d_normed);
    }
    final_norm_.backward(H, std::as_const(dX).view(),
                         d_hidden->view().rows_slice(first, rows), pool);
    give_back(std::move(dX));
    give_back(std::move(normed));
  }
  return total;
}

}  // namespace llmpress
