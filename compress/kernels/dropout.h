// Which numbers a pass of training leaves out (arXiv:1207.0580): each with
// probability `rate`, the others divided by 1 - rate, so that the mean stays.
// What is left out follows from the seed and the number's index alone: a pass
// that runs again, at any number of threads, leaves out the same.
#pragma once

#include <cstddef>
#include <cstdint>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

struct Dropout {
  float rate = 0;  // in [0, 1); 0: nothing is left out
  std::uint64_t seed = 0;

  bool on() const { return rate > 0; }
  // Of a part of what draws, apart from all others.
  Dropout of(std::uint64_t part) const;
  // 0, or 1 / (1 - rate).
  float factor(std::uint64_t index) const;
};

// x *= factor(index), in the order of the rows.
void drop_in_place(const Dropout& dropout, MatrixView<float> X,
                   ThreadPool& pool);

}  // namespace llmpress
