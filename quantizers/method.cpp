#include "quantizers/method.h"

#include <algorithm>
#include <array>
#include <string>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "quantizers/awq.h"
#include "quantizers/gptq.h"
#include "quantizers/hqq.h"
#include "quantizers/llm_int8.h"
#include "quantizers/quantize_result.h"
#include "quantizers/rtn.h"
#include "quantizers/smoothquant.h"
#include "quantizers/table4.h"

namespace llmpress {
namespace {

constexpr std::array kMethods{
    QuantizerMethod{"rtn", "round to nearest", "arXiv:1712.05877", rtn_needs,
                    quantize_rtn},
    QuantizerMethod{"gptq", "second-order error compensation",
                    "arXiv:2210.17323", gptq_needs, quantize_gptq},
    QuantizerMethod{"imatrix",
                    "round to nearest, range searched under input importance",
                    "github.com/ggml-org/llama.cpp/pull/4861", imatrix_needs,
                    quantize_imatrix},
    QuantizerMethod{"awq",
                    "activation-aware scales and clipping, then a solver",
                    "arXiv:2306.00978", awq_needs, quantize_awq},
    QuantizerMethod{
        "smoothquant", "activation outliers moved into weights, then a solver",
        "arXiv:2211.10438", smoothquant_needs, quantize_smoothquant},
    QuantizerMethod{"llm_int8", "int8 with 16-bit outlier features",
                    "arXiv:2208.07339", llm_int8_needs, quantize_llm_int8},
    QuantizerMethod{"nf4", "4-bit normal-float table", "arXiv:2305.14314",
                    rtn_needs, quantize_nf4},
    QuantizerMethod{"hqq", "half-quadratic zero points, no calibration",
                    "mobiusml.github.io/hqq_blog", hqq_needs, quantize_hqq},
};

constexpr std::size_t kErrorRows = 512;

}  // namespace

std::span<const QuantizerMethod> quantizer_methods() { return kMethods; }

const QuantizerMethod& find_quantizer_method(std::string_view name) {
  const auto found = std::ranges::find(kMethods, name, &QuantizerMethod::name);
  if (found != kMethods.end()) return *found;
  std::string known;
  for (const QuantizerMethod& method : kMethods) {
    known += (known.empty() ? "" : ", ") + std::string(method.name);
  }
  fail(ErrorCode::kInvalidArgument, "quantize: method '{}' is not one of {}",
       name, known);
}

double output_error(ConstMatrixView W, ConstMatrixView W_quantized,
                    ConstMatrixView S, ThreadPool& pool) {
  if (W.rows() == 0) return 0;
  double total = 0;
  for (std::size_t begin = 0; begin < W.rows(); begin += kErrorRows) {
    const std::size_t rows = std::min(kErrorRows, W.rows() - begin);
    MatrixF D(rows, W.cols()), DS;
    for (std::size_t k = 0; k < D.size(); ++k) {
      const std::size_t at = begin * W.cols() + k;
      D.data()[k] = W_quantized.data()[at] - W.data()[at];
    }
    if (S.size() > 0) {
      DS = MatrixF(rows, W.cols());
      matmul_transposed(D.view(), S, DS.view(), pool);  // S is symmetric
    }
    const MatrixF& right = S.size() > 0 ? DS : D;
    for (std::size_t k = 0; k < D.size(); ++k) {
      total += static_cast<double>(D.data()[k]) *
               static_cast<double>(right.data()[k]);
    }
  }
  return std::max(0.0, total / static_cast<double>(W.rows()));
}

QuantizeResult quantize_weight(const QuantizeRequest& request) {
  const QuantizerMethod& method = find_quantizer_method(request.config->method);
  QuantizeResult result = method.quantize(request);
  if (scales_fit(result.weight)) return result;
  QuantizeConfig config = *request.config;
  config.weights.scale_dtype = DType::kF32;
  QuantizeRequest wider = request;
  wider.config = &config;
  result = method.quantize(wider);
  result.notes.push_back("scales stored as f32: f16 does not hold them");
  return result;
}

}  // namespace llmpress
