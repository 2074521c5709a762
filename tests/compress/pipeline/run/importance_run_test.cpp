#include <gtest/gtest.h>

#include "compress/calibration/calibration_text.h"
#include "compress/core/error.h"
#include "compress/pipeline/run/measured_importance.h"
#include "compress/pipeline/run/run.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

class ImportanceRun : public testing::Test {
 protected:
  // Of the calibration of small_recipe().
  Imatrix measured() {
    const ModelSource model = open_model(shipped("tinystories-3.7m"));
    const CalibrationSet set =
        load_calibration({.text = shipped("text/calibration.txt"),
                          .samples = 4,
                          .sequence_length = 64,
                          .sampling = Sampling::kSequential},
                         *model.tokenizer);
    return measure_importance(
        {.model = &model, .calibration = &set, .pool = &pool_});
  }

  fs::path written(const Imatrix& imatrix, const std::string& name) {
    const fs::path path = directory_.path() / name;
    write_file_atomically(path, imatrix_octets(imatrix, imatrix_form_of(path)));
    return path;
  }

  std::string tensors_of(const std::string& stages, const std::string& name) {
    const fs::path output = directory_.path() / name;
    (void)run_recipe(small_recipe(stages, output), {}, pool_);
    return read_file(output / "model.safetensors");
  }

  std::string stage(const std::string& targets, const fs::path& importance) {
    return "[{quantize: {method: imatrix, weights: {bits: 4, group_size: 32}, "
           "targets: ['" +
           targets + "']" +
           (importance.empty() ? "" : ", importance: " + importance.string()) +
           "}}]";
  }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

TEST_F(ImportanceRun, CountsTokensOfEveryLinearAndOfTheHead) {
  const Imatrix imatrix = measured();
  EXPECT_EQ(imatrix.entries.size(), 29u);
  EXPECT_EQ(imatrix.chunks, 4u);
  EXPECT_EQ(imatrix.chunk_size, 64u);
  for (const auto& [name, entry] : imatrix.entries) {
    EXPECT_EQ(entry.counts, std::vector<float>{256}) << name;
    EXPECT_GT(entry.sums[0], 0) << name;
  }
  EXPECT_EQ(imatrix.entries.at("blk.1.ffn_down.weight").sums.size(), 768u);
  EXPECT_EQ(imatrix.entries.at("output.weight").sums.size(), 256u);
}

// The first Linears of a model see the same inputs in both, so that the file
// says what calibration would.
TEST_F(ImportanceRun, AFileStandsForTheCalibrationThatMadeIt) {
  const std::string first = "re:.*layers.0.self_attn.[qkv]_proj";
  const std::string calibrated = tensors_of(stage(first, ""), "calibrated");
  const Imatrix imatrix = measured();
  EXPECT_EQ(tensors_of(stage(first, written(imatrix, "im.gguf")), "gguf"),
            calibrated);
  EXPECT_EQ(tensors_of(stage(first, written(imatrix, "im.dat")), "legacy"),
            calibrated);
  Imatrix flat = imatrix;
  for (auto& [name, entry] : flat.entries) {
    std::ranges::fill(entry.sums, 1.0f);
  }
  EXPECT_NE(tensors_of(stage(first, written(flat, "flat.gguf")), "flat"),
            calibrated);
}

TEST_F(ImportanceRun, NeedsNoCalibrationText) {
  const fs::path file = written(measured(), "im.gguf");
  const Recipe recipe = parse_recipe(
      "model: " + shipped("tinystories-3.7m").string() +
          "\nstages: " + stage("Linear", file) +
          "\noutput: {path: " + (directory_.path() / "out").string() + "}\n",
      "test.yaml");
  const RunReport report = run_recipe(recipe, {}, pool_);
  EXPECT_EQ(report.variants.at(0).layers.size(), 28u);
  for (const LayerReport& layer : report.variants.at(0).layers) {
    EXPECT_EQ(layer.method, "imatrix") << layer.name;
  }
}

TEST_F(ImportanceRun, ALinearThatTheFileHasNotIsNamedBeforeWorkStarts) {
  Imatrix imatrix = measured();
  imatrix.entries.erase("blk.2.attn_k.weight");
  const fs::path file = written(imatrix, "im.gguf");
  try {
    (void)plan_recipe(
        small_recipe(stage("Linear", file), directory_.path() / "out"), {},
        pool_);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("blk.2.attn_k.weight"),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace llmpress
