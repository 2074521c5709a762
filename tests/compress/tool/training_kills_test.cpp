// Training that is killed at twenty moments, at calls that change files and at
// any time between them, and started again: it ends in the bytes of a run that
// nobody disturbed. Wants -D LLMPRESS_FAILURE_INJECTION=ON.
#ifdef LLMPRESS_INJECTOR

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/safetensors.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kKills = 20;
constexpr int kKilled = 128 + SIGKILL;

struct Kind {
  std::string name, stage, output;
};

void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

class TrainingKills : public testing::TestWithParam<Kind> {
 protected:
  TrainingKills() {
    const TinyShape shape{.vocabulary = 2048};
    const fs::path shipped = source_dir() + "/models/tinystories-3.7m";
    fs::create_directories(at("in/base"));
    fs::create_directories(at("work"));
    write_file_atomically(at("in/base/config.json"), config_json(shape));
    write_file_atomically(
        at("in/base/model.safetensors"),
        write_safetensors(named_tensors(tiny_tensors(shape, 1)), {}));
    fs::copy(shipped / "tokenizer.json", at("in/base"));
    fs::copy(shipped / "tokenizer_config.json", at("in/base"));
    Rng rng(2);
    const std::string words[] = {"cat", "dog", "ran", "sat", "saw", "the"};
    std::string text;
    for (int i = 0; i < 1500; ++i) text += words[rng.below(6)] + " ";
    write_file_atomically(at("in/text.txt"), text);
    write_file_atomically(at("in/r.yaml"),
                          "model: base\nstages:\n  - " + GetParam().stage +
                              "\noutput: {path: ../work/out, format: " +
                              GetParam().output + "}\n");
  }

  fs::path at(const std::string& name) const { return tmp_.path() / name; }

  // The exit code, or 128 + signal.
  int run(const std::string& before) const {
    const std::string command =
        "cd " + at("in").string() + " && exec " + before + " " + program() +
        " run r.yaml --quiet --threads 1 >" + at("stdout").string() + " 2>" +
        at("stderr").string();
    const int status = std::system(command.c_str());
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

  std::string inject(const std::string& fault) const {
    return "env LD_PRELOAD=" LLMPRESS_INJECTOR " LLMPRESS_INJECT=" + fault +
           " LLMPRESS_INJECT_BELOW=" + tmp_.path().string() +
           " LLMPRESS_INJECT_COUNTS=" + at("counts").string();
  }

  // Everything that a run leaves, but for how long it took.
  std::map<std::string, std::string> left() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(at("work"))) {
      const std::string name =
          entry.path().lexically_relative(at("work")).string();
      if (entry.is_directory() || name.ends_with("training.json")) {
        files[name];
      } else {
        files[name] = read_file(entry.path());
      }
    }
    return files;
  }

  std::size_t file_calls() const {
    std::ifstream lines(at("counts"));
    std::string kind;
    std::size_t n = 0;
    while (lines >> kind >> n) {
      if (kind == "kill") return n;
    }
    return 0;
  }

  TemporaryDirectory tmp_;
};

TEST_P(TrainingKills, EndInTheBytesOfAnUndisturbedRun) {
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(run(inject("count:0")), 0) << read_file(at("stderr"));
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  const auto wanted = left();
  const std::size_t calls = file_calls();
  ASSERT_GT(calls, 10u);
  Rng rng(7);
  std::size_t killed = 0, resumed = 0;
  for (std::size_t i = 0; i < kKills; ++i) {
    fs::remove_all(at("work"));
    fs::create_directories(at("work"));
    const std::string how =
        i % 2 == 0
            ? inject(formatted("kill:{}", 1 + rng.below(calls)))
            : formatted("timeout -s KILL {:.3f}", rng.uniform() * seconds);
    const int code = run(how);
    ASSERT_TRUE(code == 0 || code == kKilled) << how << ": " << code;
    if (code == kKilled) ++killed;
    if (fs::exists(at("work/out.resume/trained-0.training/last.safetensors"))) {
      ++resumed;
    }
    ASSERT_EQ(run(""), 0) << how << ": " << read_file(at("stderr"));
    // Not EXPECT_EQ, which would print them.
    EXPECT_TRUE(left() == wanted) << how;
  }
  // A moment behind the end, on a machine that is faster now, kills nothing.
  EXPECT_GT(killed, kKills / 2);
  EXPECT_GT(resumed, 0u);
}

const std::string kTraining =
    "text: text.txt, steps: 12, sequence_length: 32, batch_size: 4, "
    "learning_rate: 1e-3, evaluate_every: 4, evaluate_sequences: 4, "
    "checkpoint_every: 2";

INSTANTIATE_TEST_SUITE_P(
    Stages, TrainingKills,
    testing::Values(
        Kind{"train", "train: {" + kTraining + ", dropout: 0.1}",
             "safetensors"},
        Kind{"distill",
             "distill: {" + kTraining +
                 ", student: {every: 2}, hidden: 0.5, on_policy: 0.3, "
                 "on_policy_prompt: 8}",
             "safetensors"},
        Kind{"distill_stored",
             "distill: {" + kTraining +
                 ", student: {every: 2}, top_k: 8, teacher_cache: "
                 "../work/teacher.h5}",
             "safetensors"},
        Kind{"tune", "tune: {" + kTraining + ", rank: 2}", "safetensors"}),
    [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace llmpress

#endif
