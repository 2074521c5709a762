// The angles of rotary embedding for a model, as Hugging Face computes them.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "compress/kernels/rope.h"
#include "compress/model/rope_config.h"

namespace llmpress {

// Angle per position of each pair of a head's coordinates [dim / 2]:
//   none    f_j = theta^(-2j / dim)                           arXiv:2104.09864
//   linear  f_j / factor                                      arXiv:2306.15595
//   llama3  f_j, f_j / factor or between them, by wavelength w = 2 pi / f_j:
//           unchanged for w < original / high_freq_factor, divided for
//           w > original / low_freq_factor, else smoothly
//           (1 - t) f_j / factor + t f_j,
//           t = (original / w - low) / (high - low)           Llama 3.1
//   yarn    f_j for pairs that turn more than beta_fast times within `original`
//           positions, f_j / factor below beta_slow turns, a linear ramp over j
//           between                              arXiv:2309.00071, section 3.2
//   longrope      f_j / factor_j, by the context that the sequence may grow to:
//                 short_factor up to `original` positions, else long_factor
//                                                          arXiv:2402.13753
//   proportional  f_j of the whole head for the first pairs, 0 for the others
std::vector<double> rope_frequencies(const RopeConfig& rope,
                                     bool beyond_original = false);

// Tables of cos and sin that grow with the longest sequence seen; one serves
// all blocks of a model. Calls from several threads are safe.
class RopePositions {
 public:
  explicit RopePositions(const RopeConfig& rope);
  // Tables with at least `positions` rows, for a sequence that may grow to
  // `context` tokens.
  std::shared_ptr<const RopeTables> at_least(std::size_t positions,
                                             std::size_t context);

 private:
  struct Growing {
    std::vector<double> frequencies{};
    std::shared_ptr<const RopeTables> tables{};
  };
  RopeConfig rope_;
  std::mutex mutex_{};
  Growing within_{}, beyond_{};  // the original context (longrope)
};

}  // namespace llmpress
