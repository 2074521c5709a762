// Embedding and head that learn on the grid that they are stored on.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "compress/calibration/stage_plan.h"
#include "compress/core/error.h"
#include "compress/core/linalg.h"
#include "compress/model/embedding_rows.h"
#include "compress/model/end_operations.h"
#include "compress/model/tensor_places.h"
#include "compress/model/training/scaled_linear.h"
#include "compress/model/training/trainable_model.h"
#include "compress/pipeline/run/run.h"
#include "compress/pipeline/training/grid_linears.h"
#include "compress/pipeline/training/trained_checkpoint.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/containers/safetensors.h"
#include "recipes/recipe_parser.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

const std::string kEnds = "targets: [Linear, embed_tokens, lm_head], ";

class GridEnds : public testing::Test {
 protected:
  void make_model(bool tied) {
    const TinyShape shape{.hidden = 32, .ffn = 64, .head_dim = 8, .tied = tied};
    const fs::path path = directory_.path() / "model";
    fs::create_directories(path);
    std::ofstream(path / "config.json") << config_json(shape);
    std::ofstream(path / "model.safetensors", std::ios::binary)
        << write_safetensors(named_tensors(tiny_tensors(shape, 5)), {});
    std::ofstream(directory_.path() / "text.txt") << "a text";
    model_ = open_checkpoint(path);
    arch_ = read_architecture(*model_);
  }
  // Training that sees this `quantize` stage.
  TrainableModel training(const std::string& quantize,
                          const QuantizationAware& aware = {}) {
    recipe_ = parse_recipe(
        "model: " + (directory_.path() / "model").string() +
            "\nstages: [{train: {text: " +
            (directory_.path() / "text.txt").string() +
            ", steps: 1, quantization_aware: {}}}, " + quantize +
            "]\noutput: {path: " + (directory_.path() / "out").string() + "}\n",
        "test.yaml");
    plan_.emplace(recipe_->stages, std::span<const Stage>());
    check_aware_training(*plan_, arch_, pool_);
    return {*model_,
            {.learning = {.makes = grid_linears(aware, *plan_, arch_, pool_)}}};
  }
  // Moves everything that learns a little, against its gradient.
  double step(TrainableModel& model, float rate) {
    const std::vector<float> weights(kBatch.tokens.size(), 1.0f);
    model.clear_gradients(pool_);
    const double loss = model.run_backward(
        kBatch, {.row_weights = weights, .logits = kSquares}, pool_);
    for (Parameter& p : model.parameters()) {
      for (std::size_t k = 0; k < p.value.size(); ++k) {
        p.value[k] -= rate * p.gradient[k];
      }
    }
    model.values_changed(pool_);
    return loss;
  }
  std::unique_ptr<Checkpoint> written(TrainableModel& model) {
    const fs::path out = directory_.path() / "written";
    write_trained({.student = model_.get(), .model = &model, .output = out});
    return open_checkpoint(out);
  }
  // The embedding's rows and the logits of both are the same numbers.
  void expect_same_ends(TrainableModel& model, const Checkpoint& artifact,
                        const std::string& what) {
    const EmbeddingRows rows(artifact, arch_.embedding, arch_.vocabulary,
                             arch_.hidden);
    const Segment all{.rows = kBatch.tokens.size()};
    const MatrixF learned =
        model.ends().begin(kBatch.tokens, {&all, 1}, pool_).hidden;
    EXPECT_TRUE(
        std::ranges::equal(learned.data(), rows.rows(kBatch.tokens).data()))
        << what;

    const std::string& name = arch_.tied_head ? arch_.embedding : arch_.head;
    const MatrixF head = dequantize(artifact.read_linear(name).weight);
    const NormWeights norm =
        read_norm(artifact, arch_.final_norm, arch_.hidden, false);
    const MatrixF H =
        apply_norm(learned.view(), norm, arch_.final_norm_options, pool_);
    MatrixF Z(H.rows(), head.rows());
    const ActivationQuant input = artifact.read_linear(name).input;
    MatrixF room;
    matmul_transposed(rounded_rows(input, H.view(), {}, room, pool_),
                      head.view(), Z.view(), pool_);
    const MatrixF logits = model.ends().logits(learned.view(), pool_);
    EXPECT_TRUE(std::ranges::equal(logits.data(), Z.data())) << what;
  }

  static std::span<const float> gradient_of(TrainableModel& model,
                                            const std::string& name) {
    return std::ranges::find(model.parameters(), name, &Parameter::name)
        ->gradient;
  }

  const TokenBatch kBatch{.tokens = {3, 1, 4, 1, 5, 9, 2, 6}, .sequences = {8}};
  // Half the sum of the squares of logits.
  const LogitLoss kSquares = [](std::size_t, ConstMatrixView Z,
                                MatrixView<float> G) {
    double sum = 0;
    for (std::size_t k = 0; k < Z.size(); ++k) {
      G.data()[k] += Z.data()[k];
      sum += 0.5 * static_cast<double>(Z.data()[k]) *
             static_cast<double>(Z.data()[k]);
    }
    return sum;
  };
  TemporaryDirectory directory_;
  ThreadPool pool_{2};
  std::unique_ptr<Checkpoint> model_;
  Architecture arch_;
  std::optional<Recipe> recipe_;
  std::optional<StagePlan> plan_;
};

// Grids of every kind.
TEST_F(GridEnds, RunAsTheyAreWritten) {
  for (const bool tied : {true, false}) {
    for (const char* const weights :
         {"weights: {bits: 3, group_size: 8, symmetric: false}",
          "weights: {bits: 4, group_size: -1}",
          "weights: {type: nf4, block_size: 32}", "scheme: FP8_DYNAMIC"}) {
      make_model(tied);
      TrainableModel model = training("{quantize: {" + kEnds + weights + "}}");
      for (int k = 0; k < 3; ++k) step(model, 1e-3f);
      expect_same_ends(model, *written(model),
                       std::string(weights) + (tied ? ", tied" : ""));
      fs::remove_all(directory_.path() / "written");
    }
  }
}

TEST_F(GridEnds, LearnWithTheirSteps) {
  for (const bool tied : {true, false}) {
    make_model(tied);
    TrainableModel model =
        training("{quantize: {" + kEnds +
                 "weights: {bits: 3, group_size: 8, symmetric: false}}}");
    std::set<std::string> names;
    for (const Parameter& p : model.parameters()) names.insert(p.name);
    EXPECT_EQ(names.size(), model.parameters().size());
    for (const char* const part :
         {".weight", ".weight_scale", ".weight_zero_point"}) {
      EXPECT_TRUE(names.contains(arch_.embedding + part));
      EXPECT_EQ(names.contains(arch_.head + part), !tied);
    }
    const double before = step(model, 1e-4f);
    for (int k = 0; k < 20; ++k) step(model, 1e-4f);
    EXPECT_LT(step(model, 0), 0.8 * before);
  }
}

// Of a grid so fine that it is hardly one, the gradient of an embedding, and of
// one that is the head too, is that of numbers that learn.
TEST_F(GridEnds, HaveTheGradientOfWhatTheyRound) {
  for (const bool tied : {true, false}) {
    make_model(tied);
    TrainableModel rounded = training(
        "{quantize: {targets: [embed_tokens, lm_head], weights: {bits: 8, "
        "group_size: 8, symmetric: false}}}",
        {.learn_scales = false});
    TrainableModel plain(*model_, {});
    step(rounded, 0);
    step(plain, 0);
    for (const std::string& name : {arch_.embedding, arch_.head}) {
      if (tied && name == arch_.head) continue;
      const auto exact = gradient_of(plain, name + ".weight");
      const auto found = gradient_of(rounded, name + ".weight");
      ASSERT_EQ(exact.size(), found.size());
      double difference = 0, norm = 0;
      for (std::size_t k = 0; k < exact.size(); ++k) {
        difference += std::pow(static_cast<double>(exact[k] - found[k]), 2);
        norm += std::pow(static_cast<double>(exact[k]), 2);
      }
      // A step of 8 bits is 1/255 of a group's range; blocks make ten times
      // as much of it.
      EXPECT_GT(norm, 0);
      EXPECT_LT(std::sqrt(difference), std::sqrt(norm) / 20) << name << tied;
    }
  }
}

TEST_F(GridEnds, AreRefusedWhereATiedHeadWouldGetAWeightOfItsOwn) {
  const std::string weights = "weights: {bits: 4, group_size: 8}}}";
  make_model(true);
  for (const std::string& stages :
       {"{quantize: {targets: [lm_head], " + weights,
        "{quantize: {targets: [lm_head], " + weights +
            ", {quantize: {targets: [embed_tokens], " + weights}) {
    try {
      training(stages);
      ADD_FAILURE() << stages;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("tied"), std::string::npos)
          << error.what();
    }
  }
  EXPECT_NO_THROW(training("{quantize: {targets: [embed_tokens], " + weights));
  make_model(false);
  EXPECT_NO_THROW(training("{quantize: {targets: [lm_head], " + weights));
}

}  // namespace
}  // namespace llmpress
