#include <algorithm>
#include <cassert>
#include <cmath>

#include "compress/model/ops/reverse_recurrence.h"
#include "compress/model/ops/routing.h"
#include "compress/model/ops/sparse_mixer.h"

namespace llmpress {
namespace {

constexpr std::size_t kTokensPerTask = 32, kColumnsPerTask = 256;

bool is_idle(const Routing& routing, std::size_t row) {
  return !routing.idle.empty() && routing.idle[row];
}

// dL/dweight of every routed row, to be added to.
std::span<float> weight_gradients(const OpGradients& gradients,
                                  const Routing& routing) {
  std::vector<float>& d = gradients.own->routing[&routing];
  d.resize(routing.rows());
  return d;
}

// An expert of a token; d: what the loss changes by with its weight, and then
// with its score.
struct Chosen {
  std::size_t expert = 0;
  float d = 0, score = 0;
};

// The choices of all tokens [tokens, top], each token's in the experts' order.
std::vector<Chosen> choices_of_tokens(const RouteOp& op, const Routing& routing,
                                      std::span<const float> d_weight) {
  std::vector<Chosen> chosen(routing.tokens * op.top);
  std::vector<std::size_t> count(routing.tokens);
  for (std::size_t e = 0; e < op.experts; ++e) {
    for (std::size_t r = routing.offsets[e]; r < routing.offsets[e + 1]; ++r) {
      if (is_idle(routing, r)) continue;
      const std::size_t t = routing.token[r];
      assert(count[t] < op.top);
      chosen[t * op.top + count[t]++] = {e, d_weight[r]};
    }
  }
  return chosen;
}

// RouteOp in reverse for one token at a time.
class ReverseChooser {
 public:
  explicit ReverseChooser(const RouteOp& op) : op_(op), scores_(op.experts) {}

  // Adds to dz [experts] from the logits z and the gradients of the weights.
  void reverse(std::span<const float> z, std::span<Chosen> chosen,
               std::span<float> dz) {
    if (op_.score == RouteScore::kSparseMixer) {
      return reverse_sparse_mixer(z, chosen, dz);
    }
    score(z, chosen);
    for (Chosen& c : chosen) c.d *= op_.scale;
    if (op_.normalize) reverse_normalization(chosen);
    switch (op_.score) {
      case RouteScore::kSoftmax:
        add_softmax(chosen, dz);
        break;
      case RouteScore::kTopKSoftmax:
        add_softmax_of_chosen(chosen, dz);
        break;
      case RouteScore::kSigmoid:
      case RouteScore::kTopKSigmoid:
        for (const Chosen& c : chosen) {
          dz[c.expert] += c.d * c.score * (1 - c.score);
        }
        break;
      case RouteScore::kSparseMixer:
        break;
    }
  }

 private:
  // Of the chosen, and of all experts where they share a softmax.
  void score(std::span<const float> z, std::span<Chosen> chosen) {
    float max = z[chosen.front().expert], sum = 0;
    for (const float x : z) max = std::max(max, x);
    switch (op_.score) {
      case RouteScore::kSoftmax:
        for (std::size_t e = 0; e < z.size(); ++e) {
          sum += scores_[e] = std::exp(z[e] - max);
        }
        for (float& s : scores_) s /= sum;
        for (Chosen& c : chosen) c.score = scores_[c.expert];
        break;
      case RouteScore::kTopKSoftmax:
        for (Chosen& c : chosen) sum += c.score = std::exp(z[c.expert] - max);
        for (Chosen& c : chosen) c.score /= sum;
        break;
      case RouteScore::kSigmoid:
      case RouteScore::kTopKSigmoid:
        for (Chosen& c : chosen) c.score = 1 / (1 + std::exp(-z[c.expert]));
        break;
      case RouteScore::kSparseMixer:
        break;
    }
  }

  // weight = s / (sum + epsilon): ds = (d - sum over the chosen of d weight) /
  // (sum + epsilon).
  void reverse_normalization(std::span<Chosen> chosen) const {
    float sum = op_.normalize_epsilon, along = 0;
    for (const Chosen& c : chosen) sum += c.score;
    for (const Chosen& c : chosen) along += c.d * c.score / sum;
    for (Chosen& c : chosen) c.d = (c.d - along) / sum;
  }

  static float along(std::span<const Chosen> chosen) {
    float sum = 0;
    for (const Chosen& c : chosen) sum += c.d * c.score;
    return sum;
  }

  void add_softmax(std::span<const Chosen> chosen, std::span<float> dz) const {
    const float sum = along(chosen);
    for (std::size_t e = 0; e < dz.size(); ++e) dz[e] -= scores_[e] * sum;
    for (const Chosen& c : chosen) dz[c.expert] += c.d * c.score;
  }

  static void add_softmax_of_chosen(std::span<const Chosen> chosen,
                                    std::span<float> dz) {
    const float sum = along(chosen);
    for (const Chosen& c : chosen) dz[c.expert] += c.score * (c.d - sum);
  }

  // The plain derivative of the weights at inference, softmaxes of the rivals,
  // each without the experts that were chosen before.
  // Differs from the paper: SparseMixer-v2 (arXiv:2409.12136) draws its experts
  // while it trains, and estimates with Heun's third-order method what another
  // choice would have given.
  void reverse_sparse_mixer(std::span<const float> z, std::span<Chosen> chosen,
                            std::span<float> dz) {
    std::ranges::stable_sort(chosen, [&](const Chosen& a, const Chosen& b) {
      return z[a.expert] > z[b.expert];
    });
    for (std::size_t k = 0; k < chosen.size(); ++k) {
      const float best = z[chosen[k].expert];
      float sum = 0;
      for (std::size_t e = 0; e < z.size(); ++e) {
        const bool is_taken = std::any_of(
            chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(k),
            [&](const Chosen& c) { return c.expert == e; });
        scores_[e] = is_taken || !is_rival(z[e], best, op_.jitter)
                         ? 0
                         : std::exp(z[e] - best);
        sum += scores_[e];
      }
      const float weight = 1 / sum, d = chosen[k].d * weight;
      for (std::size_t e = 0; e < z.size(); ++e) {
        dz[e] -= d * scores_[e] * weight;
      }
      dz[chosen[k].expert] += d;
    }
  }

  const RouteOp& op_;
  std::vector<float> scores_;
};

}  // namespace

// Neither the choice nor the bias that takes part in it has a gradient.
void backward(const RouteOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const Routing& routing = *gradients.out[0]->routing;
  const auto d_weight = gradients.own->routing.find(&routing);
  if (d_weight == gradients.own->routing.end() || !gradients.wants(0)) return;
  const ConstMatrixView Z = gradients.input(0);
  const auto dZ = gradients.to_add(0);
  std::vector<Chosen> chosen = choices_of_tokens(op, routing, d_weight->second);
  context.pool->for_ranges(
      Z.rows(), kTokensPerTask, [&](std::size_t begin, std::size_t end) {
        ReverseChooser chooser(op);
        for (std::size_t t = begin; t < end; ++t) {
          chooser.reverse(Z.row(t),
                          std::span(chosen).subspan(t * op.top, op.top),
                          dZ.row(t));
        }
      });
}

// Cut by columns, as CombineOp runs.
void backward(const DispatchOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const ConstMatrixView X = gradients.input(0), dY = gradients.gradient();
  const Routing& routing = *gradients.in[1]->routing;
  const auto dX = gradients.to_add(0);
  context.pool->for_ranges(
      dX.cols(), kColumnsPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t r = 0; r < dY.rows(); ++r) {
          const float weight = op.weigh_input ? routing.weight[r] : 1.0f;
          const float* const dy = dY.row(r).data();
          float* const to = dX.row(routing.token[r]).data();
          for (std::size_t c = begin; c < end; ++c) to[c] += weight * dy[c];
        }
      });
  if (!op.weigh_input) return;
  const auto d_weight = weight_gradients(gradients, routing);
  context.pool->for_ranges(
      dY.rows(), kTokensPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t r = begin; r < end; ++r) {
          if (is_idle(routing, r)) continue;
          d_weight[r] +=
              dot(dY.row(r).data(), X.row(routing.token[r]).data(), X.cols());
        }
      });
}

void backward(const CombineOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const ConstMatrixView Y = gradients.input(0), d_sum = gradients.gradient();
  const Routing& routing = *gradients.in[0]->routing;
  const auto dY = gradients.to_add(0);
  const auto d_weight =
      op.weighed ? std::span<float>() : weight_gradients(gradients, routing);
  context.pool->for_ranges(
      Y.rows(), kTokensPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t r = begin; r < end; ++r) {
          if (is_idle(routing, r)) continue;
          const auto d = d_sum.row(routing.token[r]);
          if (!d_weight.empty()) {
            d_weight[r] += dot(d.data(), Y.row(r).data(), d.size());
          }
          if (dY.size() == 0) continue;
          const float weight = op.weighed ? 1.0f : routing.weight[r];
          const auto to = dY.row(r);
          for (std::size_t c = 0; c < d.size(); ++c) to[c] += weight * d[c];
        }
      });
}

}  // namespace llmpress
