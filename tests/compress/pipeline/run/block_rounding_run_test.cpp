// Methods that learn block by block, as stages of a run.
#include <gtest/gtest.h>

#include <string>

#include "compress/core/error.h"
#include "compress/pipeline/run/run.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/containers/tensor_io.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

std::string stage(const std::string& method, const std::string& more) {
  return "[{quantize: {method: " + method +
         ", weights: {bits: 2, group_size: 32, range: minmax}" + more + "}}]";
}
// With settings of its section.
std::string learned(const std::string& method, const std::string& settings) {
  return stage(method, ", " + method + ": {batch_size: 2, " + settings + "}");
}
const char* const kMethods[] = {"autoround", "efficientqat", "omniquant"};

class BlockRoundingRun : public testing::Test {
 protected:
  fs::path path(const std::string& name) { return directory_.path() / name; }
  RunReport run(const std::string& stages, const std::string& out,
                std::size_t threads = 2, const RunOptions& options = {}) {
    ThreadPool pool(threads);
    return run_recipe(small_recipe(stages, path(out), kEvaluate), options,
                      pool);
  }

  const std::string kEvaluate =
      "evaluate: {text: " + shipped("text/evaluation.txt").string() +
      ", context: 64, max_windows: 8}\n";
  TemporaryDirectory directory_;
};

TEST_F(BlockRoundingRun, DivergesLessThanRoundingToNearest) {
  const auto divergence = [&](const std::string& stages,
                              const std::string& out) {
    return run(stages, out).variants[0].divergence->kl_mean;
  };
  const double nearest = divergence(stage("rtn", ""), "rtn");
  for (const std::string method : kMethods) {
    EXPECT_LT(divergence(learned(method, "iterations: 24"), method),
              0.95 * nearest)
        << method;
  }
}

TEST_F(BlockRoundingRun, WritesTheSameBytesAtAnyThreadCount) {
  const std::string stages[] = {
      learned("autoround", "iterations: 2"),
      learned("autoround", "iterations: 2, start: gptq"),
      learned("efficientqat", "iterations: 2, start: gptq"),
      learned("omniquant", "iterations: 2")};
  for (const std::string& of_method : stages) {
    run(of_method, "one", 1);
    run(of_method, "three", 3);
    for (const char* file : {"model.safetensors", "config.json"}) {
      EXPECT_TRUE(read_file(path("one") / file) ==
                  read_file(path("three") / file))
          << of_method;
    }
    fs::remove_all(path("one"));
    fs::remove_all(path("three"));
  }
}

// OmniQuant's moves scales too: the model as it was must stay what it was.
TEST_F(BlockRoundingRun, EndsInTheSameBytesAfterAnInterruption) {
  const RunOptions stops{.progress = [](const ProgressEvent& event) {
    if (event.phase.starts_with("compress") && event.done == 2) {
      throw Error(ErrorCode::kCancelled, "stop");
    }
  }};
  for (const std::string method : kMethods) {
    const std::string stages = learned(method, "iterations: 4");
    run(stages, "out");
    const std::string whole = read_file(path("out") / "model.safetensors");
    fs::remove_all(path("out"));
    EXPECT_THROW(run(stages, "out", 2, stops), Error);
    EXPECT_TRUE(fs::exists(path("out.resume") / "block-00000"));
    run(stages, "out");
    EXPECT_TRUE(read_file(path("out") / "model.safetensors") == whole)
        << method;
    fs::remove_all(path("out"));
  }
}

TEST_F(BlockRoundingRun, MovesScalesFromNormsAsTheRecipeSays) {
  const auto norm = [&](const std::string& settings, const std::string& out) {
    run(learned("omniquant", settings), out);
    const auto checkpoint = open_checkpoint(path(out));
    return read_vector(checkpoint->tensors(),
                       "model.layers.2.post_attention_layernorm.weight", 256);
  };
  const auto original = open_checkpoint(shipped("tinystories-3.7m"));
  const auto before =
      read_vector(original->tensors(),
                  "model.layers.2.post_attention_layernorm.weight", 256);
  EXPECT_EQ(norm("iterations: 12, transformation_rate: 0", "kept"), before);
  EXPECT_NE(norm("iterations: 12", "moved"), before);
}

}  // namespace
}  // namespace llmpress
