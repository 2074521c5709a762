// thin_svd of linalg.h: Eigen's divide and conquer (Gu and Eisenstat 1995), in
// double, so that singular values a millionth of the largest are still right.
#include <Eigen/SVD>
#include <algorithm>
#include <cstddef>

#include "compress/core/linalg.h"

namespace llmpress {
namespace {

using RowMajorF =
    Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

MatrixF to_matrix(const Eigen::MatrixXd& from) {
  MatrixF to(static_cast<std::size_t>(from.rows()),
             static_cast<std::size_t>(from.cols()));
  Eigen::Map<RowMajorF>(to.data().data(), from.rows(), from.cols()) =
      from.cast<float>();
  return to;
}

}  // namespace

Svd thin_svd(ConstMatrixView A) {
  const std::size_t k = std::min(A.rows(), A.cols());
  if (k == 0) return {MatrixF(A.rows(), 0), {}, MatrixF(A.cols(), 0)};
  const Eigen::MatrixXd a =
      Eigen::Map<const RowMajorF>(A.data().data(),
                                  static_cast<Eigen::Index>(A.rows()),
                                  static_cast<Eigen::Index>(A.cols()))
          .cast<double>();
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(
      a, Eigen::ComputeThinU | Eigen::ComputeThinV);
  Svd result{to_matrix(svd.matrixU()), std::vector<float>(k),
             to_matrix(svd.matrixV())};
  for (std::size_t i = 0; i < k; ++i) {
    result.s[i] =
        static_cast<float>(svd.singularValues()[static_cast<Eigen::Index>(i)]);
  }
  return result;
}

}  // namespace llmpress
