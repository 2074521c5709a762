#include "distill/losses/top_k_divergence.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "compress/core/formatted.h"
#include "distill/losses/row_softmax.h"
#include "distill/losses/weighted_rows.h"

namespace llmpress {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
// Log-probabilities stored in 16 bits need not sum to 1 exactly.
constexpr double kLargestSum = 1.01;

double log_of_sum(std::span<const double> x) {
  double max = kMinusInfinity, sum = 0;
  for (const double v : x) max = v > max || std::isnan(v) ? v : max;
  if (!std::isfinite(max)) return max;
  for (const double v : x) sum += std::exp(v - max);
  return max + std::log(sum);
}

// p log(p / q), 0 for p = 0.
double divergence_term(double log_p, double log_q) {
  const double p = std::exp(log_p);
  return p == 0 ? 0 : p * (log_p - log_q);
}

void check_ids(std::span<const std::uint32_t> ids, std::size_t vocabulary,
               std::size_t row) {
  std::vector<std::uint32_t> sorted(ids.begin(), ids.end());
  std::sort(sorted.begin(), sorted.end());
  if (!sorted.empty() && sorted.back() >= vocabulary) {
    fail(ErrorCode::kInvalidInput,
         "top-k divergence: row {}: token {} of a vocabulary of {}", row,
         sorted.back(), vocabulary);
  }
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end()) {
    fail(ErrorCode::kInvalidInput,
         "top-k divergence: row {}: token {} is given twice", row, *twice);
  }
}

struct Problem {
  ConstMatrixView Z;
  const TopKTeacher& teacher;
  const TopKConfig& config;
  MatrixView<float> G;
  const LossKernels& kernels;

  double temperature() const { return double{config.temperature}; }

  // The logarithms of the teacher's k, and last of its rest.
  std::vector<double> teacher_logs(std::size_t r) const {
    const bool logits = teacher.form == TopKValues::kLogits;
    std::vector<double> logs;
    for (const float v : teacher.values.row(r)) {
      logs.push_back(logits ? double{v} / temperature() : double{v});
    }
    if (config.rest == TopKRest::kRenormalised || logs.size() == Z.cols()) {
      logs.push_back(kMinusInfinity);
    } else if (logits) {
      logs.push_back(double{teacher.log_rest[r]});
    } else {
      const double sum = std::exp(log_of_sum(logs));
      if (sum > kLargestSum) {
        fail(ErrorCode::kInvalidInput,
             "top-k divergence: row {}: probabilities sum to {:.4f}", r, sum);
      }
      logs.push_back(sum < 1 ? std::log1p(-sum) : kMinusInfinity);
    }
    const double total = log_of_sum(logs);
    for (double& x : logs) x -= total;
    return logs;
  }

  // The student's logits of the k over T.
  std::vector<double> student_logs(std::size_t r) const {
    std::vector<double> logs;
    for (const std::uint32_t id : teacher.ids.row(r)) {
      logs.push_back(double{Z(r, id)} / temperature());
    }
    return logs;
  }

  double renormalised(std::size_t r, double weight) const {
    const std::vector<double> p = teacher_logs(r);
    const std::vector<double> z = student_logs(r);
    return top(r, weight, p, z, log_of_sum(z));
  }

  // The terms of the k, whose gradient is added; log q = z - log_total.
  double top(std::size_t r, double weight, std::span<const double> log_p,
             std::span<const double> z, double log_total) const {
    const auto ids = teacher.ids.row(r);
    const double factor = weight * temperature();
    double loss = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const double log_q = z[i] - log_total;
      loss += divergence_term(log_p[i], log_q);
      G(r, ids[i]) +=
          static_cast<float>(factor * (std::exp(log_q) - std::exp(log_p[i])));
    }
    return loss;
  }

  double with_tail(std::size_t r, double weight, Scratch& memory) const {
    const auto row = Z.row(r);
    const std::vector<double> p = teacher_logs(r);
    std::vector<double> z = student_logs(r);
    if (z.size() == row.size()) return top(r, weight, p, z, log_of_sum(z));
    const float inverse = 1 / config.temperature;
    const auto all = memory.floats(2 * row.size());
    const auto others = all.first(row.size());
    for (std::size_t i = 0; i < row.size(); ++i) others[i] = row[i] * inverse;
    for (const std::uint32_t id : teacher.ids.row(r)) {
      others[id] = static_cast<float>(kMinusInfinity);
    }
    // The rest's mass is summed by itself: 1 - sum_K q would cancel.
    const SoftmaxRow rest = row_softmax(others, all.last(row.size()), kernels);
    const double log_rest = double{rest.max} + rest.log_sum;
    z.push_back(log_rest);
    const double total = log_of_sum(z);
    z.pop_back();
    const double log_p = p.back(), log_q = log_rest - total;
    kernels.add_scaled(
        rest, weight * temperature() * (std::exp(log_q) - std::exp(log_p)), 0,
        G.row(r).data());
    return top(r, weight, p, z, total) + divergence_term(log_p, log_q);
  }
};

void check(const TopKTeacher& teacher, const TopKConfig& config,
           std::size_t rows) {
  if (!(config.temperature > 0 && std::isfinite(config.temperature))) {
    fail(ErrorCode::kInvalidArgument,
         "top-k divergence: temperature {}, wanted > 0", config.temperature);
  }
  if (teacher.form == TopKValues::kLogits && config.rest == TopKRest::kTail &&
      teacher.log_rest.size() != rows) {
    fail(ErrorCode::kInvalidArgument,
         "top-k divergence: the rest's logarithms are given for {} of {} rows",
         teacher.log_rest.size(), rows);
  }
}

}  // namespace

double top_k_divergence_loss(ConstMatrixView Z, const TopKTeacher& teacher,
                             std::span<const float> row_weights,
                             const TopKConfig& config, MatrixView<float> G,
                             ThreadPool& pool, Isa isa) {
  assert(teacher.ids.rows() == Z.rows() && teacher.values.rows() == Z.rows());
  assert(teacher.ids.cols() == teacher.values.cols());
  assert(row_weights.size() == Z.rows() && G.rows() == Z.rows() &&
         G.cols() == Z.cols());
  check(teacher, config, Z.rows());
  const Problem problem{Z, teacher, config, G, loss_kernels(isa)};
  const double sum = sum_weighted_rows(
      row_weights, Z.cols(), pool, [&](std::size_t r, Scratch& scratch) {
        check_ids(teacher.ids.row(r), Z.cols(), r);
        const auto weight = double{row_weights[r]};
        const double loss = config.rest == TopKRest::kTail
                                ? problem.with_tail(r, weight, scratch)
                                : problem.renormalised(r, weight);
        return loss < 0 ? 0 : loss;  // rounding only; NaN stays
      });
  return problem.temperature() * problem.temperature() * sum;
}

}  // namespace llmpress
