#include "quantizers/omniquant.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/optimizers/adamw.h"
#include "quantizers/block_weight.h"
#include "quantizers/int_code.h"
#include "quantizers/int_grid.h"

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerTask = 16;
constexpr float kFirstLogit = 4;

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

class ClippedWeight final : public BlockWeight {
 public:
  explicit ClippedWeight(const BlockWeightRequest& request)
      : W_(request.W),
        scheme_(request.config->weights),
        config_(request.config->omniquant),
        max_code_(max_int_code(scheme_.bits)) {
    check_int_scheme(scheme_);
    check_weights(W_, "omniquant");
    group_size_ = resolved_group_size(scheme_, W_.cols());
    groups_ = ceil_div(W_.cols(), group_size_);
    low_ = high_ = MatrixF(W_.rows(), groups_);
    for_groups(*request.pool, [&](std::size_t o, std::size_t g) {
      low_(o, g) = high_(o, g) = first_logit(group(o, g));
    });
    d_low_ = d_high_ = MatrixF(W_.rows(), groups_);
    if (!scales_within_f16()) scheme_.scale_dtype = DType::kF32;
  }

  void round_into(MatrixView<float> W_q, ThreadPool& pool) const override {
    for_groups(pool, [&](std::size_t o, std::size_t g) {
      const Grid at = grid(o, g);
      const auto w = group(o, g);
      const auto to = W_q.row(o).subspan(g * group_size_, w.size());
      for (std::size_t i = 0; i < w.size(); ++i) {
        to[i] =
            at.scale * (int_code(w[i], at.scale, at.zero, max_code_) - at.zero);
      }
    });
  }

  void step(MatrixView<float> D, std::size_t iteration,
            ThreadPool& pool) override {
    for_groups(pool, [&](std::size_t o, std::size_t g) {
      differentiate(o, g,
                    D.row(o).subspan(g * group_size_, group(o, g).size()));
    });
    const auto rate = static_cast<float>(
        falling_share(iteration, config_.training.iterations) *
        config_.learning_rate);
    adamw_step({}, iteration + 1, rate, 0, 1, d_low_.data(), low_.data(),
               of_low_, pool);
    adamw_step({}, iteration + 1, rate, 0, 1, d_high_.data(), high_.data(),
               of_high_, pool);
  }

  GroupedIntWeight pack(ThreadPool& pool) const override {
    IntGrids grids{.group_size = group_size_,
                   .scales = MatrixF(W_.rows(), groups_),
                   .zeros = Matrix<std::uint8_t>(W_.rows(), groups_)};
    Matrix<std::uint8_t> codes(W_.rows(), W_.cols());
    for_groups(pool, [&](std::size_t o, std::size_t g) {
      const Grid at = grid(o, g);
      const IntGrid whole{at.scale, static_cast<std::uint8_t>(at.zero)};
      grids.scales(o, g) = whole.scale;
      grids.zeros(o, g) = whole.zero;
      const auto w = group(o, g);
      encode_int(w, whole, scheme_.bits,
                 codes.row(o).subspan(g * group_size_, w.size()));
    });
    return pack_grouped_int(codes.view(), grids, scheme_);
  }

 private:
  struct Grid {
    float scale = 1, zero = 0, lo = 0, hi = 0;
    std::size_t at_lo = 0, at_hi = 0;  // the group's extreme weights
  };

  std::span<const float> group(std::size_t o, std::size_t g) const {
    const std::size_t first = g * group_size_;
    return W_.row(o).subspan(first, std::min(group_size_, W_.cols() - first));
  }

  // Of the range that the scheme asks for, which a search may have shrunk.
  float first_logit(std::span<const float> w) const {
    if (scheme_.range == RangeSearch::kMinMax) return kFirstLogit;
    WeightScheme whole = scheme_;
    whole.range = RangeSearch::kMinMax;
    const float share =
        fit_int_grid(w, scheme_).scale / fit_int_grid(w, whole).scale;
    const float p = clamp_to(share, 0.05f, sigmoid(kFirstLogit));
    return std::log(p / (1 - p));
  }

  template <class Body>
  void for_groups(ThreadPool& pool, const Body& body) const {
    pool.for_ranges(W_.rows(), kRowsPerTask,
                    [&](std::size_t begin, std::size_t end) {
                      for (std::size_t o = begin; o < end; ++o) {
                        for (std::size_t g = 0; g < groups_; ++g) body(o, g);
                      }
                    });
  }

  Grid grid(std::size_t o, std::size_t g) const {
    const auto w = group(o, g);
    const auto [min, max] = std::ranges::minmax_element(w);
    Grid at{.lo = sigmoid(low_(o, g)) * std::min(*min, 0.0f),
            .hi = sigmoid(high_(o, g)) * std::max(*max, 0.0f),
            .at_lo = static_cast<std::size_t>(min - w.begin()),
            .at_hi = static_cast<std::size_t>(max - w.begin())};
    if (at.lo == 0 && at.hi == 0) at.lo = -1, at.hi = 1;  // as int_grid.h
    if (scheme_.symmetric) {
      at.scale = stored_scale(2 * std::max(at.hi, -at.lo) / max_code_,
                              scheme_.scale_dtype);
      at.zero = static_cast<float>(1 << (scheme_.bits - 1));
    } else {
      at.scale = stored_scale((at.hi - at.lo) / max_code_, scheme_.scale_dtype);
      at.zero =
          clamp_to(round_half_even(clamp_to(-at.lo / at.scale, 0, max_code_)),
                   0, max_code_);
    }
    return at;
  }

  // d becomes dL/dW; sets the gradients of the group's logits.
  void differentiate(std::size_t o, std::size_t g, std::span<float> d) {
    const auto w = group(o, g);
    const Grid at = grid(o, g);
    const float end = scheme_.symmetric ? 0 : at.lo / at.scale;
    float of_scale = 0, clamped = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      const float q = int_code(w[i], at.scale, at.zero, max_code_);
      const bool inside = q > 0 && q < max_code_;
      of_scale += d[i] * (q - at.zero - (inside ? w[i] / at.scale : end));
      if (inside) continue;
      clamped += d[i];
      d[i] = 0;
    }
    float of_lo = 0, of_hi = 0;
    if (!scheme_.symmetric) {
      of_hi = of_scale / max_code_;
      of_lo = clamped - of_hi;
    } else if (at.hi > -at.lo) {
      of_hi = 2 * of_scale / max_code_;
    } else {
      of_lo = -2 * of_scale / max_code_;
    }
    const float a = sigmoid(low_(o, g)), b = sigmoid(high_(o, g));
    d_low_(o, g) = of_lo * at.lo * (1 - a);
    d_high_(o, g) = of_hi * at.hi * (1 - b);
    if (w[at.at_lo] < 0) d[at.at_lo] += of_lo * a;
    if (w[at.at_hi] > 0) d[at.at_hi] += of_hi * b;
  }

  // With room for the ranges to shrink.
  bool scales_within_f16() const {
    constexpr float kLargest = 65504.0f, kSmallest = 0x1p-14f;
    if (scheme_.scale_dtype != DType::kF16) return true;
    for (std::size_t o = 0; o < W_.rows(); ++o) {
      for (std::size_t g = 0; g < groups_; ++g) {
        const float scale = grid(o, g).scale;
        if (!(scale >= kSmallest && scale < kLargest)) return false;
      }
    }
    return true;
  }

  ConstMatrixView W_;
  WeightScheme scheme_;
  const OmniQuantConfig config_;
  float max_code_;
  std::size_t group_size_ = 0, groups_ = 0;
  MatrixF low_{}, high_{}, d_low_{}, d_high_{};  // logits [out, groups]
  AdamWState of_low_{}, of_high_{};
};

constexpr auto kOwn = &QuantizeConfig::omniquant;
constexpr auto kTraining = &OmniQuantConfig::training;
constexpr Setting<QuantizeConfig> kSettings[] = {
    {"iterations", "steps for each block",
     count_at<kOwn, kTraining, &BlockTrainingConfig::iterations>(1, 100000)},
    {"learning_rate", "of the ranges; of the first step, falling to 0",
     number_at<kOwn, &OmniQuantConfig::learning_rate>(0, 1)},
    {"transformation_rate",
     "learning rate of the scales between norms and Linears; 0: none move",
     number_at<kOwn, &OmniQuantConfig::transformation_rate>(0, 1)},
    {"batch_size", "calibration sequences of a step",
     count_at<kOwn, kTraining, &BlockTrainingConfig::batch_size>(1, 4096)},
    {"seed", "of the order of the sequences",
     count_at<kOwn, kTraining, &BlockTrainingConfig::seed>(0, 4294967295)},
};

}  // namespace

QuantizerMethod omniquant_method() {
  return {.name = "omniquant",
          .summary =
              "learns the ranges of a block's Linears, and scales "
              "between its norms and them, by AdamW on the block's "
              "output",
          .paper = "arXiv:2308.13137",
          .weights = WeightKinds::kIntegers,
          .needs =
              [](const QuantizeConfig&) {
                return StatsNeeds{.second_moment = true};
              },
          .quantize = learn_alone,
          .settings = kSettings,
          .check = check_block_wise,
          .learn_in_block = [](const BlockWeightRequest& request)
              -> std::unique_ptr<BlockWeight> {
            return std::make_unique<ClippedWeight>(request);
          },
          .schedule =
              [](const QuantizeConfig& config) {
                BlockSchedule schedule = schedule_of(config.omniquant.training);
                schedule.transformation_rate =
                    config.omniquant.transformation_rate;
                return schedule;
              }};
}

}  // namespace llmpress
