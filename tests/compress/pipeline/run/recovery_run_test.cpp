// Training behind `quantize`, and training that is aware of it, as stages of a
// run.
#include <gtest/gtest.h>

#include <string>
#include <variant>
#include <vector>

#include "compress/core/error.h"
#include "compress/model/block_weights.h"
#include "compress/pipeline/run/run.h"
#include "formats/checkpoints/checkpoint.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

const std::string kText =
    "text: " + shipped("text/calibration.txt").string() +
    ", sequence_length: 32, batch_size: 4, evaluate_sequences: 8";
const std::string kTaught = ", cross_entropy: 0, divergence: 1";

std::string quantize(const std::string& weights, const std::string& more = "") {
  return "{quantize: {weights: {" + weights + "}" + more + "}}";
}
std::string distill(const std::string& more) {
  return "{distill: {" + kText + kTaught + more + "}}";
}

class RecoveryRun : public testing::Test {
 protected:
  fs::path path(const std::string& name) { return directory_.path() / name; }
  RunReport run(const std::string& stages, const std::string& out,
                std::size_t threads = 2, const RunOptions& options = {}) {
    ThreadPool pool(threads);
    return run_recipe(small_recipe("[" + stages + "]", path(out), ""), options,
                      pool);
  }
  // The loss of an artifact, on the same sequences, before a step from it.
  double loss_of(const std::string& artifact, const std::string& more = "") {
    const Recipe recipe = parse_recipe(
        "model: " + path(artifact).string() + "\nstages: [" + "{distill: {" +
            kText + kTaught + ", steps: 1, teacher: " +
            shipped("tinystories-3.7m").string() + ", learn: norms" + more +
            "}}]\noutput: {path: " + path("again").string() + "}\n",
        "again.yaml");
    ThreadPool pool(2);
    const RunReport report = run_recipe(recipe, {}, pool);
    fs::remove_all(path("again"));
    return report.variants[0].training[0].before.divergence;
  }
  PackedWeight weight_of(const std::string& artifact) {
    const auto checkpoint = open_checkpoint(path(artifact));
    return checkpoint->read_linear("model.layers.1.mlp.up_proj").weight;
  }
  void interrupt(const std::string& stages, std::size_t done) {
    const RunOptions options{.progress = [&](const ProgressEvent& event) {
      if (event.phase == "train" && event.done == done) {
        throw Error(ErrorCode::kCancelled, "stop");
      }
    }};
    EXPECT_THROW(run(stages, "out", 2, options), Error);
    EXPECT_FALSE(fs::exists(path("out")));
  }
  void expect_refused(const std::string& stages, const std::string& why) {
    try {
      run(stages, "refused");
      ADD_FAILURE() << "nothing was refused: " << stages;
    } catch (const Error& error) {
      EXPECT_FALSE(fs::exists(path("refused")));
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos)
          << error.what();
    }
  }

  const std::string kInt2 = "bits: 2, group_size: 32";
  TemporaryDirectory directory_;
};

TEST_F(RecoveryRun, LearnsScalesAndKeepsCodes) {
  run(quantize(kInt2), "rounded");
  const RunReport report =
      run(quantize(kInt2) + "," +
              distill(", learn: scales, steps: 40, learning_rate: 4e-3"),
          "out");
  const TrainingReport& training = report.variants[0].training.at(0);
  EXPECT_LT(training.after.divergence, 0.95 * training.before.divergence);
  const auto before = std::get<GroupedIntWeight>(weight_of("rounded"));
  const auto after = std::get<GroupedIntWeight>(weight_of("out"));
  EXPECT_EQ(before.codes, after.codes);
  EXPECT_EQ(before.zeros, after.zeros);
  EXPECT_NE(before.scales, after.scales);
  EXPECT_EQ(before.scale_dtype, after.scale_dtype);
  // What was evaluated is what was written.
  EXPECT_NEAR(loss_of("out"), training.after.divergence, 2e-5);
  EXPECT_NEAR(loss_of("rounded"), training.before.divergence, 2e-5);
}

TEST_F(RecoveryRun, LearnsEveryNumberThatIsStoredAsAFloat) {
  run(quantize(kInt2), "rounded");
  const RunReport report =
      run(quantize(kInt2) + "," + distill(", steps: 4"), "out");
  const auto before = open_checkpoint(path("rounded"));
  const auto after = open_checkpoint(path("out"));
  for (const char* name : {"model.norm.weight", "model.embed_tokens.weight",
                           "model.layers.0.input_layernorm.weight"}) {
    const TensorInfo& info = before->tensors().require(name);
    const TensorInfo& other = after->tensors().require(name);
    EXPECT_FALSE(std::ranges::equal(before->tensors().read(info).bytes,
                                    after->tensors().read(other).bytes))
        << name;
  }
  EXPECT_NEAR(loss_of("out"), report.variants[0].training[0].after.divergence,
              2e-5);
}

TEST_F(RecoveryRun, LearnsRealZeroPoints) {
  const std::string hqq = quantize(kInt2, ", method: hqq");
  run(hqq, "rounded");
  run(hqq + "," + distill(", learn: [scales, zeros], steps: 2"), "out");
  const auto before = std::get<GroupedIntWeight>(weight_of("rounded"));
  const auto after = std::get<GroupedIntWeight>(weight_of("out"));
  ASSERT_FALSE(before.float_zeros.empty());
  EXPECT_NE(before.float_zeros, after.float_zeros);
  EXPECT_EQ(before.codes, after.codes);
}

TEST_F(RecoveryRun, WritesTheSameBytesAtAnyThreadCountAndAfterAKill) {
  const std::string stages = quantize(kInt2, ", method: gptq") + "," +
                             distill(", steps: 5, checkpoint_every: 2") +
                             ",{train: {" + kText +
                             ", learn: scales, steps: 2}}";
  run(stages, "one", 1);
  const auto whole = files_of(path("one"));
  run(stages, "three", 3);
  EXPECT_TRUE(read_file(path("three") / "model.safetensors") ==
              whole.at("model.safetensors"));
  interrupt(stages, 1);
  interrupt(stages, 4);
  EXPECT_TRUE(fs::exists(path("out.resume") / "recovered-0.training"));
  run(stages, "out");
  EXPECT_TRUE(read_file(path("out") / "model.safetensors") ==
              whole.at("model.safetensors"));
  EXPECT_FALSE(fs::exists(path("out.resume")));
}

TEST_F(RecoveryRun, RefusesWhatCannotFollow) {
  const std::string recovery = distill(", steps: 1");
  expect_refused(quantize("type: mxfp4") + "," + recovery, "powers of two");
  expect_refused(quantize("type: nf4, double_quant: true") + "," + recovery,
                 "codes of 8 bits");
  expect_refused(quantize(kInt2, ", targets: up_proj") + "," + recovery + "," +
                     quantize(kInt2, ", targets: down_proj"),
                 "trains what is packed");
  expect_refused(
      quantize(kInt2) + "," + distill(", steps: 1, student: {every: 2}"),
      "'student'");
  expect_refused(
      quantize(kInt2) + "," + distill(", steps: 1, quantization_aware: {}"),
      "quantization_aware");
  expect_refused(quantize(kInt2) + "," + distill(", steps: 1, learn: zeros"),
                 "nothing learns");
}

// Grids of every kind that learn, or are fitted.
TEST_F(RecoveryRun, StoresTheGridThatTrainingLearned) {
  struct Case {
    const char* name;
    std::string quantize, aware;
  };
  const std::string more = ", activations: {type: ";
  const Case cases[] = {
      {"int2", quantize(kInt2), ""},
      {"int4 symmetric", quantize("bits: 4, group_size: 64, symmetric: true"),
       ""},
      {"int3 fitted", quantize("bits: 3, group_size: 32"),
       "learn_scales: false"},
      {"w8a8", "{quantize: {scheme: W8A8}}", ""},
      {"fp8", "{quantize: {scheme: FP8_DYNAMIC}}", ""},
      {"nf4", quantize("type: nf4"), ""},
      {"mxfp4", quantize("type: mxfp4"), "learn_scales: false"},
      {"some", quantize(kInt2, ", targets: [up_proj, down_proj]"), ""},
      {"both ends",
       quantize("bits: 4, group_size: 32",
                ", targets: [Linear, embed_tokens, lm_head]"),
       ""},
  };
  for (const Case& c : cases) {
    const RunReport report =
        run(distill(", steps: 3, learning_rate: 3e-5, quantization_aware: {" +
                    c.aware + "}") +
                "," + c.quantize,
            "out");
    const VariantReport& variant = report.variants[0];
    const double trained = variant.training[0].after.divergence;
    EXPECT_NE(trained, variant.training[0].before.divergence) << c.name;
    // A step of fp8 inputs is 1/16 of them: where one turns over, it shows.
    const double bound = std::string(c.name) == "fp8" ? 3e-4 : 1e-5;
    EXPECT_NEAR(loss_of("out"), trained, bound + 5e-3 * trained) << c.name;
    EXPECT_EQ(
        std::ranges::count(variant.layers, "trained", &LayerReport::method),
        std::string(c.name) == "some"        ? 8
        : std::string(c.name) == "both ends" ? 29
                                             : 28)
        << c.name;
    fs::remove_all(path("out"));
  }
}

TEST_F(RecoveryRun, TrainsThroughARoundedCache) {
  const auto divergence = [&](const std::string& cache) {
    const RunReport report = run(
        distill(
            ", steps: 4, learning_rate: 3e-5, quantization_aware: {kv_cache: " +
            cache + "}") +
            "," + quantize("bits: 8, group_size: 32"),
        cache);
    return report.variants[0].training[0];
  };
  const TrainingReport coarse = divergence("int4"), plain = divergence("f32");
  EXPECT_GT(coarse.before.divergence, 3 * plain.before.divergence);
  EXPECT_LT(coarse.after.divergence, coarse.before.divergence);
}

TEST_F(RecoveryRun, AwareTrainingEndsInTheSameBytes) {
  const std::string stages =
      distill(", steps: 5, checkpoint_every: 2, quantization_aware: {}") + "," +
      quantize(kInt2);
  run(stages, "one", 1);
  const std::string whole = read_file(path("one") / "model.safetensors");
  interrupt(stages, 4);
  run(stages, "out", 3);
  EXPECT_TRUE(read_file(path("out") / "model.safetensors") == whole);
}

TEST_F(RecoveryRun, RefusesAwarenessOfWhatDoesNotFollow) {
  const std::string aware = distill(", steps: 1, quantization_aware: {}");
  expect_refused(aware, "without a 'quantize' stage");
  expect_refused(aware + "," + quantize(kInt2, ", method: gptq"),
                 "leave 'method' out");
  expect_refused(aware + ",{rotate: {}}," + quantize(kInt2),
                 "trained for their grid");
  expect_refused(aware + "," + quantize("type: mxfp4"), "learn_scales: false");
  // The shipped model's head is tied.
  expect_refused(aware + "," + quantize(kInt2, ", targets: [Linear, lm_head]"),
                 "'lm_head' is tied to 'model.embed_tokens'");
  expect_refused(
      aware + ",{prune: {method: magnitude, sparsity: 0.5}}," + quantize(kInt2),
      "behind that training");
}

}  // namespace
}  // namespace llmpress
