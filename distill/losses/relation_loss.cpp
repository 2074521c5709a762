#include "distill/losses/relation_loss.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "distill/losses/row_divergence.h"
#include "distill/losses/row_softmax.h"

namespace llmpress {
namespace {

constexpr std::size_t kTileRows = 64;

// Columns [head * width, ...) of the first `tokens` rows.
MatrixF head_of(ConstMatrixView X, std::size_t head, std::size_t width,
                std::size_t tokens) {
  MatrixF x(tokens, width);
  for (std::size_t i = 0; i < tokens; ++i) {
    const auto from = X.row(i).subspan(head * width, width);
    std::copy(from.begin(), from.end(), x.row(i).begin());
  }
  return x;
}

float scale_of(const MatrixF& X) {
  return 1 / std::sqrt(static_cast<float>(X.cols()));
}

// One head of student and teacher, S [tokens, d_s] and T [tokens, d_t].
struct Head {
  MatrixF S, T, dS;
  std::span<const float> row_weights;
  double factor;  // 1 / heads
  const LossKernels& kernels;

  // Rows [begin, begin + rows): adds to dS, returns the weighted loss.
  double tile(std::size_t begin, std::size_t rows, ThreadPool& pool) {
    const std::size_t seen = begin + rows;
    const auto tile_of = [&](const MatrixF& X, MatrixF& scores) {
      matmul_transposed(X.view().rows_slice(begin, rows),
                        X.view().rows_slice(0, seen), scores.view(), pool,
                        scale_of(X));
    };
    MatrixF of_student(rows, seen), of_teacher(rows, seen), D(rows, seen);
    tile_of(S, of_student);
    tile_of(T, of_teacher);
    std::vector<float> memory(2 * seen);
    double loss = 0;
    for (std::size_t i = 0; i < rows; ++i) {
      const double weight = double{row_weights[begin + i]} * factor;
      if (weight == 0) continue;
      const std::size_t n = begin + i + 1;
      const std::span<float> exps(memory);
      const SoftmaxRow q =
          row_softmax(of_student.row(i).first(n), exps.first(n), kernels);
      const SoftmaxRow p =
          row_softmax(of_teacher.row(i).first(n), exps.last(n), kernels);
      loss +=
          weight * forward_divergence(q, p, weight, D.row(i).first(n), kernels);
    }
    const auto all = S.view().rows_slice(0, seen);
    matmul(D.view(), all, dS.view().rows_slice(begin, rows), pool, scale_of(S),
           Accumulate::kAdd);
    add_cross_gram(D.view(), S.view().rows_slice(begin, rows), scale_of(S),
                   dS.view().rows_slice(0, seen), pool);
    return loss;
  }
};

std::size_t rows_with_weight(std::span<const float> row_weights) {
  std::size_t rows = row_weights.size();
  while (rows > 0 && row_weights[rows - 1] == 0) --rows;
  return rows;
}

}  // namespace

double relation_loss(ConstMatrixView student, ConstMatrixView teacher,
                     std::size_t heads, std::span<const float> row_weights,
                     MatrixView<float> dStudent, ThreadPool& pool, Isa isa) {
  assert(teacher.rows() == student.rows() &&
         row_weights.size() == student.rows());
  assert(dStudent.rows() == student.rows() &&
         dStudent.cols() == student.cols());
  if (heads == 0 || student.cols() % heads != 0 ||
      teacher.cols() % heads != 0) {
    fail(ErrorCode::kInvalidArgument,
         "relations: {} heads do not divide the widths {} and {}", heads,
         student.cols(), teacher.cols());
  }
  const std::size_t tokens = rows_with_weight(row_weights);
  const std::size_t width = student.cols() / heads;
  const LossKernels& kernels = loss_kernels(isa);
  std::vector<double> losses(heads);
  pool.for_each(heads, [&](std::size_t a) {
    Head head{head_of(student, a, width, tokens),
              head_of(teacher, a, teacher.cols() / heads, tokens),
              MatrixF(tokens, width),
              row_weights,
              1 / static_cast<double>(heads),
              kernels};
    for (std::size_t i = 0; i < tokens; i += kTileRows) {
      losses[a] += head.tile(i, std::min(kTileRows, tokens - i), pool);
    }
    for (std::size_t i = 0; i < tokens; ++i) {
      const auto from = head.dS.row(i);
      const auto to = dStudent.row(i).subspan(a * width, width);
      for (std::size_t j = 0; j < width; ++j) to[j] += from[j];
    }
  });
  double sum = 0;
  for (const double loss : losses) sum += loss;
  return sum;
}

}  // namespace llmpress
