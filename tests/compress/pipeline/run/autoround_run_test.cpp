// Rounding that is learned block by block, as a stage of a run.
#include <gtest/gtest.h>

#include <string>

#include "compress/core/error.h"
#include "compress/pipeline/run/run.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

std::string stage(const std::string& method, const std::string& more) {
  return "[{quantize: {method: " + method +
         ", weights: {bits: 2, group_size: 32, range: minmax}" + more + "}}]";
}
const std::string kFew = ", autoround: {iterations: 2, batch_size: 2}";

class AutoRoundRun : public testing::Test {
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

TEST_F(AutoRoundRun, DivergesLessThanRoundingToNearest) {
  const auto divergence = [&](const std::string& stages,
                              const std::string& out) {
    return run(stages, out).variants[0].divergence->kl_mean;
  };
  const double nearest = divergence(stage("rtn", ""), "rtn");
  EXPECT_LT(divergence(stage("autoround",
                             ", autoround: {iterations: 12, batch_size: 2}"),
                       "learned"),
            0.9 * nearest);
}

TEST_F(AutoRoundRun, WritesTheSameBytesAtAnyThreadCount) {
  for (const char* start : {"rtn", "gptq"}) {
    const std::string stages = stage(
        "autoround", ", autoround: {iterations: 2, batch_size: 2, start: " +
                         std::string(start) + "}");
    run(stages, "one", 1);
    run(stages, "three", 3);
    for (const char* file : {"model.safetensors", "config.json"}) {
      EXPECT_TRUE(read_file(path("one") / file) ==
                  read_file(path("three") / file))
          << start;
    }
    fs::remove_all(path("one"));
    fs::remove_all(path("three"));
  }
}

TEST_F(AutoRoundRun, EndsInTheSameBytesAfterAnInterruption) {
  run(stage("autoround", kFew), "out");
  const std::string whole = read_file(path("out") / "model.safetensors");
  fs::remove_all(path("out"));
  const RunOptions stops{.progress = [](const ProgressEvent& event) {
    if (event.phase.starts_with("compress") && event.done == 2) {
      throw Error(ErrorCode::kCancelled, "stop");
    }
  }};
  EXPECT_THROW(run(stage("autoround", kFew), "out", 2, stops), Error);
  EXPECT_TRUE(fs::exists(path("out.resume") / "block-00000"));
  run(stage("autoround", kFew), "out");
  EXPECT_TRUE(read_file(path("out") / "model.safetensors") == whole);
}

}  // namespace
}  // namespace llmpress
