#include "compress/model/spread_linear.h"

#include <algorithm>
#include <cassert>
#include <utility>
#include <vector>

#include "compress/core/matrix_reuse.h"
#include "compress/core/packed/weight_rows.h"

namespace llmpress {
namespace {

// Whole panels of every kernel.
constexpr std::size_t kRows = 64;

class SpreadLinear : public LinearKernel {
 public:
  // `own`: of this rank's stretch of `out` rows; null: it has none.
  SpreadLinear(std::unique_ptr<LinearKernel> own, std::size_t out,
               std::size_t in, std::size_t grain, Ranks ranks)
      : own_(std::move(own)),
        out_(out),
        in_(in),
        grain_(grain),
        ranks_(std::move(ranks)) {}

  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override {
    assert(Y.rows() == X.rows() && Y.cols() == out_);
    std::vector<MatrixF> parts;  // of Y, by rank
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      parts.push_back(unset_matrix(X.rows(), rows_on(r).count));
    }
    const std::size_t rank = ranks_.rank();
    if (own_ != nullptr) own_->run(X, parts[rank].view(), pool);
    std::vector<std::span<const std::byte>> to(
        ranks_.size(), std::as_bytes(std::as_const(parts[rank]).data()));
    std::vector<std::span<std::byte>> from;
    for (MatrixF& part : parts) {
      from.push_back(std::as_writable_bytes(part.data()));
    }
    to[rank] = {};
    from[rank] = {};
    ranks_.exchange(to, from);
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      for (std::size_t t = 0; t < X.rows(); ++t) {
        std::ranges::copy(parts[r].row(t),
                          Y.row(t).subspan(rows_on(r).first).begin());
      }
      give_back(std::move(parts[r]));
    }
  }
  std::size_t out() const override { return out_; }
  std::size_t in() const override { return in_; }
  std::size_t bytes() const override {
    return own_ == nullptr ? 0 : own_->bytes();
  }
  std::string_view name() const override {
    return own_ == nullptr ? "none" : own_->name();
  }
  bool integer_activations() const override {
    return own_ != nullptr && own_->integer_activations();
  }

 private:
  Stretch rows_on(std::size_t rank) const {
    return share_of(out_, grain_, rank, ranks_.size());
  }

  std::unique_ptr<LinearKernel> own_;
  std::size_t out_, in_, grain_;
  Ranks ranks_;
};

}  // namespace

std::unique_ptr<LinearKernel> make_spread_linear(const LinearWeights& linear,
                                                 Isa isa, InputPrecision inputs,
                                                 const Ranks& ranks) {
  const std::size_t out = rows_of(linear.weight), in = cols_of(linear.weight);
  const std::size_t grain = row_grain(linear.weight, kRows);
  if (!ranks.is_spread() || grain == 0 || out <= grain) {
    return make_linear_kernel(linear, isa, inputs);
  }
  const Stretch own = share_of(out, grain, ranks.rank(), ranks.size());
  std::unique_ptr<LinearKernel> kernel;
  if (own.count != 0) {
    LinearWeights part{.weight = take_rows(linear.weight, own),
                       .input = linear.input,
                       .input_hadamard = linear.input_hadamard};
    if (!linear.bias.empty()) {
      const auto bias = std::span(linear.bias).subspan(own.first, own.count);
      part.bias.assign(bias.begin(), bias.end());
    }
    kernel = make_linear_kernel(part, isa, inputs);
  }
  return std::make_unique<SpreadLinear>(std::move(kernel), out, in, grain,
                                        ranks);
}

}  // namespace llmpress
