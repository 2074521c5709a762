// The program as a user runs it: exit codes, streams and messages.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "formats/checkpoints/artifact_writer.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int code = -1;
  std::string out{}, err{};
};

class CommandLine : public testing::Test {
 protected:
  Outcome run(const std::string& arguments) {
    const fs::path out = directory_.path() / "stdout";
    const fs::path err = directory_.path() / "stderr";
    const std::string command = program() + " " + arguments + " >" +
                                out.string() + " 2>" + err.string();
    const int status = std::system(command.c_str());
    return {WEXITSTATUS(status), read_file(out), read_file(err)};
  }
  fs::path path(const std::string& name) { return directory_.path() / name; }
  fs::path write(const std::string& name, const std::string& content) {
    write_file_atomically(path(name), content);
    return path(name);
  }

  TemporaryDirectory directory_;
  const std::string model_ = source_dir() + "/models/tinystories-3.7m";
  const std::string text_ = source_dir() + "/models/text/evaluation.txt";
};

TEST_F(CommandLine, EverySubcommandHasHelpWithAnExample) {
  for (const char* command :
       {"run", "plan", "eval", "compare", "inspect", "verify", "generate"}) {
    const Outcome outcome = run(std::string(command) + " --help");
    EXPECT_EQ(outcome.code, 0) << command;
    EXPECT_NE(outcome.out.find("Example:"), std::string::npos) << command;
    EXPECT_NE(outcome.out.find("--threads"), std::string::npos) << command;
  }
}

TEST_F(CommandLine, WrongUsageIsExitCodeTwo) {
  EXPECT_EQ(run("").code, 2);
  EXPECT_EQ(run("eval").code, 2);
  EXPECT_EQ(run("eval " + model_ + " --text " + text_ + " --contxt 64").code,
            2);
  EXPECT_EQ(run("eval " + model_ + " --text " + text_ + " --protocol x").code,
            2);
}

TEST_F(CommandLine, ATypoInARecipeIsExitCodeTwoWithItsPlace) {
  const fs::path recipe =
      write("r.yaml",
            "model: m\nstages:\n  - quantize:\n      method: rtn\n"
            "      weights: {bitz: 4}\noutput: {path: o}\n");
  const Outcome outcome = run("run " + recipe.string());
  EXPECT_EQ(outcome.code, 2);
  EXPECT_NE(outcome.err.find("r.yaml:5:"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("did you mean 'bits'"), std::string::npos)
      << outcome.err;
  EXPECT_FALSE(fs::exists(path("o")));
}

TEST_F(CommandLine, AMissingModelIsExitCodeThree) {
  const Outcome outcome =
      run("eval " + path("nowhere").string() + " --text " + text_);
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.err.find("nowhere"), std::string::npos);
  EXPECT_TRUE(outcome.out.empty());
}

TEST_F(CommandLine, ATextShorterThanAWindowIsExitCodeThree) {
  const fs::path text = write("short.txt", "A dog.");
  const Outcome outcome = run("eval " + model_ + " --text " + text.string());
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.err.find("shorter than one window"), std::string::npos);
}

TEST_F(CommandLine, EvalPrintsOnlyJsonOnStdout) {
  const Outcome outcome = run("eval " + model_ + " --text " + text_ +
                              " --context 64 --max-windows 2 --json -");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto json = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(json["windows"], 2);
  EXPECT_EQ(json["bits_per_weight"], 32.0);
}

TEST_F(CommandLine, EvaluatesBlockByBlockUnderAMemoryLimit) {
  const std::string command = "eval " + model_ + " --text " + text_ +
                              " --context 64 --max-windows 80 --json -";
  const Outcome refused = run(command + " --memory-limit 1MiB");
  EXPECT_EQ(refused.code, 4);
  const std::size_t at = refused.err.find(" MiB, the smallest");
  ASSERT_NE(at, std::string::npos) << refused.err;
  const std::size_t begin = refused.err.rfind(' ', at - 1) + 1;
  const std::string least = refused.err.substr(begin, at - begin);
  fs::create_directory(path("states"));
  const Outcome held = run(command + " --memory-limit " + least +
                           "MiB --scratch " + path("states").string());
  ASSERT_EQ(held.code, 0) << held.err;
  EXPECT_NE(held.err.find("block by block"), std::string::npos) << held.err;
  EXPECT_TRUE(fs::is_empty(path("states")));
  const auto nll = [](const std::string& json) {
    return nlohmann::json::parse(json)["nll"].get<double>();
  };
  EXPECT_EQ(nll(held.out), nll(run(command).out));
}

TEST_F(CommandLine, RunsARecipeAndInspectsWhatItWrote) {
  const fs::path recipe =
      write("r.yaml", "stages:\n  - quantize: {method: rtn, scheme: W4A16}\n");
  const std::string output = path("w4").string();
  Outcome outcome = run("run " + recipe.string() + " --model " + model_ +
                        " --output " + output + " --quiet");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(outcome.err.empty()) << outcome.err;
  outcome = run("inspect " + output + " --json");
  ASSERT_EQ(outcome.code, 0);
  const auto json = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(json["format"], "compressed-tensors");
  // Symmetric int4 in groups of 128 with f16 scales.
  EXPECT_DOUBLE_EQ(json["linear_bits_per_weight"].get<double>(), 4.125);
  EXPECT_EQ(run("verify " + output + " --against " + model_).code, 0);
}

TEST_F(CommandLine, PlanRunsNothing) {
  const fs::path recipe =
      write("r.yaml", "stages:\n  - quantize: {method: rtn, scheme: W4A16}\n");
  const Outcome outcome = run("plan " + recipe.string() + " --model " + model_ +
                              " --output " + path("w4").string());
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("model.layers.3.mlp.down_proj"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(path("w4")));
}

TEST_F(CommandLine, GeneratesTheSameGreedyTextTwice) {
  const std::string command =
      "generate " + model_ + " --prompt \"Once upon a time\" -n 12 --quiet";
  const Outcome first = run(command);
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_TRUE(first.out.starts_with("Once upon a time")) << first.out;
  EXPECT_GT(first.out.size(), 25u);
  EXPECT_EQ(run(command).out, first.out);
}

TEST_F(CommandLine, AMemoryLimitThatCannotBeMetIsExitCodeFour) {
  const fs::path recipe =
      write("r.yaml", "stages:\n  - quantize: {method: rtn, scheme: W4A16}\n");
  const Outcome outcome =
      run("run " + recipe.string() + " --model " + model_ + " --output " +
          path("o").string() + " --memory-limit 1MiB");
  EXPECT_EQ(outcome.code, 4);
  EXPECT_FALSE(fs::exists(path("o")));
}

TEST_F(CommandLine, NumbersOutOfRangeAndEmptyValuesAreExitCodeTwo) {
  const std::string eval = "eval " + model_ + " --text " + text_;
  const std::string generate = "generate " + model_ + " --prompt x";
  for (const char* option :
       {"--threads -1", "--threads 1e3", "--context -1", "--context 1",
        "--max-windows=-5", "--max-windows 1.5", "--stride 0", "--json ''",
        "--isa ''", "--context 99999999999999999999"}) {
    EXPECT_EQ(run(eval + " " + option).code, 2) << option;
  }
  for (const char* option :
       {"-n -1", "--temperature nan", "--temperature -1", "--top-k=-1",
        "--top-p 0", "--beams 0", "--seed -1", "--repetition-penalty 0",
        "--adapter ''"}) {
    const Outcome outcome = run(generate + " " + option);
    EXPECT_EQ(outcome.code, 2) << option;
    EXPECT_EQ(outcome.out, "") << option;
  }
  EXPECT_EQ(run("eval " + model_ + " --text ''").code, 2);
  EXPECT_EQ(run("merge " + model_ + " a --output ''").code, 2);
  EXPECT_EQ(run("inspect ''").code, 2);
  const fs::path recipe = write("r.yaml", "stages: []\n");
  for (const char* size : {"-1", "0", "nan", "''", "1e30GiB"}) {
    EXPECT_EQ(run("plan " + recipe.string() + " --memory-limit=" + size).code,
              2)
        << size;
  }
}

TEST_F(CommandLine, MoreThreadsThanTheMachineCanUseAreFewerAndSaidSo) {
  const Outcome outcome = run("inspect " + model_ + " --threads 100000");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.err.find("--threads 100000: more than"), std::string::npos)
      << outcome.err;
}

TEST_F(CommandLine, ResultsThatCannotBeWrittenAreAnError) {
  const std::string inspect = program() + " inspect " + model_ + " 2>/dev/null";
  const auto code = [](const std::string& command) {
    return WEXITSTATUS(std::system(command.c_str()));
  };
  EXPECT_EQ(code(inspect + " >/dev/full"), 3);
  EXPECT_EQ(code(inspect + " >&-"), 3);
  EXPECT_EQ(code(inspect + " >/dev/null <&-"), 0);
  EXPECT_EQ(code(program() + " --help >/dev/full"), 3);
}

TEST_F(CommandLine, PipesAndFoldersWhereFilesAreWantedAreExitCodeThree) {
  const std::string pipe = path("pipe").string(), folder = path("folder");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  fs::create_directory(folder);
  for (const std::string& odd : {pipe, folder, std::string("/dev/zero")}) {
    for (const std::string& command :
         {"eval " + model_ + " --text " + odd, "inspect " + odd,
          "run " + odd + " --model " + model_ + " --output o",
          "merge " + model_ + " " + odd + " --output o"}) {
      const Outcome outcome = run(command);
      EXPECT_EQ(outcome.code, 3) << command << outcome.err;
      EXPECT_NE(outcome.err.find(odd), std::string::npos) << outcome.err;
    }
  }
}

TEST_F(CommandLine, WhatMayNotBeReadIsExitCodeThreeWithItsPath) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  fs::copy(model_, path("model"));
  for (const char* name :
       {"config.json", "model.safetensors", "tokenizer.json", "."}) {
    const fs::path denied = *name == '.' ? path("model") : path("model") / name;
    const fs::perms before = fs::status(denied).permissions();
    fs::permissions(denied, fs::perms::none);
    const Outcome outcome =
        run("eval " + path("model").string() + " --text " + text_);
    fs::permissions(denied, before);
    EXPECT_EQ(outcome.code, 3) << name;
    EXPECT_NE(outcome.err.find("Permission denied"), std::string::npos)
        << outcome.err;
    EXPECT_NE(outcome.err.find(path("model").string()), std::string::npos)
        << outcome.err;
  }
}

TEST_F(CommandLine, ControlCharactersOfAFileReachNoTerminal) {
  const fs::path recipe =
      write("r.yaml", "stages: [{quantize: {method: \"\\e]0;x\\a\"}}]\n");
  Outcome outcome = run("plan " + recipe.string() + " --model " + model_);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err.find_first_of("\x1b\x07"), std::string::npos);
  EXPECT_NE(outcome.err.find("\\u001b]0;x\\u0007"), std::string::npos)
      << outcome.err;
  fs::copy(model_, path("m\x1b[31m"));
  outcome = run("inspect '" + path("m\x1b[31m").string() + "'");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.out.find("m\\u001b[31m"), std::string::npos);
}

}  // namespace
}  // namespace llmpress
