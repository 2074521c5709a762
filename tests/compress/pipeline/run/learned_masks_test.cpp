// Units chosen by gates that are learned.
#include "compress/surgery/learned_masks.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/model/tensor_places.h"
#include "distill/objective.h"
#include "formats/checkpoints/artifact_writer.h"
#include "pruning/hard_concrete.h"
#include "tests/compress/pipeline/structured_model.h"

namespace llmpress {
namespace {

PruneConfig learned(PruneMethod method, double sparsity = 0.5) {
  return {.method = method,
          .sparsity = sparsity,
          .importance = Importance::kLearned,
          .depth_importance = DepthImportance::kLearned,
          .mask_steps = 60,
          .mask_batch = 6,
          .heal = false};
}

std::vector<float> read_vector_of(const Checkpoint& checkpoint,
                                  const std::string& name) {
  const MatrixF values = read_matrix(checkpoint.tensors(), name);
  return {values.data().begin(), values.data().end()};
}

TinyShape shape() { return {.layers = 4, .heads = 8, .kv_heads = 4}; }

// Mean cross-entropy of the calibration tokens.
double loss_of(const Checkpoint& checkpoint) {
  ThreadPool pool(2);
  TrainableModel model(checkpoint, {});
  const TrainingData data(random_calibration(31).sequences, 32);
  std::vector<std::size_t> all(data.sequences());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
  return text_objective(0)
      ->run(model, data.batch(all), 1, Gradients::kNone, pool)
      .total;
}

class LearnedMasksOf : public testing::TestWithParam<PruneMethod> {};
INSTANTIATE_TEST_SUITE_P(Units, LearnedMasksOf,
                         testing::Values(PruneMethod::kFfn, PruneMethod::kHeads,
                                         PruneMethod::kHidden,
                                         PruneMethod::kDepth));

TEST_P(LearnedMasksOf, CostLessThanWhatIsSmallOrLeastActive) {
  const TinyTensors tensors = tiny_tensors(shape(), 31);
  const PrunedModel chosen(shape(), tensors, learned(GetParam()));
  PruneConfig other = learned(GetParam());
  other.importance = Importance::kActivations;
  other.depth_importance = DepthImportance::kCosine;
  const PrunedModel active(shape(), tensors, other);
  EXPECT_EQ(read_architecture(chosen.checkpoint()).hidden,
            read_architecture(active.checkpoint()).hidden);
  EXPECT_LT(loss_of(chosen.checkpoint()), loss_of(active.checkpoint()));
}

TEST_P(LearnedMasksOf, AreTheSameBytesAtAnyNumberOfThreads) {
  const TinyTensors tensors = tiny_tensors(shape(), 32);
  PruneConfig config = learned(GetParam());
  config.mask_steps = 6;
  const PrunedModel one(shape(), tensors, config, 1);
  const PrunedModel three(shape(), tensors, config, 3);
  EXPECT_TRUE(read_file(one.path() / "model.safetensors") ==
              read_file(three.path() / "model.safetensors"));
}

TEST_P(LearnedMasksOf, CostLessWhereWeightsLearnAlong) {
  const TinyTensors tensors = tiny_tensors(shape(), 34);
  PruneConfig config = learned(GetParam());
  const PrunedModel frozen(shape(), tensors, config);
  config.mask_weight_rate = 0.01;
  const PrunedModel one(shape(), tensors, config, 1);
  const PrunedModel three(shape(), tensors, config, 3);
  EXPECT_LT(loss_of(one.checkpoint()), loss_of(frozen.checkpoint()) - 0.1);
  EXPECT_TRUE(read_file(one.path() / "model.safetensors") ==
              read_file(three.path() / "model.safetensors"));
  // All of the model learned, not what the gates stand at alone.
  for (const char* const name :
       {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}) {
    if (GetParam() == PruneMethod::kHidden) break;  // of another shape
    EXPECT_NE(read_vector_of(one.checkpoint(), name),
              read_vector_of(one.base(), name))
        << name;
  }
}

TEST_P(LearnedMasksOf, KeepWeightsThatHardlyLearn) {
  const TinyTensors tensors = tiny_tensors(shape(), 35);
  PruneConfig config = learned(GetParam());
  config.mask_steps = 10;
  const PrunedModel frozen(shape(), tensors, config);
  config.mask_weight_rate = 1e-30;  // steps below the smallest of a float
  const PrunedModel still(shape(), tensors, config);
  EXPECT_TRUE(read_file(still.path() / "model.safetensors") ==
              read_file(frozen.path() / "model.safetensors"));
}

TEST(LearnedMasks, RefuseToHealWeightsThatLearned) {
  PruneConfig config = learned(PruneMethod::kFfn);
  config.mask_weight_rate = 1e-3;
  EXPECT_NO_THROW(check(config));
  config.heal = true;
  try {
    check(config);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("mask_weight_rate"),
              std::string::npos);
  }
  config.importance = Importance::kActivations;  // which learns nothing
  config.depth_importance = DepthImportance::kCosine;
  EXPECT_NO_THROW(check(config));
}

TEST(LearnedMasks, LeaveAsManyGatesOpenAsAreToStay) {
  ThreadPool pool(2);
  const MemoryCheckpoint base(tiny_tensors(shape(), 33), config_json(shape()));
  const Architecture arch = read_architecture(base);
  const CalibrationSet calibration = random_calibration(31);
  PruneConfig config = learned(PruneMethod::kFfn);
  config.mask_steps = 300;
  for (const std::size_t kept : {std::size_t{10}, std::size_t{30}}) {
    const LearnedMasks masks({.checkpoint = &base,
                              .arch = &arch,
                              .config = &config,
                              .calibration = &calibration,
                              .pool = &pool},
                             kept);
    for (std::size_t layer = 0; layer < arch.layers; ++layer) {
      const auto& scores = masks.of_block(layer);
      ASSERT_EQ(scores.size(), arch.ffn);
      double open = 0;
      for (const double a : scores) open += open_probability(a).value;
      // The multipliers swing around it, by less than an eighth of all.
      EXPECT_NEAR(open, static_cast<double>(kept), 5) << layer;
    }
  }
}

}  // namespace
}  // namespace llmpress
