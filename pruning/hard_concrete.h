// Gates between 0 and 1 that learn to be one or the other: the hard-concrete
// distribution (Louizos, Welling, Kingma 2018, arXiv:1712.01312, Eq. 10 to 12).
// With u uniform in (0, 1), beta = 2/3, gamma = -0.1, zeta = 1.1:
//   s = sigmoid((log u - log(1 - u) + log_alpha) / beta)
//   z = min(1, max(0, s (zeta - gamma) + gamma))
//   P(z > 0) = sigmoid(log_alpha - beta log(-gamma / zeta))
#pragma once

namespace llmpress {

// A number that depends on log_alpha, and its derivative.
struct GateValue {
  double value = 0, slope = 0;
};

// z for this u in (0, 1); the slope is 0 where z is cut off.
GateValue sampled_gate(double log_alpha, double u);
// z of no noise (Eq. 13): min(1, max(0, sigmoid(log_alpha) (zeta - gamma) +
// gamma)).
double settled_gate(double log_alpha);
// P(z > 0).
GateValue open_probability(double log_alpha);

}  // namespace llmpress
