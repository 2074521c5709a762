// Rows of a Linear that are read without the others, for a process that works on
// those alone.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "compress/core/packed_weight.h"
#include "compress/core/ranks.h"
#include "formats/linears/linear_form.h"

namespace llmpress {

// Which rows of `out`: from a multiple of `grain` to another or to the end.
struct RowChoice {
  // That is wanted; what scales lie across may ask for a coarser one.
  std::size_t grain = 1;
  std::function<Stretch(std::size_t out, std::size_t grain)> choose{};
};

struct LinearPart {
  std::size_t out = 0, in = 0;  // of the whole
  std::size_t grain = 0;        // 0: it cannot be cut, and is here whole
  Stretch rows{};
  // With the weight of `rows` (none if there are none) and the bias of all.
  LinearWeights linear{};
};

LinearPart take_part(LinearWeights whole, const RowChoice& choice);

// As read_linear(). Of tensors that lie row by row, no more than the chosen rows is
// read; other forms are read whole and cut.
LinearPart read_linear_part(const StoredLinear& linear,
                            const std::string& where, const RowChoice& choice);

}  // namespace llmpress
