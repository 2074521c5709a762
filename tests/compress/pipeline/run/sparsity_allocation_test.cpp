#include "compress/pipeline/run/sparsity_allocation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compress/pipeline/run/run.h"
#include "tests/compress/pipeline/structured_model.h"

namespace llmpress {
namespace {

// Random weights have no scores of 12 times the mean.
PruneStage owl_stage(double sparsity) {
  return {.config = {.method = PruneMethod::kWanda,
                     .sparsity = sparsity,
                     .allocation = SparsityAllocation::kOwl,
                     .owl_threshold = 12}};
}

// A model whose last block has weights that are 40 times the others.
struct ModelWithOutliers {
  explicit ModelWithOutliers(const TinyShape& shape)
      : checkpoint(with_outliers(shape), config_json(shape)),
        arch(parse_architecture(checkpoint.config_json(), "tiny")),
        calibration(random_calibration(shape.vocabulary)) {}

  static TinyTensors with_outliers(const TinyShape& shape) {
    TinyTensors tensors = tiny_tensors(shape, 1);
    MatrixF& up = tensors["model.layers.2.mlp.up_proj.weight"];
    for (std::size_t c = 0; c < shape.hidden; ++c) up(3, c) *= 40;
    return tensors;
  }

  SparsityAllocations allocate(const std::vector<Stage>& stages,
                               std::size_t threads = 2) {
    ThreadPool pool(threads);
    const StagePlan plan(stages, {});
    return allocate_sparsities({.checkpoint = &checkpoint,
                                .arch = &arch,
                                .plan = &plan,
                                .calibration = &calibration,
                                .pool = &pool});
  }

  MemoryCheckpoint checkpoint;
  Architecture arch;
  CalibrationSet calibration;
};

TEST(SparsityAllocation, KeepsMoreOfTheBlockWithOutliers) {
  ModelWithOutliers model({.layers = 3});
  const std::vector<Stage> stages{owl_stage(0.6)};
  const auto allocations = model.allocate(stages);
  ASSERT_EQ(allocations.of_stage.size(), 1u);
  const auto& s = allocations.of_stage.begin()->second;
  ASSERT_EQ(s.size(), 3u);
  EXPECT_LT(s[2], s[0]);
  EXPECT_LT(s[2], s[1]);
  EXPECT_NEAR((s[0] + s[1] + s[2]) / 3, 0.6, 1e-12);
  const auto [low, high] = std::ranges::minmax(s);
  EXPECT_NEAR(high - low, 2 * 0.08, 1e-12);  // owl_lambda
  EXPECT_EQ(allocations.notes.size(), 3u);
  EXPECT_EQ(allocations.of_block(1).begin()->second, s[1]);
}

TEST(SparsityAllocation, LeavesBlocksThatAStageDoesNotSelectAlone) {
  ModelWithOutliers model({.layers = 3});
  PruneStage stage = owl_stage(0.5);
  stage.layers.ignore = {"re:model.layers.0.*"};
  const std::vector<Stage> stages{stage};
  const auto s = model.allocate(stages).of_stage.begin()->second;
  EXPECT_EQ(s[0], 0.5);
  EXPECT_NEAR((s[1] + s[2]) / 2, 0.5, 1e-12);
  EXPECT_NEAR(s[1] - s[2], 2 * 0.08, 1e-12);
}

TEST(SparsityAllocation, IsTheSameAtAnyThreadCount) {
  ModelWithOutliers model({.layers = 3});
  const std::vector<Stage> stages{owl_stage(0.6)};
  EXPECT_EQ(model.allocate(stages, 1).of_stage.begin()->second,
            model.allocate(stages, 3).of_stage.begin()->second);
}

}  // namespace
}  // namespace llmpress
