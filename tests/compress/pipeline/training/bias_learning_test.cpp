// Biases that learn alone (BitFit): those of Linears, norms and heads, with the
// gradients that they have when everything learns.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "compress/pipeline/training/learned_weights.h"
#include "distill/objective.h"
#include "formats/checkpoints/checkpoint.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

TrainingBatch batch_of(const Architecture& arch) {
  TrainingBatch batch;
  batch.input.tokens =
      random_tokens(12, std::min<std::size_t>(arch.vocabulary, 40), 3);
  batch.input.sequences = {12};
  for (std::size_t i = 1; i < 12; ++i) {
    batch.targets.push_back(static_cast<std::int32_t>(batch.input.tokens[i]));
  }
  batch.targets.push_back(-1);
  return batch;
}

std::map<std::string, std::vector<float>> gradients(TrainableModel& model) {
  ThreadPool pool(2);
  (void)text_objective(0)->run(model, batch_of(model.architecture()), 1,
                               Gradients::kAdd, pool);
  std::map<std::string, std::vector<float>> all;
  for (const Parameter& p : model.parameters()) {
    all[p.name].assign(p.gradient.begin(), p.gradient.end());
  }
  return all;
}

bool is_bias(const std::string& tensor) { return tensor.ends_with(".bias"); }

class BiasLearning : public ::testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Checkpoint> checkpoint_ = open_checkpoint(
      fs::path(source_dir()) / "tests/compress/model/goldens" / GetParam());
};

TEST_P(BiasLearning, HasTheGradientsOfWhenEverythingLearns) {
  TrainableModel whole(*checkpoint_, {}),
      biases(*checkpoint_, {.learning = {.learns = is_bias}});
  auto wanted = gradients(whole);
  std::erase_if(wanted, [](const auto& row) { return !is_bias(row.first); });
  const auto found = gradients(biases);
  ASSERT_FALSE(wanted.empty());
  ASSERT_EQ(found.size(), wanted.size());
  for (const auto& [name, values] : wanted) {
    ASSERT_TRUE(found.contains(name)) << name;
    double norm = 0, error = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      norm += std::pow(static_cast<double>(values[i]), 2);
      error +=
          std::pow(static_cast<double>(values[i]) - found.at(name).at(i), 2);
    }
    EXPECT_LE(std::sqrt(error), 1e-4 * std::sqrt(norm) + 1e-7) << name;
  }
}

TEST_P(BiasLearning, ChangesNoOtherTensor) {
  TrainableModel model(*checkpoint_, {.learning = {.learns = is_bias}});
  std::set<std::string> wanted;
  for (const Parameter& p : model.parameters()) {
    for (float& v : p.value) v += 1;
    wanted.insert(p.name);
  }
  const auto learned = overlay(
      *checkpoint_, learned_weights(model.architecture(), model.parameters()));
  std::size_t changed = 0;
  for (const TensorInfo& info : checkpoint_->tensors().tensors()) {
    const TensorInfo& other = learned->tensors().require(info.name);
    ASSERT_EQ(other.dtype, info.dtype);
    const bool same =
        std::ranges::equal(checkpoint_->tensors().read(info).bytes,
                           learned->tensors().read(other).bytes);
    EXPECT_EQ(same, !is_bias(info.name)) << info.name;
    if (!same) ++changed;
  }
  EXPECT_GT(changed, 0u);
}

INSTANTIATE_TEST_SUITE_P(Goldens, BiasLearning,
                         ::testing::Values("opt", "bloom", "gpt2", "qwen2",
                                           "phi"),
                         [](const auto& row) { return row.param; });

}  // namespace
}  // namespace llmpress
