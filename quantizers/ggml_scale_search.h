// The searches by which llama.cpp finds the scale of a few weights: for given
// codes the best scale is a weighted least-squares fit, for a given scale the
// best codes are the nearest; each search tries scales around the one that
// covers the range and keeps the pair of least weighted error. Written from the
// description in "k-quants" (github.com/ggml-org/llama.cpp/pull/1684) so that
// the same octets come out as of its reference (ggml-quants.c): sums are float,
// in order, and `nearest_code` rounds half to even.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace llmpress {

int nearest_code(float x);  // |x| < 2^22

// x ~ scale (code - half), code in [0, 2 half): the search of make_qx_quants
// over 18 scales. `weights` of the squared errors; empty: x^2. All zero: codes
// 0, scale 0.
float fit_signed(std::span<const float> x, int half,
                 std::span<const float> weights, std::span<std::uint8_t> codes);

// x ~ scale (code - half): codes improved one at a time (make_q3_quants),
// weights x^2.
float fit_signed_stepwise(std::span<const float> x, int half,
                          std::span<std::uint8_t> codes);

// x ~ scale code - minimum, minimum >= 0, code in [0, most] (make_qkx3_quants).
struct AffineSearch {
  float first = -0.9f, step = 0.05f;  // added to `most`: scales that are tried
  int steps = 36;
  bool absolute = false;  // errors not squared
};
struct AffineFit {
  float scale = 0, minimum = 0;
};
AffineFit fit_affine(std::span<const float> x, int most,
                     std::span<const float> weights, const AffineSearch& search,
                     std::span<std::uint8_t> codes);

// x ~ scale code of x >= 0 (make_qp_quants): what quantizes scales themselves.
float fit_positive(std::span<const float> x, int most,
                   std::span<const float> weights,
                   std::span<std::uint8_t> codes);

// Scale of 4-bit codes of an uneven table (quantize_row_iq4_nl_impl), without
// the codes. `table` rises; weights of the squared errors.
float fit_table(std::span<const float> x, std::span<const std::int8_t> table,
                std::span<const float> weights);
// Index of the entry nearest to x.
std::uint8_t nearest_entry(std::span<const std::int8_t> table, float x);

}  // namespace llmpress
