// What operations with a state over the tokens of a sequence share when they run
// in reverse: every sequence stands alone and starts from a state of zeros.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/model/ops/op_context.h"

namespace llmpress {

// Rows [first, first + rows) of the batch are sequence `index`, in order.
struct SequenceRows {
  std::size_t index = 0, first = 0, rows = 0;
};

// Calls step(sequence, part) for every sequence of the batch and every one of
// `parts` parts that do not know each other, in parallel.
void for_each_part(const OpContext& context, std::size_t parts,
                   const std::function<void(const SequenceRows& sequence,
                                            std::size_t part)>& step);

// Gives the states of a recurrence from the last token to the first. About
// 2 sqrt(rows) states are kept at a time: one before every stretch of sqrt(rows)
// tokens, and those of the stretch in hand, which is computed a second time.
//   advance(i, state)         turns the state before token i into that after it
//   reverse(i, before, after) is called for i = rows - 1, ..., 0
void reverse_states(
    std::size_t rows, std::size_t state_size,
    const std::function<void(std::size_t i, std::span<float> state)>& advance,
    const std::function<void(std::size_t i, std::span<const float> before,
                             std::span<const float> after)>& reverse);

// A parameter's gradient as the sum of what each sequence gives, which is added
// up in the order of the sequences, whatever the threads.
class SequenceSums {
 public:
  // `total` [size of the parameter], or empty where it is not wanted.
  SequenceSums(std::span<float> total, std::size_t sequences);
  bool wanted() const { return !total_.empty(); }
  // Of one sequence; empty where it is not wanted.
  std::span<float> of(std::size_t sequence) { return parts_[sequence]; }
  // Adds values to elements [at, at + values.size()) of one sequence's.
  void add(std::size_t sequence, std::size_t at,
           std::span<const double> values);
  void add_up();

 private:
  std::span<float> total_;
  std::vector<std::vector<float>> parts_;
};

// d += parts[0] + parts[1] + ..., in this order; nothing where d is empty (not
// wanted). All of one shape.
void add_parts(std::span<const MatrixF> parts, MatrixView<float> d,
               ThreadPool& pool);

// Adds values to d(t, column) and what follows; nothing where d is empty.
inline void add_row(std::span<const float> values, MatrixView<float> d,
                    std::size_t t, std::size_t column) {
  if (d.size() == 0) return;
  float* const to = d.row(t).data() + column;
  for (std::size_t i = 0; i < values.size(); ++i) to[i] += values[i];
}

// Eight sums side by side, which the compiler keeps in vectors.
inline float dot(const float* a, const float* b, std::size_t size) {
  constexpr std::size_t kLanes = 8;
  float lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) lanes[l] += a[i + l] * b[i + l];
  }
  float sum = 0;
  for (; i < size; ++i) sum += a[i] * b[i];
  for (const float lane : lanes) sum += lane;
  return sum;
}

}  // namespace llmpress
