#include "compress/pipeline/adapters/adapter_report.h"

#include <cmath>
#include <cstdio>

#include "lora/survival.h"

namespace llmpress {

std::optional<std::string> describe_survival(ConstMatrixView base,
                                             ConstMatrixView merged,
                                             ConstMatrixView written) {
  MatrixF change(merged);
  double norm = 0, error = 0;
  for (std::size_t i = 0; i < change.size(); ++i) {
    const double w = base.data()[i];
    const double e = static_cast<double>(written.data()[i]) - merged.data()[i];
    change.data()[i] -= base.data()[i];
    norm += w * w;
    error += e * e;
  }
  const Survival survival = measure_survival(change.view(), base, written);
  if (survival.change_norm == 0) return std::nullopt;
  char text[128];
  std::snprintf(
      text, sizeof(text),
      "adapter: change of %.3g of the weight; kept %.3f, cosine %.3f, "
      "rounding %.3f",
      norm > 0 ? survival.change_norm / std::sqrt(norm) : INFINITY,
      survival.kept, survival.cosine, std::sqrt(error) / survival.change_norm);
  return text;
}

}  // namespace llmpress
