#include "compress/core/damping.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"

namespace llmpress {
namespace {

// Of rows and columns in `order`; empty: as they are.
MatrixF scaled_copy(ConstMatrixView S, float scale,
                    std::span<const std::uint32_t> order, ThreadPool& pool,
                    std::string_view name) {
  MatrixF H(S.rows(), S.cols());
  pool.for_ranges(S.rows(), 64, [&](std::size_t begin, std::size_t end) {
    for (std::size_t r = begin; r < end; ++r) {
      const auto from = S.row(order.empty() ? r : order[r]);
      const auto to = H.row(r);
      // 0 * x is 0 for every finite x and NaN for the others, so one sum tells.
      float poison = 0;
      for (std::size_t c = 0; c < from.size(); ++c) {
        to[c] = scale * (order.empty() ? from[c] : from[order[c]]);
        poison += 0.0f * to[c];
      }
      if (poison != 0) {
        fail(ErrorCode::kNumeric,
             "{}: the second moment of the input has a value that is not "
             "finite in row {}",
             name, order.empty() ? r : order[r]);
      }
    }
  });
  return H;
}

}  // namespace

void check(const DampingConfig& config) {
  const auto& [fraction, policy, increment, bound] = config;
  if (!(fraction >= 0 && std::isfinite(bound) && fraction <= bound)) {
    fail(ErrorCode::kInvalidArgument,
         "damping_fraction: found {}, wanted a number from 0 to damping_bound "
         "{}",
         fraction, bound);
  }
  if (!(increment > 0 && std::isfinite(increment))) {
    fail(ErrorCode::kInvalidArgument,
         "damping_increment: found {}, wanted a number above 0", increment);
  }
}

std::vector<std::string> Damped::notes() const {
  if (raises == 0) return {};
  return {
      formatted("damping raised to {:g} of the mean diagonal after {} failed "
                "factorizations",
                fraction, raises)};
}

Damped with_damping(const DampingConfig& config, double mean_diagonal,
                    std::string_view name,
                    const std::function<bool(double damping)>& attempt) {
  check(config);
  Damped damped{.fraction = config.fraction};
  for (;; ++damped.raises) {
    damped.damping = damped.fraction * mean_diagonal;
    if (attempt(damped.damping)) return damped;
    if (config.policy == DampingPolicy::kFail ||
        damped.fraction >= config.bound) {
      fail(ErrorCode::kNumeric,
           "{}: the second moment of the input cannot be factored with a "
           "damping of {:g} of its mean diagonal",
           name, damped.fraction);
    }
    damped.fraction =
        std::min(damped.fraction + config.increment, config.bound);
  }
}

std::vector<std::string> DampedInverse::notes() const {
  std::vector<std::string> notes =
      Damped{damping_fraction, damping, raises}.notes();
  if (!dead.empty()) {
    notes.push_back(formatted(
        "{} input channels are zero in all calibration tokens", dead.size()));
  }
  return notes;
}

DampedInverse damped_inverse_cholesky(ConstMatrixView S, float scale,
                                      const DampingConfig& config,
                                      ThreadPool& pool, std::string_view name,
                                      std::span<const std::uint32_t> order,
                                      const Ranks& ranks) {
  assert(S.rows() == S.cols() && (order.empty() || order.size() == S.rows()));
  const std::size_t n = S.rows();
  // Consumed by an attempt; made again for the next.
  MatrixF H = scaled_copy(S, scale, order, pool, name);
  DampedInverse result;
  std::vector<double> diagonal(n);
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (H(i, i) == 0) {
      result.dead.push_back(i);
      H(i, i) = 1;
    }
    sum += diagonal[i] = static_cast<double>(H(i, i));
  }
  const auto invert = [&](double damping) {
    if (H.empty() && n != 0) H = scaled_copy(S, scale, order, pool, name);
    for (std::size_t i = 0; i < n; ++i) {
      H(i, i) = static_cast<float>(diagonal[i] + damping);
    }
    auto U = inverse_cholesky_upper(std::exchange(H, {}), pool, ranks);
    if (!U) return false;
    result.U = *std::move(U);
    return true;
  };
  const double mean = n == 0 ? 0 : sum / static_cast<double>(n);
  const Damped damped = with_damping(config, mean, name, invert);
  result.damping_fraction = damped.fraction;
  result.damping = damped.damping;
  result.raises = damped.raises;
  return result;
}

const DampedInverse& SharedInverse::get(ConstMatrixView S, float scale,
                                        const DampingConfig& config,
                                        ThreadPool& pool, std::string_view name,
                                        std::span<const std::uint32_t> order) {
  if (inverse_ && scale == scale_ && config == config_ &&
      std::ranges::equal(order, order_)) {
    return *inverse_;
  }
  inverse_.reset();  // before the next takes its memory
  scale_ = scale;
  config_ = config;
  order_.assign(order.begin(), order.end());
  return inverse_.emplace(
      damped_inverse_cholesky(S, scale, config, pool, name, order, ranks_));
}

}  // namespace llmpress
