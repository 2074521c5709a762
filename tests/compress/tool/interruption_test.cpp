// A run that is stopped by a signal to its process, and started again.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <string>
#include <thread>

#include "formats/checkpoints/artifact_writer.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

class Interruption : public testing::TestWithParam<int> {
 protected:
  fs::path path(const std::string& name) { return directory_.path() / name; }

  pid_t start(const fs::path& output, const std::string& method = "gptq") {
    const std::string models = source_dir() + "/models";
    write_file_atomically(
        path("recipe.yaml"),
        "model: " + models + "/tinystories-3.7m\ncalibration: {text: " +
            models + "/text/calibration.txt, samples: 12, sequence_length: " +
            "256}\nstages: [{quantize: {method: " + method +
            ", weights: {bits: 4, group_size: 32}}}]\n");
    const std::string recipe = path("recipe.yaml").string();
    const std::string target = output.string();
    const pid_t child = fork();
    if (child == 0) {
      execl(program().c_str(), program().c_str(), "run", recipe.c_str(),
            "--output", target.c_str(), "--quiet", "--threads", "1",
            static_cast<char*>(nullptr));
      _exit(127);
    }
    return child;
  }

  static int wait_for(pid_t child) {
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return status;
  }

  static std::map<std::string, std::string> files(const fs::path& folder) {
    std::map<std::string, std::string> all;
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      if (name != "recipe.yaml") all[name] = read_file(entry.path());
    }
    return all;
  }

  TemporaryDirectory directory_;
};

TEST_P(Interruption, LeavesNoOutputAndIsTakenUpToTheSameBytes) {
  const pid_t child = start(path("out"));
  while (!fs::exists(path("out.resume") / "block-00000")) {
    ASSERT_EQ(waitpid(child, nullptr, WNOHANG), 0) << "ended too early";
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_EQ(kill(child, GetParam()), 0);
  const int status = wait_for(child);
  EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_FALSE(fs::exists(path("out")));
  EXPECT_TRUE(fs::exists(path("out.resume") / "block-00000"));

  EXPECT_EQ(wait_for(start(path("out"))), 0);
  EXPECT_FALSE(fs::exists(path("out.resume")));
  EXPECT_EQ(wait_for(start(path("whole"))), 0);
  EXPECT_EQ(files(path("out")), files(path("whole")));
}

class SwiftEnd : public Interruption {};

// AWQ tries 20 scales and as many clips for each group between two blocks.
TEST_P(SwiftEnd, ComesWithinASecondInsideABlock) {
  for (const int milliseconds : {50, 400, 900}) {
    const pid_t child = start(path("out"), "awq");
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    ASSERT_EQ(kill(child, GetParam()), 0);
    const auto before = std::chrono::steady_clock::now();
    const int status = wait_for(child);
    // One second, and one more for a busy machine.
    EXPECT_LT(std::chrono::steady_clock::now() - before,
              std::chrono::seconds(2));
    EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) != 130);
    EXPECT_FALSE(fs::exists(path("out")));
  }
}

std::string signal_name(const testing::TestParamInfo<int>& signal) {
  return signal.param == SIGINT ? "Interrupt" : "Kill";
}

INSTANTIATE_TEST_SUITE_P(Signals, SwiftEnd, testing::Values(SIGINT, SIGTERM),
                         [](const auto& signal) {
                           return std::string(
                               signal.param == SIGINT ? "Interrupt" : "End");
                         });
INSTANTIATE_TEST_SUITE_P(Signals, Interruption,
                         testing::Values(SIGINT, SIGKILL), signal_name);

}  // namespace
}  // namespace llmpress
