// Importance that is learned: a hard-concrete gate (pruning/hard_concrete.h) on
// every unit that may go, so that the next tokens of the calibration text cost
// least while the expected number of open gates becomes what is to stay (Sheared
// LLaMA, arXiv:2310.06694, section 2.1):
//   min over log_alpha (and W), max over lambda, phi of
//     L + sum over shapes (lambda (s - t) + phi (s - t)^2)
// s: the mean P(z > 0) of a shape's gates, t: the part that stays, reached from
// 1 on in the first third of the steps. W, whatever is not packed, learns with
// the gates where `mask_weight_rate` is above 0, at that rate; else it stays,
// unlike in the paper, and healing and `distill` come afterwards.
//
// What a gate multiplies: of FFN channels and heads the inputs of the Linear
// that reads them, of channels of the stream what every reader sees behind its
// norm, of blocks what they add to the stream. Memory: the model in float32 (with
// weights that learn four times that) and one batch's activations.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "compress/model/training/parameter.h"
#include "compress/model/training/trainable_model.h"
#include "compress/surgery/unit_choice.h"

namespace llmpress {

class LearnedMasks {
 public:
  // `kept` of the units of each shape stay. Throws Error(kUnsupported) for a
  // block without such units, kNumeric as train().
  LearnedMasks(const UnitChoiceJob& job, std::size_t kept);

  // log_alpha: of the units of a block (FFN channels, heads), of the channels
  // of the stream, or of the blocks.
  const std::vector<double>& of_block(std::size_t layer) const {
    return scores_.at(layer);
  }
  const std::vector<double>& of_model() const { return scores_.front(); }
  // The weights as they learned, which lie here; empty: they stayed.
  std::span<const Parameter> weights() const { return weights_; }

 private:
  std::vector<std::vector<double>> scores_{};  // by shape
  std::vector<Parameter> weights_{};
  std::unique_ptr<TrainableModel> model_{};  // of `weights_`, not to be run
};

}  // namespace llmpress
