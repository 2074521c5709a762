// The functions of row_kernels.h for one instruction set S.

constexpr std::size_t kLanes = 16;

// Calls body(pointer, count) for 16 elements at a time; the last ones come in a
// copy filled up with `filler`.
template <class Body>
LLMPRESS_INLINE void for_vectors(const float* x, std::size_t n, float filler,
                                 Body body) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(x + i, i, kLanes);
  if (i == n) return;
  float rest[kLanes];
  std::fill_n(rest, kLanes, filler);
  std::copy_n(x + i, n - i, rest);
  body(rest, i, n - i);
}

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

template <class S>
float max_of(const float* x, std::size_t n) {
  auto max = S::broadcast(kMinusInfinity);
  for_vectors(x, n, kMinusInfinity,
              [&](const float* p, std::size_t, std::size_t)
                  LLMPRESS_LAMBDA { max = S::max(max, S::load(p)); });
  return S::largest(max);
}

template <class S>
double sum_exp(const float* x, std::size_t n, float shift) {
  auto sum = S::zero_doubles();
  const auto s = S::broadcast(shift);
  for_vectors(x, n, kMinusInfinity,
              [&](const float* p, std::size_t, std::size_t) LLMPRESS_LAMBDA {
                const auto e = exponential<S>(S::sub(S::load(p), s));
                sum = S::add(sum, S::widen(e));
              });
  return S::sum(sum);
}

template <class S>
LLMPRESS_INLINE void store_some(float* y, typename S::F value,
                                std::size_t count) {
  if (count == kLanes) return S::store(y, value);
  float rest[kLanes];
  S::store(rest, value);
  std::copy_n(rest, count, y);
}

template <class S>
void scaled_exp(const float* x, std::size_t n, float shift, float factor,
                float* y) {
  const auto s = S::broadcast(shift), f = S::broadcast(factor);
  for_vectors(x, n, 0,
              [&](const float* p, std::size_t i, std::size_t count)
                  LLMPRESS_LAMBDA {
                    const auto e = exponential<S>(S::sub(S::load(p), s));
                    store_some<S>(y + i, S::mul(e, f), count);
                  });
}

template <class S>
double divergence(const float* p, const float* q, std::size_t n, float shift,
                  double difference) {
  auto sum = S::zero_doubles();
  const auto s = S::broadcast(shift);
  const auto d = S::broadcast(difference);
  for_vectors(
      p, n, kMinusInfinity,
      [&](const float* a, std::size_t i, std::size_t count) LLMPRESS_LAMBDA {
        float rest[kLanes] = {};
        const float* b = q + i;
        if (count < kLanes) {
          std::copy_n(b, count, rest);
          b = rest;
        }
        const auto e = exponential<S>(S::sub(S::load(a), s));
        // A term of weight 0 is 0 even where a logit is infinite.
        const auto log_p = S::where_positive(e, S::load(a), S::zero());
        const auto log_q = S::where_positive(e, S::load(b), S::zero());
        const auto ratio = S::sub(S::sub(S::widen(log_p), S::widen(log_q)), d);
        sum = S::fma(S::widen(e), ratio, sum);
      });
  return S::sum(sum);
}

// e^(-x^2) and the rational part of Abramowitz and Stegun 7.1.26, for x >= 0:
// absolute error 1.5e-7.
template <class S>
LLMPRESS_INLINE typename S::F error_function_of_positive(typename S::F x) {
  const auto one = S::broadcast(1.0f);
  const auto t = S::div(one, S::fma(x, S::broadcast(0.3275911f), one));
  auto p = S::broadcast(1.061405429f);
  p = S::fma(p, t, S::broadcast(-1.453152027f));
  p = S::fma(p, t, S::broadcast(1.421413741f));
  p = S::fma(p, t, S::broadcast(-0.284496736f));
  p = S::fma(p, t, S::broadcast(0.254829592f));
  const auto gauss = exponential<S>(S::mul(S::sub(S::zero(), x), x));
  return S::fnma(S::mul(p, t), gauss, one);
}

template <class S>
LLMPRESS_INLINE typename S::F gelu_tanh(typename S::F x) {
  // x/2 (1 + tanh u) = x sigmoid(2u)
  const auto cubic =
      S::fma(S::mul(x, x), S::broadcast(0.044715f), S::broadcast(1.0f));
  const auto twice = S::mul(S::mul(x, S::broadcast(1.5957691216f)), cubic);
  return S::mul(x, sigmoid<S>(twice));
}

template <class S>
LLMPRESS_INLINE typename S::F gelu_erf(typename S::F x) {
  const auto minus = S::sub(S::zero(), x);
  const auto size = S::mul(S::max(minus, x), S::broadcast(0.7071067812f));
  const auto half =
      S::mul(S::broadcast(0.5f), error_function_of_positive<S>(size));
  const auto plus = S::add(S::broadcast(0.5f), half);
  const auto less = S::sub(S::broadcast(0.5f), half);
  return S::mul(x, S::where_positive(x, plus, less));
}

template <class S>
LLMPRESS_INLINE typename S::F apply(Activation f, typename S::F x) {
  switch (f) {
    case Activation::kSilu:
      return S::mul(x, sigmoid<S>(x));
    case Activation::kGeluTanh:
      return gelu_tanh<S>(x);
    case Activation::kGeluErf:
      return gelu_erf<S>(x);
    case Activation::kRelu:
      return S::max(S::zero(), x);  // the second operand: keeps NaN
    case Activation::kRelu2: {
      const auto positive = S::max(S::zero(), x);
      return S::mul(positive, positive);
    }
    case Activation::kSigmoid:
      return sigmoid<S>(x);
    case Activation::kTanh:
      return hyperbolic_tangent<S>(x);
    case Activation::kSoftplus:
      break;  // in activations.cpp
  }
  return x;
}

template <class S>
void activate(Activation f, const float* x, const float* up, std::size_t n,
              float* y) {
  for_vectors(x, n, 0,
              [&](const float* p, std::size_t i, std::size_t count)
                  LLMPRESS_LAMBDA {
                    auto v = apply<S>(f, S::load(p));
                    if (up != nullptr) {
                      float rest[kLanes] = {};
                      const float* u = up + i;
                      if (count < kLanes) {
                        std::copy_n(u, count, rest);
                        u = rest;
                      }
                      v = S::mul(v, S::load(u));
                    }
                    store_some<S>(y + i, v, count);
                  });
}

// f'(x)
template <class S>
LLMPRESS_INLINE typename S::F slope_at(Activation f, typename S::F x) {
  const auto one = S::broadcast(1.0f);
  switch (f) {
    case Activation::kSilu: {
      const auto s = sigmoid<S>(x);
      return S::mul(s, S::fma(x, S::sub(one, s), one));
    }
    case Activation::kGeluTanh: {
      // x s(2u): s + x s (1 - s) 2u'
      const auto square = S::mul(x, x);
      const auto cubic = S::fma(square, S::broadcast(0.044715f), one);
      const auto s =
          sigmoid<S>(S::mul(S::mul(x, S::broadcast(1.5957691216f)), cubic));
      const auto twice = S::fma(square, S::broadcast(0.2140644489f),
                                S::broadcast(1.5957691216f));
      return S::fma(S::mul(x, twice), S::mul(s, S::sub(one, s)), s);
    }
    case Activation::kGeluErf: {
      const auto minus = S::sub(S::zero(), x);
      const auto size = S::mul(S::max(minus, x), S::broadcast(0.7071067812f));
      const auto half =
          S::mul(S::broadcast(0.5f), error_function_of_positive<S>(size));
      const auto below = S::where_positive(x, S::add(S::broadcast(0.5f), half),
                                           S::sub(S::broadcast(0.5f), half));
      const auto density =
          S::mul(S::broadcast(0.3989422804f),
                 exponential<S>(S::mul(S::mul(x, S::broadcast(-0.5f)), x)));
      return S::fma(x, density, below);
    }
    case Activation::kRelu:
      return S::where_positive(x, one, S::zero());
    case Activation::kRelu2:
      return S::max(S::zero(), S::add(x, x));
    case Activation::kSoftplus:
      return sigmoid<S>(x);
    case Activation::kSigmoid: {
      const auto s = sigmoid<S>(x);
      return S::mul(s, S::sub(one, s));
    }
    case Activation::kTanh: {
      const auto t = hyperbolic_tangent<S>(x);
      return S::fnma(t, t, one);
    }
  }
  return x;
}

template <class S>
void slopes(Activation f, const float* x, std::size_t n, float* y) {
  for_vectors(x, n, 0,
              [&](const float* p, std::size_t i, std::size_t count)
                  LLMPRESS_LAMBDA {
                    store_some<S>(y + i, slope_at<S>(f, S::load(p)), count);
                  });
}

template <class S>
void round_codes(const float* x, const float* mask, std::size_t n,
                 const ActivationGrid& grid, std::int8_t* codes) {
  const auto scale = S::broadcast(grid.scale);
  for_vectors(x, n, 0,
              [&](const float* p, std::size_t i, std::size_t count)
                  LLMPRESS_LAMBDA {
                    auto v = S::load(p);
                    if (mask != nullptr) {
                      float rest[kLanes] = {};
                      std::copy_n(mask + i, count, rest);
                      v = S::mul(v, S::load(rest));
                    }
                    v = S::add(S::div(v, scale), S::broadcast(grid.zero));
                    v = S::max(v, S::broadcast(grid.lowest));
                    v = S::round(S::min(v, S::broadcast(grid.highest)));
                    if (count == kLanes)
                      return S::store_i8(codes + i, S::to_lanes(v));
                    std::int8_t rest[kLanes];
                    S::store_i8(rest, S::to_lanes(v));
                    std::copy_n(rest, count, codes + i);
                  });
}
