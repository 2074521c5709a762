#include "distill/optimizers/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace llmpress {
namespace {

TEST(Schedule, WarmsUpFromZero) {
  for (const auto decay :
       {LearningRateDecay::kConstant, LearningRateDecay::kLinear,
        LearningRateDecay::kCosine}) {
    const ScheduleConfig config{
        .peak = 8, .decay = decay, .warmup_steps = 4, .total_steps = 12};
    EXPECT_EQ(learning_rate_at(config, 0), 0);
    EXPECT_EQ(learning_rate_at(config, 1), 2);
    EXPECT_EQ(learning_rate_at(config, 3), 6);
    EXPECT_EQ(learning_rate_at(config, 4), 8);
  }
}

TEST(Schedule, DecaysToTheMinimumAndStaysThere) {
  ScheduleConfig config{.peak = 8,
                        .decay = LearningRateDecay::kLinear,
                        .warmup_steps = 4,
                        .total_steps = 12,
                        .minimum_fraction = 0.25f};
  EXPECT_EQ(learning_rate_at(config, 8), 5);  // 2 + 6 / 2
  EXPECT_EQ(learning_rate_at(config, 12), 2);
  EXPECT_EQ(learning_rate_at(config, 1000), 2);
  config.decay = LearningRateDecay::kCosine;
  EXPECT_FLOAT_EQ(learning_rate_at(config, 8), 5);
  EXPECT_FLOAT_EQ(learning_rate_at(config, 6),
                  static_cast<float>(2 + 3 * (1 + std::sqrt(0.5))));
  EXPECT_EQ(learning_rate_at(config, 12), 2);
  EXPECT_EQ(learning_rate_at(config, 1000), 2);
  config.decay = LearningRateDecay::kConstant;
  EXPECT_EQ(learning_rate_at(config, 1000), 8);
}

// transformers 5, peak 3e-4, 10 steps of warm-up, 100 in all.
TEST(Schedule, AgreesWithTransformers) {
  ScheduleConfig config{.peak = 3e-4f, .warmup_steps = 10, .total_steps = 100};
  EXPECT_NEAR(learning_rate_at(config, 7), 2.1e-4, 1e-10);
  EXPECT_NEAR(learning_rate_at(config, 77), 4.5801244431150394e-05, 1e-10);
  EXPECT_NEAR(learning_rate_at(config, 99), 9.137594713563568e-08, 1e-12);
  config.minimum_fraction = 0.1f;
  EXPECT_NEAR(learning_rate_at(config, 77), 7.122111998803535e-05, 1e-10);
  config.minimum_fraction = 0;
  config.decay = LearningRateDecay::kLinear;
  EXPECT_NEAR(learning_rate_at(config, 77), 7.666666666666666e-05, 1e-10);
}

TEST(Schedule, SurvivesAWarmupAsLongAsTheRun) {
  const ScheduleConfig config{.peak = 1, .warmup_steps = 5, .total_steps = 5};
  EXPECT_EQ(learning_rate_at(config, 4), 0.8f);
  EXPECT_EQ(learning_rate_at(config, 5), 1);
  EXPECT_EQ(learning_rate_at(config, 6), 0);
}

}  // namespace
}  // namespace llmpress
