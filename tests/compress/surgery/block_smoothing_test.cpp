#include "compress/surgery/block_smoothing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compress/model/model_source.h"
#include "tests/compress/core/thread_ranks.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

// The output of block 0 for the calibration sequences.
MatrixF output_of(const Architecture& arch, const DenseBlock& block,
                  CalibrationStates states, ThreadPool& pool) {
  states.run(runner_of(arch, 0, block, {.isa = best_isa()}), pool);
  return states.batches()[0].state.hidden;
}

class BlockSmoothing : public testing::TestWithParam<const char*> {};

TEST_P(BlockSmoothing, ChangesWeightsButNotTheBlock) {
  ThreadPool pool(2);
  TemporaryDirectory directory;
  const Recipe recipe =
      small_recipe(std::string("[{quantize: {method: ") + GetParam() +
                       ", weights: {bits: 4, group_size: 32}}}]",
                   directory.path() / "o");
  const ModelSource source = open_model(recipe.model);
  const CalibrationSet set =
      load_calibration(*recipe.calibration, *source.tokenizer);
  ThreadPool ends_pool(1);
  const CalibrationStates states(
      set, ModelEnds(*source.checkpoint, *source.arch, best_isa()), ends_pool);
  const StagePlan plan(recipe.stages, {});
  ASSERT_TRUE(wants_smoothing(plan, *source.arch, 0));

  const DenseBlock before =
      load_dense_block(*source.checkpoint, *source.arch, 0, pool);
  DenseBlock after = before;
  const auto notes = smooth_block_in_place(
      {.arch = source.arch.get(), .plan = &plan, .pool = &pool}, after, states);
  EXPECT_GE(notes.size(), 2u);
  EXPECT_NE(before.norms.at("input_layernorm").gain,
            after.norms.at("input_layernorm").gain);

  const MatrixF a = output_of(*source.arch, before, states, pool);
  const MatrixF b = output_of(*source.arch, after, states, pool);
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(a.data()[i] - b.data()[i], 2);
    norm += std::pow(a.data()[i], 2);
  }
  EXPECT_LT(std::sqrt(difference / norm), 1e-5);
}

// Means of AWQ are taken of some batches alone, whichever rank has them.
TEST(BlockSmoothingOnRanks, FindsTheScalesOfOneRankInSomeBatches) {
  ThreadPool pool(1);
  TemporaryDirectory directory;
  Recipe recipe = small_recipe(
      "[{quantize: {method: awq, awq: {ratios: 6, clip: false}, weights: "
      "{bits: 4, group_size: 32}}}]",
      directory.path() / "o");
  recipe.calibration->samples = 24;
  recipe.calibration->sequence_length = 256;
  const ModelSource source = open_model(recipe.model);
  const CalibrationSet set =
      load_calibration(*recipe.calibration, *source.tokenizer);
  ASSERT_EQ(set.tokens(), 6144u);  // three batches, of which two do
  const StagePlan plan(recipe.stages, {});
  const ModelEnds ends(*source.checkpoint, *source.arch, best_isa());
  const DenseBlock before =
      load_dense_block(*source.checkpoint, *source.arch, 0, pool);
  const auto smoothed = [&](const Ranks& ranks) {
    ThreadPool own(1);
    const CalibrationStates states(set, ends, own, {}, ranks);
    DenseBlock block = before;
    smooth_block_in_place(
        {.arch = source.arch.get(), .plan = &plan, .pool = &own}, block,
        states);
    return block;
  };
  const DenseBlock alone = smoothed({});
  EXPECT_NE(alone.norms.at("input_layernorm").gain,
            before.norms.at("input_layernorm").gain);
  for (const std::size_t size : {2u, 4u}) {  // the last of 4 has no batch
    run_on_ranks(size, [&](const Ranks& ranks) {
      const DenseBlock block = smoothed(ranks);
      for (const auto& [name, norm] : block.norms) {
        EXPECT_EQ(norm.gain, alone.norms.at(name).gain) << name;
      }
      for (std::size_t l = 0; l < block.linears.size(); ++l) {
        EXPECT_TRUE(std::ranges::equal(block.linears[l].W.data(),
                                       alone.linears[l].W.data()))
            << l;
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, BlockSmoothing,
                         testing::Values("awq", "smoothquant"));

}  // namespace
}  // namespace llmpress
