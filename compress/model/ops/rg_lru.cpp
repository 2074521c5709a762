#include "compress/model/ops/rg_lru.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "compress/model/ops/recurrence.h"
#include "compress/model/ops/reverse_recurrence.h"
#include "compress/model/ops/rope.h"

namespace llmpress {
namespace {

constexpr float kDecayFactor = 8;
// The slope of a square root in reverse, at most: as Griffin's own code bounds
// it where a is 1.
constexpr float kMostSlope = 1000;

// gate = sigmoid(x W + b); x, b and gate of one block, W [x, gate].
void block_gate(std::span<const float> x, std::span<const float> weight,
                std::span<const float> bias, std::span<float> gate) {
  std::ranges::copy(bias, gate.begin());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float* const w = weight.data() + i * gate.size();
    for (std::size_t j = 0; j < gate.size(); ++j) gate[j] += x[i] * w[j];
  }
  for (float& g : gate) g = sigmoid(g);
}

// block_gate in reverse, from d with respect to x W + b. d_weight and d_bias
// may be empty.
void reverse_block_gate(std::span<const float> x, std::span<const float> weight,
                        std::span<const float> d, std::span<float> dx,
                        std::span<float> d_weight, std::span<float> d_bias) {
  const std::size_t width = d.size();
  for (std::size_t i = 0; i < x.size(); ++i) {
    dx[i] += dot(weight.data() + i * width, d.data(), width);
    if (d_weight.empty()) continue;
    float* const dw = d_weight.data() + i * width;
    for (std::size_t j = 0; j < width; ++j) dw[j] += x[i] * d[j];
  }
  for (std::size_t j = 0; j < d_bias.size(); ++j) d_bias[j] += d[j];
}

// A block's own numbers, or their gradients.
template <class T>
struct BlockNumbers {
  std::span<T> input_weight{}, input_bias{};
  std::span<T> recurrent_weight{}, recurrent_bias{};
  std::span<T> decay{};
};

// Gives those of one block from `all(index)`, which may be empty.
template <class T, class All>
BlockNumbers<T> numbers_of_block(const RgLruOp& op, std::size_t block,
                                 const All& all) {
  const std::size_t width = op.width / op.blocks;
  const auto part = [&](std::size_t index, std::size_t size) {
    const std::span<T> whole = all(index);
    return whole.empty() ? whole : whole.subspan(block * size, size);
  };
  return {part(op.input_weight, width * width), part(op.input_bias, width),
          part(op.recurrent_weight, width * width),
          part(op.recurrent_bias, width), part(op.decay, width)};
}

// The gradients of one block and sequence, from its last token to its first.
class ReverseBlock {
 public:
  ReverseBlock(const BlockNumbers<const float>& numbers,
               const BlockNumbers<float>& d)
      : numbers_(numbers),
        d_(d),
        carried_(numbers.decay.size()),
        input_(carried_),
        recurrent_(carried_),
        dx_(carried_) {}

  // h_before: empty at the first token. Gives the gradient of x.
  std::span<const float> reverse(std::span<const float> x,
                                 std::span<const float> h_before,
                                 std::span<const float> dh) {
    block_gate(x, numbers_.input_weight, numbers_.input_bias, input_);
    block_gate(x, numbers_.recurrent_weight, numbers_.recurrent_bias,
               recurrent_);
    for (std::size_t c = 0; c < x.size(); ++c) {
      const bool start = h_before.empty();
      reverse_channel(c, x[c], start ? nullptr : &h_before[c], dh[c]);
    }
    reverse_block_gate(x, numbers_.input_weight, input_, dx_, d_.input_weight,
                       d_.input_bias);
    reverse_block_gate(x, numbers_.recurrent_weight, recurrent_, dx_,
                       d_.recurrent_weight, d_.recurrent_bias);
    return dx_;
  }

 private:
  // Writes dx_ as far as x is the input, and puts the gradients of the gates'
  // sums in the gates' place.
  void reverse_channel(std::size_t c, float x, const float* h_before,
                       float dh) {
    const float input = input_[c], recurrent = recurrent_[c];
    const float time = softplus(numbers_.decay[c]);
    const float d = dh + carried_[c];
    float keep = 0, take = 1, d_log_a = 0;
    if (h_before != nullptr) {
      const float log_a = -kDecayFactor * recurrent * time;
      const float squared = std::exp(2 * log_a);
      keep = std::exp(log_a);
      take = std::sqrt(1 - squared);
      const float slope =
          take * 2 * kMostSlope > 1 ? 1 / (2 * take) : kMostSlope;
      d_log_a = d * (keep * *h_before - 2 * squared * slope * input * x);
    }
    carried_[c] = keep * d;
    dx_[c] = d * take * input;
    input_[c] = d * take * x * input * (1 - input);
    recurrent_[c] =
        -kDecayFactor * time * d_log_a * recurrent * (1 - recurrent);
    if (d_.decay.empty()) return;
    d_.decay[c] +=
        -kDecayFactor * recurrent * d_log_a * sigmoid(numbers_.decay[c]);
  }

  const BlockNumbers<const float> numbers_;
  const BlockNumbers<float> d_;
  std::vector<float> carried_;  // with respect to h, from the token after
  std::vector<float> input_, recurrent_, dx_;
};

}  // namespace

void run(const RgLruOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView X = arguments.input(0);
  MatrixF H(X.rows(), X.cols());
  const auto positions = row_positions(context.segments);
  const std::size_t width = op.width / op.blocks;
  for_each_sequence(
      context, op.slot, op.width, op.blocks,
      [&](std::size_t first, std::size_t rows, std::size_t block,
          std::span<float> state) {
        const std::size_t at = block * width;
        const auto numbers =
            numbers_of_block<const float>(op, block, [&](std::size_t index) {
              return std::span<const float>(context.parameters[index]);
            });
        std::vector<float> input(width), recurrent(width);
        for (std::size_t t = first; t < first + rows; ++t) {
          const auto x = X.row(t).subspan(at, width);
          block_gate(x, numbers.input_weight, numbers.input_bias, input);
          block_gate(x, numbers.recurrent_weight, numbers.recurrent_bias,
                     recurrent);
          for (std::size_t c = 0; c < width; ++c) {
            const float log_a =
                -kDecayFactor * recurrent[c] * softplus(numbers.decay[c]);
            const bool start = positions[t] == 0;
            const float keep = start ? 0 : std::exp(log_a);
            const float take = start ? 1 : std::sqrt(1 - std::exp(2 * log_a));
            state[c] = keep * state[c] + take * (input[c] * x[c]);
            H(t, at + c) = state[c];
          }
        }
      });
  arguments.put(std::move(H));
}

// The states are the output.
void backward(const RgLruOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const ConstMatrixView X = gradients.input(0), dH = gradients.gradient();
  const ConstMatrixView H = gradients.out[0]->rows.view();
  const auto dX = gradients.to_add(0);
  std::map<std::size_t, SequenceSums> sums;  // by parameter
  for (const std::size_t p :
       {op.input_weight, op.input_bias, op.recurrent_weight, op.recurrent_bias,
        op.decay}) {
    sums.try_emplace(p, gradients.parameter(p), context.segments.size());
  }
  const std::size_t width = op.width / op.blocks;
  for_each_part(
      context, op.blocks, [&](const SequenceRows& s, std::size_t block) {
        const std::size_t at = block * width;
        ReverseBlock reversed(
            numbers_of_block<const float>(op, block,
                                          [&](std::size_t p) {
                                            return std::span<const float>(
                                                context.parameters[p]);
                                          }),
            numbers_of_block<float>(op, block, [&](std::size_t p) {
              return sums.at(p).of(s.index);
            }));
        for (std::size_t t = s.first + s.rows; t-- > s.first;) {
          const auto h_before = t == s.first ? std::span<const float>()
                                             : H.row(t - 1).subspan(at, width);
          add_row(reversed.reverse(X.row(t).subspan(at, width), h_before,
                                   dH.row(t).subspan(at, width)),
                  dX, t, at);
        }
      });
  for (auto& [p, sum] : sums) sum.add_up();
}

}  // namespace llmpress
