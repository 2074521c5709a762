// The convert command on the shipped model, and GGUF where commands take models.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "formats/checkpoints/artifact_writer.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

class ConvertCommand : public ::testing::Test {
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

  double perplexity(const std::string& model) {
    EXPECT_EQ(run("eval " + model + " --text " + models_ +
                  "/text/evaluation.txt --context 128 --max-windows 4 --json " +
                  at("eval.json")),
              0)
        << message_;
    const auto json = nlohmann::json::parse(read_file(at("eval.json")));
    return json["perplexity"].get<double>();
  }

  const std::string models_ = source_dir() + "/models";
  const std::string model_ = models_ + "/tinystories-3.7m";
  TemporaryDirectory tmp_;
  std::string message_;
};

TEST_F(ConvertCommand, GgufComputesWhatTheFolderDoes) {
  ASSERT_EQ(run("convert " + model_ + " " + at("m.gguf") + " --format gguf"), 0)
      << message_;
  EXPECT_EQ(perplexity(at("m.gguf")), perplexity(model_));
  ASSERT_EQ(run("convert " + at("m.gguf") + " " + at("back") +
                " --format safetensors"),
            0)
      << message_;
  EXPECT_EQ(perplexity(at("back")), perplexity(model_));
  EXPECT_EQ(sha256_of_file(at("back") + "/model.safetensors"),
            sha256_of_file(model_ + "/model.safetensors"));
}

TEST_F(ConvertCommand, RoundsAndIsTakenByOtherCommands) {
  ASSERT_EQ(run("convert " + model_ + " " + at("m.gguf") +
                " --format gguf --type q8_0"),
            0)
      << message_;
  EXPECT_NEAR(perplexity(at("m.gguf")) / perplexity(model_), 1, 2e-3);
  EXPECT_EQ(run("inspect " + at("m.gguf")), 0) << message_;
  EXPECT_NE(read_file(at("stdout")).find("q8_0"), std::string::npos);
  EXPECT_EQ(run("verify " + at("m.gguf") + " --against " + model_), 0)
      << message_;
  EXPECT_EQ(run("generate " + at("m.gguf") +
                " --prompt 'Once upon' --max-new-tokens 4"),
            0)
      << message_;
}

TEST_F(ConvertCommand, ARecipeWritesGgufByThreeMethods) {
  double nearest = 0;
  for (const char* method : {"rtn", "imatrix", "gptq"}) {
    write_file_atomically(
        at("r.yaml"),
        "model: " + model_ + "\ncalibration: {text: " + models_ +
            "/text/calibration.txt, samples: 8, sequence_length: 64}\n" +
            "stages:\n  - quantize: {method: " + method +
            ", weights: {type: q2_k}}\noutput: {path: " + at("q2.gguf") +
            ", format: gguf}\n");
    ASSERT_EQ(run("run " + at("r.yaml")), 0) << message_;
    const double found = perplexity(at("q2.gguf"));
    if (method == std::string("rtn")) nearest = found;
    EXPECT_LE(found, nearest) << method;
  }
}

TEST_F(ConvertCommand, RefusesWhatItCannotDo) {
  const std::string to = " " + at("x.gguf") + " --format gguf";
  EXPECT_EQ(run("convert " + model_ + to + " --type q4"), 2);
  EXPECT_NE(message_.find("q4_K"), std::string::npos) << message_;
  EXPECT_EQ(run("convert " + model_ + to + " --type q8_k"), 2);
  EXPECT_EQ(run("convert " + model_ + " " + at("x") +
                " --format safetensors --type q4_0"),
            2);
  EXPECT_EQ(run("convert " + at("nowhere") + to), 3);
  EXPECT_FALSE(fs::exists(at("x.gguf")));
}

}  // namespace
}  // namespace llmpress
