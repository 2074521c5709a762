// Whether the zero points of a model's integers are what its files say. Layouts
// differ in what they store: GPTQ's first version z - 1, its second z; a file
// that says one and holds the other moves every weight by one step, which loads
// without a message and computes nonsense.
//
// Weights of trained Linears lie about zero, so that codes lie about their zero
// points: the mean of q - z over a model is a few hundredths of a step, and one
// step away from that where the convention is the other.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "compress/core/packed_weight.h"

namespace llmpress {

class ZeroPointGuess {
 public:
  // Linears that hold no affine integers, or the same code everywhere, say
  // nothing.
  void add(const PackedWeight& weight);

  // A sentence if 9 of 10 Linears lie the same 3/4 to 5/4 steps from their zero
  // points; empty if all is as it should be, or if there is nothing to tell by.
  std::optional<std::string> problem() const;

 private:
  std::size_t linears_ = 0, above_ = 0, below_ = 0;
  double sum_ = 0;  // of the Linears' means
};

}  // namespace llmpress
