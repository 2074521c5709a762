#include "compress/model/spread_linear.h"

#include <algorithm>
#include <cassert>
#include <utility>
#include <vector>

#include "compress/core/matrix_reuse.h"

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

RowChoice choice_of(const Ranks& ranks) {
  return {.grain = kRows,
          .choose = [rank = ranks.rank(), count = ranks.size()](
                        std::size_t out, std::size_t grain) {
            return share_of(out, grain, rank, count);
          }};
}

std::unique_ptr<LinearKernel> make_spread_linear(LinearPart part, Isa isa,
                                                 InputPrecision inputs,
                                                 const Ranks& ranks) {
  if (part.grain == 0) return make_linear_kernel(part.linear, isa, inputs);
  std::unique_ptr<LinearKernel> kernel;
  if (part.rows.count != 0) {
    std::vector<float>& bias = part.linear.bias;
    if (!bias.empty()) {
      const auto own =
          std::span(bias).subspan(part.rows.first, part.rows.count);
      bias = std::vector<float>(own.begin(), own.end());
    }
    kernel = make_linear_kernel(part.linear, isa, inputs);
  }
  return std::make_unique<SpreadLinear>(std::move(kernel), part.out, part.in,
                                        part.grain, ranks);
}

std::unique_ptr<LinearKernel> make_spread_linear(const LinearWeights& linear,
                                                 Isa isa, InputPrecision inputs,
                                                 const Ranks& ranks) {
  if (!ranks.is_spread()) return make_linear_kernel(linear, isa, inputs);
  return make_spread_linear(take_part(linear, choice_of(ranks)), isa, inputs,
                            ranks);
}

}  // namespace llmpress
