#include "compress/calibration/calibration_states.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "compress/core/rng.h"
#include "compress/model/block_weights.h"
#include "compress/model/tensor_places.h"
#include "tests/places.h"

namespace llmpress {
namespace {

constexpr StatsNeeds kGptaq{.second_moment = true, .reference_moment = true};

// A Mixtral of a few weights, and the same with all weights of its first block
// a little off, the router's too.
class ExpertCalibration : public testing::Test {
 protected:
  ExpertCalibration()
      : checkpoint_(open_checkpoint(std::filesystem::path(source_dir()) /
                                    "tests/compress/model/goldens/mixtral")),
        arch_(read_architecture(*checkpoint_)) {
    Rng rng(4);
    CalibrationSet set;
    for (std::size_t s = 0; s < 6; ++s) {
      auto& sequence = set.sequences.emplace_back();
      for (std::size_t t = 0; t < 24; ++t) {
        sequence.push_back(static_cast<TokenId>(rng.below(arch_.vocabulary)));
      }
    }
    const CalibrationStates start(
        set, ModelEnds(*checkpoint_, arch_, best_isa()), pool_);
    full_.emplace(start);
    compressed_.emplace(start);
    BlockWeights weights = read_block(*checkpoint_, arch_, 0);
    full_block_.emplace(arch_, 0, weights, BlockOptions{});
    for (LinearWeights& linear : weights.linears) {
      MatrixF W = dequantize(linear.weight);
      for (float& w : W.data()) w += static_cast<float>(0.1 * rng.normal());
      linear.weight = make_dense(W.view(), DType::kF32);
    }
    block_.emplace(arch_, 0, weights, BlockOptions{});
  }

  // Both, up to the input of the first stage that is of experts.
  std::size_t run_to_experts() {
    const auto& stages = block_->spec().stages;
    std::size_t s = 0;
    full_->begin(*full_block_, pool_);
    compressed_->begin(*block_, pool_);
    for (; stages[s].groups == 1; ++s) run_stage(s);
    return s;
  }
  void run_stage(std::size_t s) {
    full_->run_stage(*full_block_, s, pool_);
    compressed_->run_stage(*block_, s, pool_);
  }

  // As the formulas say, token by token, from what stands before the stage.
  struct Moments {
    std::size_t tokens = 0, paired = 0;
    Matrix<double> second, reference;
  };
  Moments moments_of(std::size_t expert, std::size_t in) const {
    Moments m{.second = Matrix<double>(in, in),
              .reference = Matrix<double>(in, in)};
    for (std::size_t b = 0; b < compressed_->batches().size(); ++b) {
      const BlockState& own = std::as_const(*compressed_).batches()[b].state;
      const BlockState& full = std::as_const(*full_).batches()[b].state;
      for (std::size_t r = 0; r < own.routing->rows(); ++r) {
        if (!is_of(expert, r, *own.routing)) continue;
        ++m.tokens;
        const auto x = own.stage_input.row(r);
        auto pair = own.stage_input.row(r);
        for (std::size_t f = 0; f < full.routing->rows(); ++f) {
          if (!is_of(expert, f, *full.routing) ||
              full.routing->token[f] != own.routing->token[r]) {
            continue;
          }
          pair = full.stage_input.row(f);
          ++m.paired;
        }
        for (std::size_t i = 0; i < in; ++i) {
          for (std::size_t j = 0; j < in; ++j) {
            m.second(i, j) += double{x[i]} * double{x[j]};
            m.reference(i, j) +=
                (double{pair[i]} - double{x[i]}) * double{x[j]};
          }
        }
      }
    }
    return m;
  }
  static bool is_of(std::size_t expert, std::size_t row,
                    const Routing& routing) {
    return row >= routing.offsets[expert] && row < routing.offsets[expert + 1];
  }
  static void expect_near(const MatrixF& found, const Matrix<double>& sums,
                          std::size_t tokens) {
    ASSERT_EQ(found.size(), sums.size());
    double largest = 0;
    for (const double s : sums.data()) largest = std::max(largest, std::abs(s));
    for (std::size_t k = 0; k < sums.size(); ++k) {
      EXPECT_NEAR(double{found.data()[k]} * static_cast<double>(tokens),
                  sums.data()[k], 1e-5 * largest);
    }
  }
  // The tokens of all experts, and those that both models send to the same.
  Moments expect_stats(std::size_t stage,
                       const std::vector<InputStats>& stats) {
    const StageSpec& spec = block_->spec().stages[stage];
    EXPECT_EQ(stats.size(), spec.groups);
    Moments all;
    for (std::size_t g = 0; g < stats.size(); ++g) {
      const Moments m = moments_of(g, spec.in);
      EXPECT_EQ(stats[g].tokens, m.tokens);
      if (m.tokens == 0) continue;
      expect_near(stats[g].second_moment, m.second, m.tokens);
      expect_near(stats[g].reference_moment, m.reference, m.tokens);
      all.tokens += m.tokens;
      all.paired += m.paired;
    }
    return all;
  }

  ThreadPool pool_{2};
  std::unique_ptr<Checkpoint> checkpoint_;
  Architecture arch_;
  std::optional<CalibrationStates> full_, compressed_;
  std::optional<Block> full_block_, block_;
};

TEST_F(ExpertCalibration, PairsTheTokensThatBothModelsRouteToAnExpert) {
  const std::size_t s = run_to_experts();
  const auto& stages = block_->spec().stages;
  const auto stats = compressed_->collect(stages[s], kGptaq, pool_, &*full_);
  const Moments m = expect_stats(s, stats);
  EXPECT_GT(m.paired, m.tokens / 2);
  EXPECT_LT(m.paired, m.tokens);  // some are routed elsewhere
  // A part of the experts alone.
  const auto last = compressed_->collect(stages[s], {stages[s].groups - 1, 1},
                                         kGptaq, pool_, &*full_);
  EXPECT_TRUE(std::ranges::equal(last.at(0).reference_moment.data(),
                                 stats.back().reference_moment.data()));
}

TEST_F(ExpertCalibration, PairsWhatStandsWithinAnExpert) {
  const std::size_t s = run_to_experts() + 1;
  const auto& stages = block_->spec().stages;
  ASSERT_GT(stages.at(s).groups, 1u);
  const auto ahead =
      compressed_->collect_after(*block_, s - 1, {0, stages[s].groups}, kGptaq,
                                 pool_, &*full_, &*full_block_);
  run_stage(s - 1);
  (void)expect_stats(s, ahead);
}

TEST_F(ExpertCalibration, PairsEveryTokenWhereEveryExpertSeesAll) {
  block_->route_to_all_experts();
  full_block_->route_to_all_experts();
  const std::size_t s = run_to_experts();
  const auto& stages = block_->spec().stages;
  const Moments m =
      expect_stats(s, compressed_->collect(stages[s], kGptaq, pool_, &*full_));
  EXPECT_EQ(m.paired, m.tokens);
  EXPECT_EQ(m.tokens, stages[s].groups * compressed_->tokens());
}

}  // namespace
}  // namespace llmpress
