#include "pruning/importance.h"

#include <cmath>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

void check_slice(const UnitSlice& slice, std::size_t units) {
  const std::size_t length =
      slice.axis == UnitAxis::kRows ? slice.W.rows() : slice.W.cols();
  if (slice.width == 0 || length / slice.width != units ||
      length % slice.width != 0) {
    fail(ErrorCode::kInvalidArgument,
         "importance: a matrix of {} rows or columns, wanted {} units of {}",
         length, units, slice.width);
  }
}

// Calls visit(unit, row, column) for every weight of the slice.
template <class Visit>
void for_each_weight(const UnitSlice& slice, const Visit& visit) {
  for (std::size_t r = 0; r < slice.W.rows(); ++r) {
    for (std::size_t c = 0; c < slice.W.cols(); ++c) {
      visit((slice.axis == UnitAxis::kRows ? r : c) / slice.width, r, c);
    }
  }
}

}  // namespace

std::vector<double> weight_importance(std::span<const UnitSlice> slices,
                                      std::size_t units) {
  std::vector<double> importance(units);
  for (const UnitSlice& slice : slices) {
    check_slice(slice, units);
    for_each_weight(slice, [&](std::size_t u, std::size_t r, std::size_t c) {
      const auto w = static_cast<double>(slice.W(r, c));
      importance[u] += w * w;
    });
  }
  for (double& x : importance) x = std::sqrt(x);
  return importance;
}

std::vector<double> gradient_importance(std::span<const UnitSlice> slices,
                                        std::size_t units) {
  std::vector<double> importance(units);
  for (const UnitSlice& slice : slices) {
    check_slice(slice, units);
    if (slice.gradient.rows() != slice.W.rows() ||
        slice.gradient.cols() != slice.W.cols()) {
      fail(
          ErrorCode::kInvalidArgument,
          "importance: a gradient [{}, {}], wanted the weight's shape [{}, {}]",
          slice.gradient.rows(), slice.gradient.cols(), slice.W.rows(),
          slice.W.cols());
    }
    for_each_weight(slice, [&](std::size_t u, std::size_t r, std::size_t c) {
      importance[u] += static_cast<double>(slice.W(r, c)) *
                       static_cast<double>(slice.gradient(r, c));
    });
  }
  for (double& x : importance) x = std::abs(x);
  return importance;
}

std::vector<double> activation_importance(std::span<const float> abs_mean,
                                          std::size_t width) {
  if (width == 0 || abs_mean.size() % width != 0) {
    fail(ErrorCode::kInvalidArgument,
         "importance: {} channels, wanted whole units of {}", abs_mean.size(),
         width);
  }
  std::vector<double> importance(abs_mean.size() / width);
  for (std::size_t i = 0; i < abs_mean.size(); ++i) {
    importance[i / width] +=
        static_cast<double>(abs_mean[i]) / static_cast<double>(width);
  }
  return importance;
}

std::vector<double> activation_norm_importance(ConstMatrixView X,
                                               std::size_t width) {
  if (width == 0 || X.cols() % width != 0) {
    fail(ErrorCode::kInvalidArgument,
         "importance: {} channels, wanted whole units of {}", X.cols(), width);
  }
  std::vector<double> importance(X.cols() / width);
  for (std::size_t t = 0; t < X.rows(); ++t) {
    for (std::size_t u = 0; u < importance.size(); ++u) {
      double squares = 0;
      for (const float x : X.row(t).subspan(u * width, width)) {
        squares += static_cast<double>(x) * static_cast<double>(x);
      }
      importance[u] += std::sqrt(squares) / static_cast<double>(X.rows());
    }
  }
  return importance;
}

std::vector<double> combined_importance(
    std::span<const std::vector<double>> parts) {
  if (parts.empty()) return {};
  std::vector<double> combined(parts.front().size());
  for (const std::vector<double>& part : parts) {
    if (part.size() != combined.size()) {
      fail(ErrorCode::kInvalidArgument, "importance: {} units, wanted {}",
           part.size(), combined.size());
    }
    double sum = 0;
    for (const double x : part) sum += x;
    if (sum == 0) continue;  // says nothing about any unit
    const double scale = static_cast<double>(part.size()) /
                         (sum * static_cast<double>(parts.size()));
    for (std::size_t u = 0; u < part.size(); ++u)
      combined[u] += scale * part[u];
  }
  return combined;
}

}  // namespace llmpress
