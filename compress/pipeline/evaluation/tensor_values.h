// How the numbers of one tensor are distributed.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "compress/model/architecture.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

inline constexpr std::size_t kHistogramBins = 32;

struct TensorValues {
  std::string name{}, type{};
  std::vector<std::size_t> shape{};
  std::size_t count = 0, zeros = 0, non_finite = 0;
  // Of the finite ones.
  double lowest = 0, highest = 0, mean = 0, deviation = 0;
  // kHistogramBins bins of equal width from `lowest` to `highest`; empty where
  // these are one.
  std::vector<std::size_t> histogram{};
  // How often each code of a packed integer weight occurs, [2^bits]; else empty.
  std::vector<std::size_t> codes{};
};

// `name` is a Linear ("model.layers.0.mlp.up_proj", decoded) or a tensor. Throws
// Error(kInvalidArgument) if there is neither, or if the tensor holds no numbers.
TensorValues measure_values(const Checkpoint& checkpoint,
                            const Architecture& arch, const std::string& name);

std::string to_json(const TensorValues& values);

}  // namespace llmpress
