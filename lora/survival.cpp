#include "lora/survival.h"

#include <cmath>
#include <cstddef>
#include <limits>

#include "compress/core/error.h"

namespace llmpress {

Survival measure_survival(ConstMatrixView change,
                          ConstMatrixView quantized_base,
                          ConstMatrixView quantized_merged) {
  const auto same = [&](ConstMatrixView M) {
    return M.rows() == change.rows() && M.cols() == change.cols();
  };
  if (!same(quantized_base) || !same(quantized_merged)) {
    throw Error(ErrorCode::kInvalidArgument,
                "survival: matrices of different shapes");
  }
  double dd = 0, cc = 0, cd = 0;
  for (std::size_t i = 0; i < change.size(); ++i) {
    const double d = change.data()[i];
    const double c = static_cast<double>(quantized_merged.data()[i]) -
                     quantized_base.data()[i];
    dd += d * d;
    cc += c * c;
    cd += c * d;
  }
  Survival s{.change_norm = std::sqrt(dd), .surviving_norm = std::sqrt(cc)};
  if (dd == 0 && cc == 0) return s;
  s.kept = dd == 0 ? std::numeric_limits<double>::infinity()
                   : s.surviving_norm / s.change_norm;
  s.cosine = dd == 0 || cc == 0 ? 0 : cd / (s.change_norm * s.surviving_norm);
  return s;
}

}  // namespace llmpress
