// Which channels of the residual stream stay: one choice for the whole model.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/calibration/calibration_states.h"
#include "compress/surgery/unit_choice.h"

namespace llmpress {

struct HiddenChoice {
  std::vector<std::size_t> kept{};  // ascending
  // RMS norms divide by the size of the channels that they see. With fewer of
  // them the gains are multiplied by sqrt(mean_K x^2 / mean x^2) over
  // calibration tokens; without calibration what goes is taken to be silent.
  std::vector<std::vector<double>> gains{};  // [layers][readers of the stream]
  double final_gain = 1;
};

// By `importance: activations` channels rank by mean |x| behind every norm,
// each norm counting the same; by `weights` by the L2 norm of their rows and
// columns everywhere; by `gradients` as `importance` [hidden] says
// (loss_gradients.h), which is empty otherwise. `states`: null without
// calibration; used up.
HiddenChoice choose_hidden(const UnitChoiceJob& job, std::size_t kept,
                           CalibrationStates* states,
                           std::vector<double> importance = {});

}  // namespace llmpress
