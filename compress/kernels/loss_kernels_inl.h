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

// log(p_i / q_i) in float: differences to the largest logit lose nothing where
// a probability is left.
template <class S>
struct LogRatioLanes {
  typename S::F p_max, q_max;
  OffsetLanes<S> offset;
  LLMPRESS_INLINE LogRatioLanes(const SoftmaxRow& p, const SoftmaxRow& q)
      : p_max(S::broadcast(p.max)),
        q_max(S::broadcast(q.max)),
        offset(p.log_sum - q.log_sum) {}
  LLMPRESS_INLINE typename S::F operator()(typename S::F p,
                                           typename S::F q) const {
    return offset.taken_from(S::sub(S::sub(p, p_max), S::sub(q, q_max)));
  }
};

template <class S>
LLMPRESS_INLINE typename S::F broadcast_double(double x) {
  return S::broadcast(static_cast<float>(x));
}

template <class S>
double exp_and_sum(const float* x, std::size_t n, float shift, float* exps) {
  auto sum = S::zero_doubles();
  const auto s = S::broadcast(shift);
  for_vectors(x, n, kMinusInfinity,
              [&](const float* p, std::size_t i, std::size_t count)
                  LLMPRESS_LAMBDA {
                    const auto e = exponential<S>(S::sub(S::load(p), s));
                    store_some<S>(exps + i, e, count);
                    sum = S::add(sum, S::widen(e));
                  });
  return S::sum(sum);
}

template <class S>
double divergence_of(const SoftmaxRow& p, const SoftmaxRow& q,
                     float* log_ratio) {
  auto sum = S::zero_doubles();
  const LogRatioLanes<S> ratio_of(p, q);
  // In double: terms of both signs cancel.
  const auto difference =
      S::broadcast(p.log_sum - q.log_sum + (double{p.max} - double{q.max}));
  for_vectors(
      p.logits, p.size, 0,
      [&](const float* a, std::size_t i, std::size_t count) LLMPRESS_LAMBDA {
        const auto logit_p = S::load(a);
        const auto logit_q = load_some<S>(q.logits + i, count, 0);
        const auto e = load_some<S>(p.exps + i, count, 0);
        if (log_ratio != nullptr) {
          store_some<S>(log_ratio + i, ratio_of(logit_p, logit_q), count);
        }
        // A term of weight 0 is 0 even where a logit is infinite.
        const auto x = S::where_positive(e, logit_p, S::zero());
        const auto z = S::where_positive(e, logit_q, S::zero());
        const auto ratio = S::sub(S::sub(S::widen(x), S::widen(z)), difference);
        sum = S::fma(S::widen(e), ratio, sum);
      });
  return S::sum(sum) / p.sum;
}

template <class S>
void add_scaled(const SoftmaxRow& p, double factor, float offset, float* y) {
  const auto scale = broadcast_double<S>(factor / p.sum);
  const auto o = S::broadcast(offset);
  for_vectors(p.exps, p.size, 0,
              [&](const float* e, std::size_t i, std::size_t count)
                  LLMPRESS_LAMBDA {
                    add_to<S>(y + i, S::fma(S::load(e), scale, o), count);
                  });
}

// Two products and no fused one, which would leave the rounding of the other.
template <class S>
void add_difference(const SoftmaxRow& q, const SoftmaxRow& p, double factor,
                    float* y) {
  const auto scale_q = broadcast_double<S>(factor / q.sum);
  const auto scale_p = broadcast_double<S>(factor / p.sum);
  for_vectors(
      q.exps, q.size, 0,
      [&](const float* e, std::size_t i, std::size_t count) LLMPRESS_LAMBDA {
        const auto of_p = S::mul(load_some<S>(p.exps + i, count, 0), scale_p);
        add_to<S>(y + i, S::sub(S::mul(S::load(e), scale_q), of_p), count);
      });
}

template <class S>
void add_product(const SoftmaxRow& q, double factor, const float* a,
                 double offset, float* y) {
  const auto scale = broadcast_double<S>(factor / q.sum);
  const OffsetLanes<S> o(offset);
  for_vectors(q.exps, q.size, 0,
              [&](const float* exps, std::size_t i, std::size_t count)
                  LLMPRESS_LAMBDA {
                    const auto e = S::load(exps);
                    const auto b = o.taken_from(load_some<S>(a + i, count, 0));
                    // 0 times infinity is 0 here; NaN stays.
                    const auto kept = S::where_positive(e, b, e);
                    add_to<S>(y + i, S::mul(S::mul(e, scale), kept), count);
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
MixtureSums mixture(const SoftmaxRow& p, const SoftmaxRow& q, double beta,
                    float* log_ratio) {
  const LogRatioLanes<S> ratio_of(p, q);
  const MixtureLanes<S> logs_of(beta);
  auto first = S::zero_doubles(), second = S::zero_doubles();
  for_vectors(p.logits, p.size, 0,
              [&](const float* a, std::size_t i, std::size_t count)
                  LLMPRESS_LAMBDA {
                    const auto logits_q = load_some<S>(q.logits + i, count, 0);
                    const auto logs = logs_of(ratio_of(S::load(a), logits_q));
                    store_some<S>(log_ratio + i, logs.of_q, count);
                    const auto e = load_some<S>(p.exps + i, count, 0);
                    const auto f = load_some<S>(q.exps + i, count, 0);
                    // A term of weight 0 is 0 even where a logit is infinite.
                    const auto log_p = S::where_positive(e, logs.of_p, e);
                    const auto log_q = S::where_positive(f, logs.of_q, f);
                    first = S::add(first, S::widen(S::mul(e, log_p)));
                    second = S::add(second, S::widen(S::mul(f, log_q)));
                  });
  const double of_p = S::sum(first) / p.sum, of_q = S::sum(second) / q.sum;
  return {beta * of_p + (1 - beta) * of_q, of_q};
}
