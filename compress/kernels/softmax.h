// Probabilities of one row of logits. Exponentials are taken of z - max(z), so
// nothing overflows; sums run in double. A row with a NaN gives NaN.
#pragma once

#include <cstddef>
#include <span>

#include "compress/kernels/cpu.h"

namespace llmpress {

// log sum_i exp(z_i).
double log_sum_exp(std::span<const float> logits, Isa isa = best_isa());

// z_i <- exp(z_i) / sum_j exp(z_j).
void softmax_in_place(std::span<float> logits, Isa isa = best_isa());

// z_i <- z_i - log_sum_exp(z).
void log_softmax_in_place(std::span<float> logits, Isa isa = best_isa());

// -log softmax(z)[target], in nats.
double negative_log_likelihood(std::span<const float> logits,
                               std::size_t target, Isa isa = best_isa());

// KL(p || q) = sum_i p_i (log p_i - log q_i) in nats, of the softmaxes of two
// rows of logits of the same size. Never below 0.
double kl_divergence(std::span<const float> p_logits,
                     std::span<const float> q_logits, Isa isa = best_isa());

// The lowest index of the largest value; logits must not be empty.
std::size_t argmax(std::span<const float> logits);

}  // namespace llmpress
