// exp and what is made of it, 16 lanes at a time, for one instruction set S.
// Included by other *_inl.h users inside their target stretch.

// e^x to within 2 units in the last place; 0 below -87.3, infinity above 88.7,
// NaN for NaN. Cody and Waite's reduction x = n ln 2 + r, |r| <= ln 2 / 2, and
// the Taylor polynomial of degree 7 (its remainder is 5e-9).
template <class S>
LLMPRESS_INLINE typename S::F exponential(typename S::F x) {
  using F = typename S::F;
  constexpr float kLowest = -87.33f;
  // The second operand comes back where there is a NaN.
  const F clamped =
      S::min(S::broadcast(89.0f), S::max(S::broadcast(kLowest), x));
  const F n = S::round(S::mul(clamped, S::broadcast(1.44269504f)));
  F r = S::fnma(n, S::broadcast(0.693359375f), clamped);
  r = S::fnma(n, S::broadcast(-2.12194440e-4f), r);
  F p = S::broadcast(1.0f / 5040);
  p = S::fma(p, r, S::broadcast(1.0f / 720));
  p = S::fma(p, r, S::broadcast(1.0f / 120));
  p = S::fma(p, r, S::broadcast(1.0f / 24));
  p = S::fma(p, r, S::broadcast(1.0f / 6));
  p = S::fma(p, r, S::broadcast(0.5f));
  p = S::fma(p, r, S::broadcast(1.0f));
  p = S::fma(p, r, S::broadcast(1.0f));
  // 2^(n-1) and 2: n = 128 alone has no exponent.
  const auto exponent = S::add(S::to_lanes(n), S::broadcast_lanes(126));
  const F power = S::as_float(S::template shift_left<23>(exponent));
  const F y = S::mul(S::mul(p, power), S::broadcast(2.0f));
  return S::where_positive(S::sub(S::broadcast(kLowest), x), S::zero(), y);
}

// 1 / (1 + e^-x)
template <class S>
LLMPRESS_INLINE typename S::F sigmoid(typename S::F x) {
  const auto one = S::broadcast(1.0f);
  return S::div(one, S::add(one, exponential<S>(S::sub(S::zero(), x))));
}

// tanh x = 2 / (1 + e^-2x) - 1: absolute error 1e-7.
template <class S>
LLMPRESS_INLINE typename S::F hyperbolic_tangent(typename S::F x) {
  return S::fma(S::broadcast(2.0f), sigmoid<S>(S::add(x, x)),
                S::broadcast(-1.0f));
}
