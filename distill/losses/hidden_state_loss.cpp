#include "distill/losses/hidden_state_loss.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "distill/losses/weighted_rows.h"

namespace llmpress {
namespace {

// Both add weight dL/dy to g and return L.
double squared_error(std::span<const float> y, std::span<const float> t,
                     double weight, std::span<float> g) {
  const auto n = static_cast<double>(y.size());
  double sum = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double d = double{y[i]} - double{t[i]};
    sum += d * d;
    g[i] += static_cast<float>(weight * 2 * d / n);
  }
  return sum / n;
}

double cosine(std::span<const float> y, std::span<const float> t, double weight,
              std::span<float> g) {
  double yy = 0, tt = 0, yt = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    yy += double{y[i]} * double{y[i]};
    tt += double{t[i]} * double{t[i]};
    yt += double{y[i]} * double{t[i]};
  }
  if (yy == 0 || tt == 0) return 1;
  const double y_size = std::sqrt(yy), t_size = std::sqrt(tt);
  const double c = yt / (y_size * t_size);
  const double of_y = weight * c / yy, of_t = weight / (y_size * t_size);
  for (std::size_t i = 0; i < y.size(); ++i) {
    g[i] += static_cast<float>(of_y * double{y[i]} - of_t * double{t[i]});
  }
  return 1 - c;
}

double sum_of_rows(HiddenStateDistance distance, ConstMatrixView Y,
                   ConstMatrixView teacher, std::span<const float> row_weights,
                   MatrixView<float> dY, ThreadPool& pool) {
  return sum_weighted_rows(
      row_weights, Y.cols(), pool, [&](std::size_t r, Scratch&) {
        const auto weight = double{row_weights[r]};
        switch (distance) {
          case HiddenStateDistance::kSquaredError:
            return squared_error(Y.row(r), teacher.row(r), weight, dY.row(r));
          case HiddenStateDistance::kCosine:
            return cosine(Y.row(r), teacher.row(r), weight, dY.row(r));
        }
        return 0.0;
      });
}

// The rows of `from` that `rows` names, one after another.
MatrixF gather(ConstMatrixView from, std::span<const std::size_t> rows) {
  MatrixF to(rows.size(), from.cols());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(from.row(rows[i]).begin(), from.cols(), to.row(i).begin());
  }
  return to;
}

// Rows of weight 0 stay out of the products, where 0 times NaN would come in.
double through_projection(HiddenStateDistance distance, ConstMatrixView student,
                          ConstMatrixView teacher, ConstMatrixView P,
                          std::span<const float> row_weights,
                          MatrixView<float> dStudent, MatrixView<float> dP,
                          ThreadPool& pool) {
  std::vector<std::size_t> rows;
  std::vector<float> weights;
  for (std::size_t r = 0; r < row_weights.size(); ++r) {
    if (row_weights[r] == 0) continue;
    rows.push_back(r);
    weights.push_back(row_weights[r]);
  }
  if (rows.empty()) return 0;
  const MatrixF S = gather(student, rows), T = gather(teacher, rows);
  MatrixF Y(rows.size(), P.rows()), dY(rows.size(), P.rows());
  matmul_transposed(S.view(), P, Y.view(), pool);
  const double sum =
      sum_of_rows(distance, Y.view(), T.view(), weights, dY.view(), pool);
  add_cross_gram(dY.view(), S.view(), 1, dP, pool);
  MatrixF dS(rows.size(), P.cols());
  matmul(dY.view(), P, dS.view(), pool);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto from = dS.row(i), to = dStudent.row(rows[i]);
    for (std::size_t j = 0; j < to.size(); ++j) to[j] += from[j];
  }
  return sum;
}

}  // namespace

double hidden_state_loss(HiddenStateDistance distance, ConstMatrixView student,
                         ConstMatrixView teacher, ConstMatrixView P,
                         std::span<const float> row_weights,
                         MatrixView<float> dStudent, MatrixView<float> dP,
                         ThreadPool& pool) {
  assert(teacher.rows() == student.rows() &&
         row_weights.size() == student.rows());
  assert(dStudent.rows() == student.rows() &&
         dStudent.cols() == student.cols());
  assert(dP.rows() == P.rows() && dP.cols() == P.cols());
  if (P.size() == 0) {
    if (student.cols() != teacher.cols()) {
      fail(ErrorCode::kInvalidArgument,
           "hidden states: width {} of the student and {} of the teacher need "
           "a projection",
           student.cols(), teacher.cols());
    }
    return sum_of_rows(distance, student, teacher, row_weights, dStudent, pool);
  }
  if (P.rows() != teacher.cols() || P.cols() != student.cols()) {
    fail(ErrorCode::kInvalidArgument,
         "hidden states: projection [{}, {}], wanted [{}, {}]", P.rows(),
         P.cols(), teacher.cols(), student.cols());
  }
  return through_projection(distance, student, teacher, P, row_weights,
                            dStudent, dP, pool);
}

}  // namespace llmpress
