// The table of methods that turn one Linear's weight into a packed weight.
// A new method: its file pair, its row in method.cpp, its keys in the recipe.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/input_stats.h"
#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "quantizers/quantize_config.h"

namespace llmpress {

struct QuantizeRequest {
  ConstMatrixView W{};  // [out, in]
  // [out, in] or empty: weights that are to be 0 (where the mask is 0) after
  // pruning. gptq makes the others pay for their removal too; methods that
  // round each weight by itself keep zeros of W as they are and do not read it.
  MatrixView<const std::uint8_t> mask{};
  const InputStats* stats = nullptr;  // what the row's `needs` asked for
  const QuantizeConfig* config = nullptr;
  ThreadPool* pool = nullptr;
  std::string_view name{};  // of the Linear, for messages
};

struct QuantizeResult {
  PackedWeight weight{};
  // How the Linear's input is rounded at run time: `QuantizeConfig::input` with
  // static ranges filled in from the statistics, or what the method demands.
  ActivationQuant input{};
  // Mean squared error of the output per token and output, tr((W-W')S(W-W')^T)
  // / out with S = E[x x^T]; with identity S where no second moment is known.
  double output_error = 0;
  double damping_fraction = 0;       // that was needed; 0: no Hessian
  std::vector<std::string> notes{};  // whatever was changed, clamped, skipped
};

struct QuantizerMethod {
  std::string_view name;     // "gptq"
  std::string_view summary;  // one line
  std::string_view paper;    // "arXiv:2210.17323"
  StatsNeeds (*needs)(const QuantizeConfig&);
  QuantizeResult (*quantize)(const QuantizeRequest&);
};

std::span<const QuantizerMethod> quantizer_methods();
// Throws Error(kInvalidArgument) naming the methods there are.
const QuantizerMethod& find_quantizer_method(std::string_view name);

// The request carried out by its configuration's method. Scales that f16 does
// not hold are stored as f32, which a note says.
QuantizeResult quantize_weight(const QuantizeRequest& request);

// Error of W' against W as documented at QuantizeResult::output_error, `S`
// [in, in] or empty.
double output_error(ConstMatrixView W, ConstMatrixView W_quantized,
                    ConstMatrixView S, ThreadPool& pool);

}  // namespace llmpress
