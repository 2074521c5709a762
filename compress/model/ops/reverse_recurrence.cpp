#include "compress/model/ops/reverse_recurrence.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace llmpress {
namespace {

constexpr std::size_t kElementsPerTask = 4096;

}  // namespace

void for_each_part(const OpContext& context, std::size_t parts,
                   const std::function<void(const SequenceRows& sequence,
                                            std::size_t part)>& step) {
  std::vector<SequenceRows> sequences;
  std::size_t first = 0;
  for (const Segment& segment : context.segments) {
    assert(segment.past == 0 && segment.cache == nullptr);
    sequences.push_back({sequences.size(), first, segment.rows});
    first += segment.rows;
  }
  context.pool->for_each(sequences.size() * parts, [&](std::size_t i) {
    step(sequences[i / parts], i % parts);
  });
}

void reverse_states(
    std::size_t rows, std::size_t state_size,
    const std::function<void(std::size_t i, std::span<float> state)>& advance,
    const std::function<void(std::size_t i, std::span<const float> before,
                             std::span<const float> after)>& reverse) {
  const auto length =
      static_cast<std::size_t>(std::ceil(std::sqrt(static_cast<double>(rows))));
  std::vector<std::vector<float>> starts;
  std::vector<float> state(state_size);
  for (std::size_t i = 0; i < rows; ++i) {
    if (i % length == 0) starts.push_back(state);
    if ((starts.size() * length) < rows) advance(i, state);
  }
  std::vector<std::vector<float>> states(length + 1);  // states[j]: before j
  for (; !starts.empty(); starts.pop_back()) {
    const std::size_t first = (starts.size() - 1) * length;
    const std::size_t size = std::min(length, rows - first);
    states[0] = std::move(starts.back());
    for (std::size_t j = 0; j < size; ++j) {
      states[j + 1] = states[j];
      advance(first + j, states[j + 1]);
    }
    for (std::size_t j = size; j-- > 0;) {
      reverse(first + j, states[j], states[j + 1]);
    }
  }
}

SequenceSums::SequenceSums(std::span<float> total, std::size_t sequences)
    : total_(total), parts_(sequences, std::vector<float>(total.size())) {}

void SequenceSums::add(std::size_t sequence, std::size_t at,
                       std::span<const double> values) {
  if (!wanted()) return;
  for (std::size_t i = 0; i < values.size(); ++i) {
    parts_[sequence][at + i] += static_cast<float>(values[i]);
  }
}

void SequenceSums::add_up() {
  for (const std::vector<float>& part : parts_) {
    for (std::size_t i = 0; i < part.size(); ++i) total_[i] += part[i];
  }
}

void add_parts(std::span<const MatrixF> parts, MatrixView<float> d,
               ThreadPool& pool) {
  if (d.size() == 0) return;
  pool.for_ranges(d.size(), kElementsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (const MatrixF& part : parts) {
                      const float* const from = part.data().data();
                      float* const to = d.data().data();
                      for (std::size_t i = begin; i < end; ++i)
                        to[i] += from[i];
                    }
                  });
}

}  // namespace llmpress
