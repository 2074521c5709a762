#include "compress/model/ops/routing.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

namespace llmpress {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

void softmax_in_place(std::span<float> z) {
  const float max = *std::ranges::max_element(z);
  float sum = 0;
  for (float& x : z) sum += x = std::exp(x - max);
  for (float& x : z) x /= sum;
}

// Indices of the `count` largest, the largest first; of equal ones the lower.
std::vector<std::size_t> largest(std::span<const float> z, std::size_t count) {
  std::vector<std::size_t> order(z.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(
      order, [&](std::size_t a, std::size_t b) { return z[a] > z[b]; });
  order.resize(std::min(count, order.size()));
  return order;
}

// Experts outside the best groups are never chosen.
void keep_best_groups(const RouteOp& op, std::span<float> choice) {
  if (op.kept_groups >= op.groups) return;
  const std::size_t size = choice.size() / op.groups;
  std::vector<float> rank(op.groups);
  for (std::size_t g = 0; g < op.groups; ++g) {
    const auto group = choice.subspan(g * size, size);
    const auto best = largest(group, 2);
    rank[g] = group[best[0]];
    if (op.group_rank == GroupRank::kTopTwoSum && best.size() > 1) {
      rank[g] += group[best[1]];
    }
  }
  std::vector<bool> kept(op.groups, false);
  for (const std::size_t g : largest(rank, op.kept_groups)) kept[g] = true;
  for (std::size_t e = 0; e < choice.size(); ++e) {
    if (!kept[e / size]) choice[e] = kNever;
  }
}

struct Choice {
  std::size_t expert = 0;
  float weight = 0;
};

// The largest logit is chosen; its weight is its softmax among those that come
// within the band of it. Then again without it, for the second expert.
std::vector<Choice> sparse_mixer(const RouteOp& op, std::span<float> z) {
  std::vector<Choice> chosen;
  for (std::size_t k = 0; k < op.top; ++k) {
    const std::size_t best = largest(z, 1)[0];
    float sum = 0;
    for (const float x : z) {
      const float factor = std::max(std::abs(x), std::abs(z[best]));
      if (x == kNever || (z[best] - x) / factor > 2 * op.jitter) continue;
      sum += std::exp(x - z[best]);
    }
    chosen.push_back({best, 1 / sum});
    z[best] = kNever;
  }
  return chosen;
}

std::vector<Choice> choose(const RouteOp& op, std::span<const float> bias,
                           std::span<float> z) {
  if (op.score == RouteScore::kSparseMixer) return sparse_mixer(op, z);
  if (op.score == RouteScore::kSoftmax) softmax_in_place(z);
  if (op.score == RouteScore::kSigmoid) {
    for (float& x : z) x = 1 / (1 + std::exp(-x));
  }
  std::vector<float> choice(z.begin(), z.end());
  for (std::size_t e = 0; e < bias.size(); ++e) choice[e] += bias[e];
  keep_best_groups(op, choice);
  std::vector<Choice> chosen;
  for (const std::size_t e : largest(choice, op.top)) {
    chosen.push_back({e, z[e]});
  }
  if (op.score == RouteScore::kTopKSoftmax) {
    std::vector<float> weights;
    for (const Choice& c : chosen) weights.push_back(c.weight);
    softmax_in_place(weights);
    for (std::size_t k = 0; k < chosen.size(); ++k) {
      chosen[k].weight = weights[k];
    }
  }
  if (op.normalize) {
    float sum = op.normalize_epsilon;
    for (const Choice& c : chosen) sum += c.weight;
    for (Choice& c : chosen) c.weight /= sum;
  }
  for (Choice& c : chosen) c.weight *= op.scale;
  return chosen;
}

// Every expert sees every token; those that a token did not choose with weight
// zero, so that the sum stays what it was.
void spread_to_all(std::vector<Choice>& chosen, std::size_t experts) {
  std::vector<bool> has(experts, false);
  for (const Choice& c : chosen) has[c.expert] = true;
  for (std::size_t e = 0; e < experts; ++e) {
    if (!has[e]) chosen.push_back({e, 0});
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
  std::vector<std::vector<Choice>> of_token(logits.rows());
  for (std::size_t t = 0; t < logits.rows(); ++t) {
    of_token[t] = choose(op, bias, logits.row(t));
    if (context.all_experts) spread_to_all(of_token[t], op.experts);
  }
  auto routing = std::make_shared<Routing>();
  routing->tokens = logits.rows();
  routing->offsets.assign(op.experts + 1, 0);
  for (const auto& chosen : of_token) {
    for (const Choice& c : chosen) ++routing->offsets[c.expert + 1];
  }
  std::partial_sum(routing->offsets.begin(), routing->offsets.end(),
                   routing->offsets.begin());
  routing->token.resize(routing->offsets.back());
  routing->weight.resize(routing->offsets.back());
  std::vector<std::size_t> next(routing->offsets.begin(),
                                routing->offsets.end() - 1);
  for (std::size_t t = 0; t < of_token.size(); ++t) {
    for (const Choice& c : of_token[t]) {
      const std::size_t row = next[c.expert]++;
      routing->token[row] = static_cast<std::uint32_t>(t);
      routing->weight[row] = c.weight;
    }
  }
  arguments.out[0]->rows = {};
  arguments.out[0]->routing = std::move(routing);
}

void run(const DispatchOp& op, const OpContext& /*context*/,
         const OpArguments& arguments) {
  const ConstMatrixView X = arguments.input(0);
  const auto& routing = arguments.in[1]->routing;
  MatrixF routed(routing->rows(), X.cols());
  for (std::size_t r = 0; r < routed.rows(); ++r) {
    std::ranges::copy(X.row(routing->token[r]), routed.row(r).begin());
    if (!op.weigh_input) continue;
    for (float& x : routed.row(r)) x *= routing->weight[r];
  }
  arguments.out[0]->rows = std::move(routed);
  arguments.out[0]->routing = routing;
}

void run(const CombineOp& op, const OpContext& /*context*/,
         const OpArguments& arguments) {
  const ConstMatrixView Y = arguments.input(0);
  const Routing& routing = *arguments.in[0]->routing;
  MatrixF sum(routing.tokens, Y.cols());
  for (std::size_t r = 0; r < Y.rows(); ++r) {
    const float weight = op.weighed ? 1.0f : routing.weight[r];
    const auto y = Y.row(r);
    const auto to = sum.row(routing.token[r]);
    for (std::size_t c = 0; c < y.size(); ++c) to[c] += weight * y[c];
  }
  arguments.out[0]->rows = std::move(sum);
  arguments.out[0]->routing = nullptr;
}

}  // namespace llmpress
