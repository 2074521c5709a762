// Every command that writes, told to write where it must not.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "formats/checkpoints/artifact_writer.h"
#include "formats/files/output_guard.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

class OutputCommands : public testing::Test {
 protected:
  OutputCommands() {
    const fs::path models = source_dir() + "/models";
    fs::copy(models / "tinystories-3.7m", at("model"));
    fs::create_directory_symlink("model", at("link"));
    fs::create_directories(at("adapter"));
    write_file_atomically(at("adapter/adapter_config.json"), "{}");
    fs::copy(models / "text/evaluation.txt", at("text.txt"));
    write_file_atomically(at("r.yaml"),
                          "model: model\nstages: [{quantize: {method: rtn, "
                          "weights: {bits: 4, group_size: 32}}}]\n");
  }
  fs::path at(const std::string& name) const { return tmp_.path() / name; }

  int run(const std::string& arguments) {
    const std::string command =
        "cd " + tmp_.path().string() + " && " + program() + " " + arguments +
        " --quiet >/dev/null 2>" + at("stderr").string();
    const int status = std::system(command.c_str());
    message_ = read_file(at("stderr"));
    fs::remove(at("stderr"));
    return WEXITSTATUS(status);
  }

  std::map<std::string, std::string> files() const {
    std::map<std::string, std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(tmp_.path())) {
      all[entry.path().string()] =
          entry.is_regular_file() ? sha256_of_file(entry.path()) : "";
    }
    return all;
  }

  TemporaryDirectory tmp_;
  std::string message_;
};

TEST_F(OutputCommands, EachRefusesItsInputsBeforeItWorks) {
  const auto before = files();
  const std::string eval = "eval model --text text.txt --context 64 --json ";
  const std::string compare = "compare model model --text text.txt ";
  for (const std::string& command :
       {std::string("run r.yaml --output model/"),
        std::string("plan r.yaml --output model/."),
        std::string("run r.yaml --output link"),
        std::string("run r.yaml --model link --output model"),
        std::string("run r.yaml --output ../") +
            tmp_.path().filename().string() + "/model",
        std::string("run r.yaml --output ."),
        std::string("run r.yaml --output model/w4"),
        std::string("run r.yaml --output out --json model/config.json"),
        std::string("run r.yaml --output out --json r.yaml"),
        std::string("run r.yaml --output out --set report=link"),
        std::string("run r.yaml --output out --set report=out/report"),
        std::string("plan r.yaml --output out --set report=model/report"),
        std::string("merge model adapter --output link"),
        std::string("merge model adapter --output adapter"),
        std::string("merge model adapter --output ."),
        std::string("unmerge model adapter --output model/"),
        std::string("extract model model --output link/x --rank 1"),
        std::string("extract model model --output x --rank 1 --json link/x"),
        eval + "text.txt",
        eval + "link/tokenizer.json",
        eval + "model/x.json",
        compare + "--report model",
        compare + "--report link/report",
        compare + "--report .",
        std::string("logits model --ids 5 --output model/x"),
        std::string("logits model --ids 5 --output model/model.safetensors")}) {
    EXPECT_EQ(run(command), 2) << command << ": " << message_;
    EXPECT_NE(message_.find("choose another path"), std::string::npos)
        << command << ": " << message_;
    EXPECT_EQ(files(), before) << command;
  }
}

TEST_F(OutputCommands, EachRefusesToReplaceWhatIsNotItsOwn) {
  fs::create_directories(at("mine/.git"));
  write_file_atomically(at("mine/config.json"), "{}");
  write_file_atomically(at("x.json"), "{}");
  fs::create_directories(at("out.resume/thesis"));
  const auto before = files();
  for (const std::string command :
       {"run r.yaml --output mine", "plan r.yaml --output mine",
        "merge model adapter --output mine", "run r.yaml --output x.json",
        "extract model model --output mine --rank 1", "run r.yaml --output out",
        "run r.yaml --output o --json x.json",
        "eval model --text text.txt --json mine",
        "logits model --ids 5 --output x.json"}) {
    EXPECT_EQ(run(command), 2) << command << ": " << message_;
    EXPECT_NE(message_.find("not replaced"), std::string::npos) << message_;
    EXPECT_EQ(files(), before) << command;
  }
}

TEST_F(OutputCommands, ASecondRunIsToldWhoIsWriting) {
  const OutputGuard first({}, {{"the output", at("out")}});
  EXPECT_EQ(run("run r.yaml --output out/"), 3);
  EXPECT_NE(message_.find("another run (llmpress"), std::string::npos)
      << message_;
  EXPECT_NE(message_.find("process " + std::to_string(::getpid())),
            std::string::npos);
}

TEST_F(OutputCommands, AnOutputOfOursIsReplacedUntilSomethingIsAdded) {
  ASSERT_EQ(run("run r.yaml --output out --json x.json"), 0) << message_;
  ASSERT_EQ(run("run r.yaml --output out/ --json x.json"), 0) << message_;
  write_file_atomically(at("out/notes.txt"), "mine");
  EXPECT_EQ(run("run r.yaml --output out"), 2);
  EXPECT_NE(message_.find("notes.txt"), std::string::npos) << message_;
  EXPECT_EQ(read_file(at("out/notes.txt")), "mine");
}

}  // namespace
}  // namespace llmpress
