// The angles of rotary embedding for a model, as Hugging Face computes them.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "compress/kernels/rope.h"
#include "compress/model/architecture.h"

namespace llmpress {

// Angle per position of each pair of a head's coordinates [head_dim / 2]:
//   none    f_j = theta^(-2j / head_dim)                      arXiv:2104.09864
//   linear  f_j / factor                                      arXiv:2306.15595
//   llama3  f_j, f_j / factor or between them, by wavelength w = 2 pi / f_j:
//           unchanged for w < original / high_freq_factor, divided for
//           w > original / low_freq_factor, else smoothly
//           (1 - t) f_j / factor + t f_j,
//           t = (original / w - low) / (high - low)           Llama 3.1
//   yarn    f_j for pairs that turn more than beta_fast times within `original`
//           positions, f_j / factor below beta_slow turns, a linear ramp over j
//           between                              arXiv:2309.00071, section 3.2
std::vector<double> rope_frequencies(const RopeConfig& rope,
                                     std::size_t head_dim);

// Tables of cos and sin that grow with the longest sequence seen; one serves
// all blocks of a model. Calls from several threads are safe.
class RopePositions {
 public:
  explicit RopePositions(const Architecture& arch);
  // Tables with at least `positions` rows.
  std::shared_ptr<const RopeTables> at_least(std::size_t positions);

 private:
  std::vector<double> frequencies_;
  double attention_factor_;
  std::mutex mutex_{};
  std::shared_ptr<const RopeTables> tables_{};
};

}  // namespace llmpress
