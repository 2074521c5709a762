#include "compress/model/ops/routing.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

#include "compress/model/ops/sparse_mixer.h"

namespace llmpress {
namespace {

constexpr std::size_t kTokensPerTask = 32, kColumnsPerTask = 256;
constexpr float kNever = -std::numeric_limits<float>::infinity();

void softmax_in_place(std::span<float> z) {
  const float max = *std::ranges::max_element(z);
  float sum = 0;
  for (float& x : z) sum += x = std::exp(x - max);
  for (float& x : z) x /= sum;
}

struct Choice {
  std::size_t expert = 0;
  float weight = 0;
};

// Chooses the experts of one token at a time; keeps its buffers between tokens.
class Chooser {
 public:
  Chooser(const RouteOp& op, std::span<const float> bias)
      : op_(op), bias_(bias), choice_(op.experts), rank_(op.groups) {}

  // Writes op.top experts, the best first. Changes the logits z [experts] to
  // what each expert's weight is or, if it were chosen, would be.
  void choose(std::span<float> z, std::span<Choice> chosen) {
    if (op_.score == RouteScore::kSparseMixer) return mix_sparsely(z, chosen);
    if (op_.score == RouteScore::kSoftmax) softmax_in_place(z);
    if (op_.score == RouteScore::kSigmoid) sigmoid_in_place(z);
    std::ranges::copy(z, choice_.begin());
    for (std::size_t e = 0; e < bias_.size(); ++e) choice_[e] += bias_[e];
    keep_best_groups();
    if (op_.score == RouteScore::kTopKSigmoid) sigmoid_in_place(z);
    for (Choice& c : chosen) {
      const std::size_t e = take_largest(choice_);
      c = {e, z[e]};
    }
    if (op_.score == RouteScore::kTopKSoftmax) soften(chosen);
    if (op_.normalize) {
      float sum = 0;
      for (const Choice& c : chosen) sum += c.weight;
      for (Choice& c : chosen) c.weight /= sum + op_.normalize_epsilon;
    }
    for (Choice& c : chosen) c.weight *= op_.scale;
  }

 private:
  static void sigmoid_in_place(std::span<float> z) {
    for (float& x : z) x = 1 / (1 + std::exp(-x));
  }

  // The index of the largest, of equal ones the lowest, which is not found
  // again.
  static std::size_t take_largest(std::span<float> z) {
    const auto best = static_cast<std::size_t>(
        std::max_element(z.begin(), z.end()) - z.begin());
    z[best] = kNever;
    return best;
  }

  static void soften(std::span<Choice> chosen) {
    float sum = 0;
    const float max = chosen.front().weight;
    for (Choice& c : chosen) sum += c.weight = std::exp(c.weight - max);
    for (Choice& c : chosen) c.weight /= sum;
  }

  // Experts outside the best groups are never chosen.
  void keep_best_groups() {
    if (op_.kept_groups >= op_.groups) return;
    const std::size_t size = op_.experts / op_.groups;
    for (std::size_t g = 0; g < op_.groups; ++g) {
      float first = kNever, second = kNever;
      for (std::size_t e = g * size; e < (g + 1) * size; ++e) {
        second = std::max(second, std::min(first, choice_[e]));
        first = std::max(first, choice_[e]);
      }
      const bool two = op_.group_rank == GroupRank::kTopTwoSum && size > 1;
      rank_[g] = two ? first + second : first;
    }
    kept_.assign(op_.groups, false);
    for (std::size_t k = 0; k < op_.kept_groups; ++k) {
      kept_[take_largest(rank_)] = true;
    }
    for (std::size_t e = 0; e < op_.experts; ++e) {
      if (!kept_[e / size]) choice_[e] = kNever;
    }
  }

  // The largest logit is chosen; its weight is its softmax among those that
  // come within the band of it. Then again without it, for the next expert.
  void mix_sparsely(std::span<float> z, std::span<Choice> chosen) {
    std::ranges::copy(z, choice_.begin());
    for (Choice& c : chosen) {
      const std::size_t best = take_largest(choice_);
      float sum = 1;
      for (std::size_t e = 0; e < op_.experts; ++e) {
        if (choice_[e] == kNever) continue;
        if (!is_rival(z[e], z[best], op_.jitter)) continue;
        sum += std::exp(z[e] - z[best]);
      }
      c = {best, 1 / sum};
    }
  }

  const RouteOp& op_;
  std::span<const float> bias_;
  std::vector<float> choice_, rank_;
  std::vector<bool> kept_{};
};

// The choices of all tokens [tokens, top] as rows grouped by expert.
void group_by_expert(const RouteOp& op, std::span<const Choice> chosen,
                     Routing& routing) {
  routing.offsets.assign(op.experts + 1, 0);
  for (const Choice& c : chosen) ++routing.offsets[c.expert + 1];
  std::partial_sum(routing.offsets.begin(), routing.offsets.end(),
                   routing.offsets.begin());
  routing.token.resize(chosen.size());
  routing.weight.resize(chosen.size());
  std::vector<std::size_t> next(routing.offsets.begin(),
                                routing.offsets.end() - 1);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const std::size_t row = next[chosen[i].expert]++;
    routing.token[row] = static_cast<std::uint32_t>(i / op.top);
    routing.weight[row] = chosen[i].weight;
  }
}

// Every expert sees every token. `weights` [tokens, experts]: of experts that
// a token did not choose.
void send_to_all(const RouteOp& op, std::span<const Choice> chosen,
                 ConstMatrixView weights, Routing& routing) {
  const std::size_t tokens = weights.rows();
  routing.offsets.resize(op.experts + 1);
  routing.token.resize(op.experts * tokens);
  routing.weight.resize(op.experts * tokens);
  routing.idle.assign(op.experts * tokens, true);
  for (std::size_t e = 0; e < op.experts; ++e) {
    routing.offsets[e + 1] = (e + 1) * tokens;
    for (std::size_t t = 0; t < tokens; ++t) {
      routing.token[e * tokens + t] = static_cast<std::uint32_t>(t);
      routing.weight[e * tokens + t] = weights(t, e);
    }
  }
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const std::size_t row = chosen[i].expert * tokens + i / op.top;
    routing.weight[row] = chosen[i].weight;
    routing.idle[row] = false;
  }
}

}  // namespace

void run(const RouteOp& op, const OpContext& context,
         const OpArguments& arguments) {
  MatrixF logits = arguments.take(0);
  assert(logits.cols() == op.experts);
  const std::span<const float> bias =
      op.bias ? std::span<const float>(context.parameters[*op.bias])
              : std::span<const float>();
  std::vector<Choice> chosen(logits.rows() * op.top);
  context.pool->for_ranges(
      logits.rows(), kTokensPerTask, [&](std::size_t begin, std::size_t end) {
        Chooser chooser(op, bias);
        for (std::size_t t = begin; t < end; ++t) {
          chooser.choose(logits.row(t),
                         std::span(chosen).subspan(t * op.top, op.top));
        }
      });
  auto routing = std::make_shared<Routing>();
  routing->tokens = logits.rows();
  if (context.all_experts) {
    send_to_all(op, chosen, logits.view(), *routing);
  } else {
    group_by_expert(op, chosen, *routing);
  }
  arguments.out[0]->rows = {};
  arguments.out[0]->routing = std::move(routing);
}

void run(const DispatchOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView X = arguments.input(0);
  const auto& routing = arguments.in[1]->routing;
  MatrixF routed(routing->rows(), X.cols());
  context.pool->for_ranges(
      routed.rows(), kTokensPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t r = begin; r < end; ++r) {
          const auto to = routed.row(r);
          std::ranges::copy(X.row(routing->token[r]), to.begin());
          if (!op.weigh_input) continue;
          for (float& x : to) x *= routing->weight[r];
        }
      });
  arguments.out[0]->rows = std::move(routed);
  arguments.out[0]->routing = routing;
}

// Cut by columns: each sum runs over the experts in their order, whatever the
// threads.
void run(const CombineOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView Y = arguments.input(0);
  const Routing& routing = *arguments.in[0]->routing;
  MatrixF sum(routing.tokens, Y.cols());
  context.pool->for_ranges(
      Y.cols(), kColumnsPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t r = 0; r < Y.rows(); ++r) {
          if (!routing.idle.empty() && routing.idle[r]) continue;
          const float weight = op.weighed ? 1.0f : routing.weight[r];
          const float* const y = Y.row(r).data();
          float* const to = sum.row(routing.token[r]).data();
          for (std::size_t c = begin; c < end; ++c) to[c] += weight * y[c];
        }
      });
  arguments.out[0]->rows = std::move(sum);
  arguments.out[0]->routing = nullptr;
}

}  // namespace llmpress
