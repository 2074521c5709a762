// bench and synth, and --activations of the commands that run models.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "formats/checkpoints/artifact_writer.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

class SpeedCommands : public ::testing::Test {
 protected:
  std::string at(const std::string& name) const {
    return (tmp_.path() / name).string();
  }

  int run(const std::string& arguments) {
    const std::string command = program() + " " + arguments + " --quiet >" +
                                at("stdout") + " 2>" + at("stderr");
    const int status = std::system(command.c_str());
    message_ = read_file(at("stderr"));
    return WEXITSTATUS(status);
  }

  nlohmann::json json(const std::string& name) {
    return nlohmann::json::parse(read_file(at(name)));
  }

  nlohmann::json eval(const std::string& model, const std::string& options) {
    EXPECT_EQ(run("eval " + model + " --text " + models_ +
                  "/text/evaluation.txt --context 128 --max-windows 4 --json " +
                  at("eval.json") + options),
              0)
        << message_;
    return json("eval.json");
  }

  const std::string models_ = source_dir() + "/models";
  const std::string model_ = models_ + "/tinystories-3.7m";
  TemporaryDirectory tmp_;
  std::string message_;
};

TEST_F(SpeedCommands, BenchMeasuresEveryRowThatWasAskedFor) {
  ASSERT_EQ(run("bench -p 16,32 -n 4 -b 1,3 -r 2 " + model_ + " --json " +
                at("b.json")),
            0)
      << message_;
  const auto b = json("b.json");
  ASSERT_EQ(b["rows"].size(), 6u);
  for (const auto& row : b["rows"]) {
    EXPECT_GT(row["tokens_per_second"].get<double>(), 0);
    EXPECT_LE(row["lowest"], row["tokens_per_second"]);
    EXPECT_LE(row["tokens_per_second"], row["highest"]);
  }
  EXPECT_EQ(b["rows"][4]["sequences"], 3);
  EXPECT_EQ(b["rows"][4]["tokens"], 32);
  EXPECT_FALSE(b["integer_activations"]);
  for (const char* limit :
       {"read_bytes_per_second", "float_operations_per_second",
        "int8_operations_per_second"}) {
    EXPECT_GT(b[limit].get<double>(), 1e8) << limit;
  }
  // 3 145 728 weights in the blocks' Linears, 2048 x 256 in the head.
  EXPECT_EQ(b["operations_per_token"], 2.0 * (3145728 + 2048 * 256));
  EXPECT_GE(b["bytes_per_token"], 4 * (3145728 + 2048 * 256));
  EXPECT_LE(b["bytes_per_token"], b["weight_bytes"]);
}

TEST_F(SpeedCommands, BenchRefusesMoreThanTheModelHolds) {
  EXPECT_EQ(run("bench -p 100000 " + model_), 2);
  EXPECT_NE(message_.find("positions"), std::string::npos) << message_;
}

TEST_F(SpeedCommands, SynthWritesAModelThatEveryCommandTakes) {
  ASSERT_EQ(
      run("synth --like qwen3-0.6b --layers 1 --vocabulary 512 --output " +
          at("q")),
      0)
      << message_;
  const std::string config = read_file(at("q/config.json"));
  EXPECT_NE(config.find("bfloat16"), std::string::npos);
  EXPECT_EQ(run("verify " + at("q")), 0) << message_;
  write_file_atomically(at("text.txt"), "What octets are, the model reads.");
  ASSERT_EQ(run("eval " + at("q") + " --text " + at("text.txt") +
                " --context 16 --json " + at("e.json")),
            0)
      << message_;
  // Weights of deviation 0.02 know nothing.
  EXPECT_NEAR(json("e.json")["nll"].get<double>(), std::log(512.0), 0.5);
  EXPECT_EQ(json("e.json")["tokens"], 33);
}

TEST_F(SpeedCommands, SynthDependsOnTheSeedAndNotOnThreads) {
  const std::string shape =
      "synth --like qwen3-0.6b --layers 1 --vocabulary 512 ";
  ASSERT_EQ(run(shape + "--threads 1 --output " + at("a")), 0) << message_;
  ASSERT_EQ(run(shape + "--threads 3 --output " + at("b")), 0) << message_;
  ASSERT_EQ(run(shape + "--seed 1 --output " + at("c")), 0) << message_;
  const auto hash = [&](const std::string& name) {
    return sha256_of_file(at(name + "/model.safetensors"));
  };
  EXPECT_EQ(hash("a"), hash("b"));
  EXPECT_NE(hash("a"), hash("c"));
}

TEST_F(SpeedCommands, SynthNamesItsShapes) {
  EXPECT_EQ(run("synth --like llama-9b --output " + at("x")), 2);
  EXPECT_NE(message_.find("llama-1.1b"), std::string::npos) << message_;
  EXPECT_FALSE(std::filesystem::exists(at("x")));
}

TEST_F(SpeedCommands, RoundedActivationsAreNamedAndNearlyTheSame) {
  write_file_atomically(at("r.yaml"),
                        "model: " + model_ + "\noutput: {path: " + at("w4") +
                            "}\nstages:\n  - quantize: {method: rtn, weights: "
                            "{bits: 4, group_size: 32}}\n");
  ASSERT_EQ(run("run " + at("r.yaml")), 0) << message_;
  const auto exact = eval(at("w4"), ""),
             rounded = eval(at("w4"), " --activations int8");
  EXPECT_EQ(exact["activations"], "as stored");
  EXPECT_EQ(rounded["activations"], "rounded to int8 by blocks of 128");
  const double ratio =
      rounded["perplexity"].get<double>() / exact["perplexity"].get<double>();
  EXPECT_NE(ratio, 1);
  EXPECT_NEAR(ratio, 1, 2e-3);
  EXPECT_EQ(
      run("eval " + at("w4") + " --isa scalar --activations int8 --text " +
          models_ + "/text/evaluation.txt"),
      2);
  EXPECT_NE(message_.find("scalar"), std::string::npos) << message_;
}

TEST_F(SpeedCommands, PrepackedWeightsSayTheSame) {
  std::filesystem::copy(model_, at("m"));
  const std::string file = at("m/llmpress.prepacked");
  const auto before = eval(at("m"), "");
  EXPECT_FALSE(std::filesystem::exists(file));
  const auto first = eval(at("m"), " --prepack");
  ASSERT_TRUE(std::filesystem::exists(file));
  const auto written = std::filesystem::last_write_time(file);
  EXPECT_EQ(first["nll"], before["nll"]);
  EXPECT_EQ(eval(at("m"), " --prepack")["nll"], before["nll"]);
  EXPECT_EQ(eval(at("m"),
                 " --prepack --memory-limit 90MiB --scratch " + at(""))["nll"],
            before["nll"]);
  const auto text = [&](const std::string& options) {
    EXPECT_EQ(run("generate " + at("m") + " --prompt Once -n 8" + options), 0)
        << message_;
    return read_file(at("stdout"));
  };
  EXPECT_EQ(text(" --prepack"), text(""));
  const auto logits = [&](const std::string& options) {
    EXPECT_EQ(run("logits " + at("m") + " --ids 5,6,7 --output " +
                  at("l.safetensors") + options),
              0)
        << message_;
    return read_file(at("l.safetensors"));
  };
  EXPECT_TRUE(logits(" --prepack") == logits(""));
  EXPECT_EQ(run("bench -p 16 -n 0 -r 1 --prepack " + at("m")), 0) << message_;
  EXPECT_EQ(std::filesystem::last_write_time(file), written);
}

TEST_F(SpeedCommands, PrepackIsRefusedWhereWeightsAreNeededAsStored) {
  EXPECT_EQ(run("generate " + model_ + " --prompt a --prepack --isa scalar"),
            2);
  EXPECT_NE(message_.find("scalar"), std::string::npos) << message_;
  EXPECT_EQ(run("generate " + model_ + " --prompt a --prepack --adapter x"), 2);
  EXPECT_NE(message_.find("adapters"), std::string::npos) << message_;
  EXPECT_FALSE(std::filesystem::exists(model_ + "/llmpress.prepacked"));
}

}  // namespace
}  // namespace llmpress
