#include "pruning/hard_concrete.h"

#include <algorithm>
#include <cmath>

namespace llmpress {
namespace {

constexpr double kBeta = 2.0 / 3, kGamma = -0.1, kZeta = 1.1;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

GateValue sampled_gate(double log_alpha, double u) {
  const double s = sigmoid((std::log(u) - std::log1p(-u) + log_alpha) / kBeta);
  const double wide = s * (kZeta - kGamma) + kGamma;
  if (wide <= 0) return {0, 0};
  if (wide >= 1) return {1, 0};
  return {wide, s * (1 - s) * (kZeta - kGamma) / kBeta};
}

double settled_gate(double log_alpha) {
  return std::clamp(sigmoid(log_alpha) * (kZeta - kGamma) + kGamma, 0.0, 1.0);
}

GateValue open_probability(double log_alpha) {
  const double p = sigmoid(log_alpha - kBeta * std::log(-kGamma / kZeta));
  return {p, p * (1 - p)};
}

}  // namespace llmpress
