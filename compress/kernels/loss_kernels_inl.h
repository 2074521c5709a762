// The functions of loss_kernels.h for one instruction set S, beside those that
// row_kernels_inl.h has.

template <class S>
LLMPRESS_INLINE typename S::F load_some(const float* p, std::size_t count,
                                        float filler) {
  if (count == kLanes) return S::load(p);
  float rest[kLanes];
  std::fill_n(rest, kLanes, filler);
  std::copy_n(p, count, rest);
  return S::load(rest);
}

// y_0 .. y_(count - 1) += value
template <class S>
LLMPRESS_INLINE void add_to(float* y, typename S::F value, std::size_t count) {
  store_some<S>(y, S::add(load_some<S>(y, count, 0), value), count);
}

template <class S>
struct ScaledExpLanes {
  typename S::F shift, factor;
  LLMPRESS_INLINE explicit ScaledExpLanes(ScaledExp e)
      : shift(S::broadcast(e.shift)), factor(S::broadcast(e.factor)) {}
  LLMPRESS_INLINE typename S::F of_shifted(typename S::F x) const {
    return S::mul(exponential<S>(x), factor);
  }
  LLMPRESS_INLINE typename S::F operator()(typename S::F x) const {
    return of_shifted(S::sub(x, shift));
  }
};

// x - offset for a double that one float would round.
template <class S>
struct OffsetLanes {
  typename S::F high, low;
  LLMPRESS_INLINE explicit OffsetLanes(double offset)
      : high(S::broadcast(static_cast<float>(offset))),
        low(S::broadcast(
            static_cast<float>(offset - double{static_cast<float>(offset)}))) {}
  LLMPRESS_INLINE typename S::F taken_from(typename S::F x) const {
    return S::sub(S::sub(x, high), low);
  }
};

template <class S>
void add_exp(const float* x, std::size_t n, ScaledExp e, float offset,
             float* y) {
  const ScaledExpLanes<S> exp(e);
  const auto o = S::broadcast(offset);
  for_vectors(x, n, 0,
              [&](const float* p, std::size_t i, std::size_t count)
                  LLMPRESS_LAMBDA {
                    add_to<S>(y + i, S::add(exp(S::load(p)), o), count);
                  });
}

template <class S>
void add_exp_difference(const float* x, ScaledExp e, const float* z,
                        ScaledExp f, std::size_t n, float* y) {
  const ScaledExpLanes<S> exp_x(e), exp_z(f);
  for_vectors(x, n, 0,
              [&](const float* p, std::size_t i, std::size_t count)
                  LLMPRESS_LAMBDA {
                    const auto b = exp_z(load_some<S>(z + i, count, 0));
                    add_to<S>(y + i, S::sub(exp_x(S::load(p)), b), count);
                  });
}

template <class S>
void add_exp_product(const float* x, ScaledExp e, const float* a, double offset,
                     std::size_t n, float* y) {
  const auto shift = S::broadcast(e.shift), factor = S::broadcast(e.factor);
  const OffsetLanes<S> o(offset);
  for_vectors(
      x, n, 0,
      [&](const float* p, std::size_t i, std::size_t count) LLMPRESS_LAMBDA {
        const auto weight = exponential<S>(S::sub(S::load(p), shift));
        const auto b = o.taken_from(load_some<S>(a + i, count, 0));
        // 0 times infinity is 0 here; NaN stays.
        const auto kept = S::where_positive(weight, b, weight);
        add_to<S>(y + i, S::mul(S::mul(weight, factor), kept), count);
      });
}

// log(1 + x) = 2 artanh(x / (2 + x)) for -1/2 <= x <= 1: the series up to the
// 15th power, whose remainder is 1e-9 of it.
template <class S>
LLMPRESS_INLINE typename S::F log_of_one_plus(typename S::F x) {
  const auto s = S::div(x, S::add(x, S::broadcast(2.0f)));
  const auto square = S::mul(s, s);
  auto p = S::broadcast(2.0f / 15);
  p = S::fma(p, square, S::broadcast(2.0f / 13));
  p = S::fma(p, square, S::broadcast(2.0f / 11));
  p = S::fma(p, square, S::broadcast(2.0f / 9));
  p = S::fma(p, square, S::broadcast(2.0f / 7));
  p = S::fma(p, square, S::broadcast(2.0f / 5));
  p = S::fma(p, square, S::broadcast(2.0f / 3));
  p = S::fma(p, square, S::broadcast(2.0f));
  return S::mul(p, s);
}

// e^x - 1 for |x| <= 1/2: the series up to the 8th power.
template <class S>
LLMPRESS_INLINE typename S::F exponential_less_one(typename S::F x) {
  auto p = S::broadcast(1.0f / 40320);
  p = S::fma(p, x, S::broadcast(1.0f / 5040));
  p = S::fma(p, x, S::broadcast(1.0f / 720));
  p = S::fma(p, x, S::broadcast(1.0f / 120));
  p = S::fma(p, x, S::broadcast(1.0f / 24));
  p = S::fma(p, x, S::broadcast(1.0f / 6));
  p = S::fma(p, x, S::broadcast(0.5f));
  p = S::fma(p, x, S::broadcast(1.0f));
  return S::mul(p, x);
}

// log(p / m) and log(q / m) from r = log(p / q), m = beta p + (1 - beta) q.
template <class S>
struct MixtureLanes {
  using F = typename S::F;
  F beta, log_beta, log_rest;  // log(1 - beta)
  struct Logs {
    F of_p, of_q;
  };
  LLMPRESS_INLINE explicit MixtureLanes(double b)
      : beta(S::broadcast(static_cast<float>(b))),
        log_beta(S::broadcast(static_cast<float>(std::log(b)))),
        log_rest(S::broadcast(static_cast<float>(std::log1p(-b)))) {}

  LLMPRESS_INLINE Logs operator()(F r) const {
    const F zero = S::zero();
    // m / q = (1 - beta) (1 + e^u); near r = 0, m / q = 1 + beta (e^r - 1).
    const F u = S::sub(S::add(r, log_beta), log_rest);
    const F far = exponential<S>(S::sub(zero, S::max(u, S::sub(zero, u))));
    const F size = S::max(r, S::sub(zero, r));
    const F is_near = S::sub(S::broadcast(0.5f), size);
    const F close = S::mul(beta, exponential_less_one<S>(r));
    const F l = log_of_one_plus<S>(S::where_positive(is_near, close, far));
    const F of_p =
        S::where_positive(u, S::sub(zero, log_beta), S::sub(r, log_rest));
    const F of_q = S::where_positive(u, S::sub(zero, S::add(r, log_beta)),
                                     S::sub(zero, log_rest));
    return {S::sub(S::where_positive(is_near, r, of_p), l),
            S::sub(S::where_positive(is_near, zero, of_q), l)};
  }
};

template <class S>
MixtureSums mixture(const float* x, ScaledExp e, const float* z, ScaledExp f,
                    std::size_t n, double difference, double beta,
                    float* log_ratio) {
  const ScaledExpLanes<S> exp_x(e), exp_z(f);
  // Differences to the largest logit lose nothing where a probability is left.
  const OffsetLanes<S> offset(difference - (double{e.shift} - double{f.shift}));
  const MixtureLanes<S> logs_of(beta);
  auto first = S::zero_doubles(), second = S::zero_doubles();
  for_vectors(
      x, n, kMinusInfinity,
      [&](const float* a, std::size_t i, std::size_t count) LLMPRESS_LAMBDA {
        const auto logit_p = S::sub(S::load(a), exp_x.shift);
        const auto logit_q =
            S::sub(load_some<S>(z + i, count, kMinusInfinity), exp_z.shift);
        const auto p = exp_x.of_shifted(logit_p), q = exp_z.of_shifted(logit_q);
        const auto logs = logs_of(offset.taken_from(S::sub(logit_p, logit_q)));
        store_some<S>(log_ratio + i, logs.of_q, count);
        // A term of weight 0 is 0 even where a logit is infinite.
        const auto log_p = S::where_positive(p, logs.of_p, p);
        const auto log_q = S::where_positive(q, logs.of_q, q);
        first = S::add(first, S::widen(S::mul(p, log_p)));
        second = S::add(second, S::widen(S::mul(q, log_q)));
      });
  const double of_q = S::sum(second);
  return {beta * S::sum(first) + (1 - beta) * of_q, of_q};
}
