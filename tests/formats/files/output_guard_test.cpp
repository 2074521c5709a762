#include "formats/files/output_guard.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/safetensors.h"
#include "formats/files/atomic_file.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

class Guard : public testing::Test {
 protected:
  Guard() {
    put("model/config.json");
    put("model/sub/side.txt");
    put("blobs/weights");
    fs::create_symlink("../blobs/weights", at("model/model.safetensors"));
    put("texts/text.txt");
    fs::create_directory_symlink("model", at("link"));
    fs::create_hard_link(at("texts/text.txt"), at("hard.json"));
  }
  fs::path at(const std::string& name) const { return tmp_.path() / name; }
  void put(const std::string& name, const std::string& content = "x") const {
    fs::create_directories(at(name).parent_path());
    write_file_atomically(at(name), content);
  }
  void write_artifact(const std::string& name,
                      const std::string& format = "safetensors") const {
    const auto writer =
        make_artifact_writer({.output = at(name), .format = format});
    writer->add_file("side.txt", "carried");
    writer->finish("{}");
  }

  std::vector<InputPath> inputs() const {
    return {{"the model", at("model")}, {"the text", at("texts/text.txt")}};
  }
  // The message, or nothing.
  std::string refusal(const std::vector<OutputPath>& outputs) const {
    try {
      check_outputs(inputs(), outputs);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument) << e.what();
      return e.what();
    }
    return {};
  }
  std::string refusal(const std::string& name,
                      OutputKind kind = OutputKind::kFolder) const {
    return refusal({{"the output", at(name), kind}});
  }

  TemporaryDirectory tmp_;
};

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(Guard, NoOutputIsHoldsLiesInOrIsLinkedToAnInput) {
  for (const char* same : {"model", "model/", "model/.", "link", "link/.",
                           "absent/../model", "texts/../link"}) {
    EXPECT_TRUE(has(refusal(same), "would replace the model")) << same;
  }
  EXPECT_TRUE(has(refusal("model/new"), "lies in the model"));
  EXPECT_TRUE(has(refusal("link/new/deep"), "lies in the model"));
  EXPECT_TRUE(has(refusal("."), "holds the model"));
  EXPECT_TRUE(has(refusal("texts"), "holds the text"));
  EXPECT_TRUE(has(refusal("blobs"), "links to")) << "holds a linked weight";
  for (const char* file : {"texts/text.txt", "hard.json", "model/config.json",
                           "link/sub/side.txt", "blobs/weights"}) {
    EXPECT_NE(refusal(file, OutputKind::kJsonFile), "") << file;
  }
  EXPECT_TRUE(has(refusal("model/report", OutputKind::kReport), "lies in"));
  EXPECT_TRUE(has(refusal("texts", OutputKind::kReport), "holds"));
  EXPECT_EQ(refusal("new"), "");
  EXPECT_EQ(refusal("texts/new"), "") << "beside an input is not over it";
  EXPECT_EQ(refusal("model2", OutputKind::kReport), "");
}

TEST_F(Guard, AnOutputWhoseFilesAreLinksToAnInputIsRefused) {
  write_artifact("out");
  fs::remove(at("out/side.txt"));
  fs::create_hard_link(at("model/sub/side.txt"), at("out/side.txt"));
  EXPECT_TRUE(has(refusal("out"), "is a link to the input"));
}

TEST_F(Guard, OutputsAreApart) {
  const auto pair = [&](const OutputPath& a, const OutputPath& b) {
    return refusal({a, b});
  };
  const OutputPath out{"the output", at("out")};
  EXPECT_TRUE(has(pair(out, {"another", at("x/../out/.")}), "is also"));
  EXPECT_TRUE(has(pair(out, {"another", at("out/below")}), "lies in"));
  EXPECT_TRUE(has(pair({"another", at("out/below")}, out), "holds"));
  EXPECT_NE(pair(out, {"the report", at("out/r"), OutputKind::kReport}), "");
  EXPECT_NE(pair(out, {"--json", at("out/x.json"), OutputKind::kJsonFile}), "");
  // A report replaces its own files only.
  const OutputPath report{"the report", at("all"), OutputKind::kReport};
  EXPECT_EQ(pair(report, {"the output", at("all/out")}), "");
  EXPECT_NE(pair(report, {"the output", at("all/report.md")}), "");
  EXPECT_NE(
      pair(report, {"--json", at("all/report.json"), OutputKind::kJsonFile}),
      "");
}

TEST_F(Guard, OnlyWhatLlmpressWroteIsReplaced) {
  put("foreign/config.json", "{}");
  EXPECT_TRUE(has(refusal("foreign"), "not an output of llmpress"));
  put("foreign/llmpress.json", R"({"llmpress_version": 1, "files": []})");
  EXPECT_TRUE(has(refusal("foreign"), "not an output of llmpress"));
  fs::create_directories(at("empty"));
  EXPECT_EQ(refusal("empty"), "");
  write_artifact("out");
  EXPECT_EQ(refusal("out"), "");
  fs::remove(at("out/side.txt"));
  EXPECT_EQ(refusal("out"), "");
  fs::create_directories(at("out/.git/objects"));
  EXPECT_TRUE(has(refusal("out"), "'.git'")) << refusal("out");
  fs::remove_all(at("out/.git"));
  fs::create_symlink("/etc/hostname", at("out/side.txt"));
  EXPECT_TRUE(has(refusal("out"), "'side.txt'"));
  fs::remove(at("out/side.txt"));
  put("out/notes.txt");
  EXPECT_TRUE(has(refusal("out"), "'notes.txt'"));
}

TEST_F(Guard, WeightsLaidOutInAFolderGoWithIt) {
  write_artifact("out");
  const std::string mark(kVersionKey);
  put("out/llmpress.prepacked", write_safetensors({}, {{mark, "0"}}));
  put("out/.llmpress.prepacked.llmpress-lock");  // of a killed program
  put("out/llmpress.prepacked.partial-1-0/llmpress.prepacked");
  EXPECT_EQ(refusal("out"), "");
  put("out/llmpress.prepacked", write_safetensors({}, {}));
  EXPECT_TRUE(has(refusal("out"), "llmpress.prepacked")) << refusal("out");
  put("out/llmpress.prepacked", "notes of somebody");
  EXPECT_TRUE(has(refusal("out"), "llmpress.prepacked")) << refusal("out");
  fs::remove(at("out/llmpress.prepacked"));
  put("out/deep/llmpress.prepacked", write_safetensors({}, {{mark, "0"}}));
  EXPECT_TRUE(has(refusal("out"), "'deep'")) << refusal("out");
}

TEST_F(Guard, AFolderThatGotAForeignFileMeanwhileIsKept) {
  write_artifact("out");
  const auto writer = make_artifact_writer({.output = at("out")});
  put("out/notes.txt");
  EXPECT_THROW(writer->finish("{}"), Error);
  EXPECT_TRUE(fs::exists(at("out/notes.txt")));
}

TEST_F(Guard, OnlyFilesOfLlmpressAreReplaced) {
  write_artifact("out.h5", "hdf5");
  EXPECT_EQ(refusal("out.h5", OutputKind::kHdf5File), "");
  EXPECT_NE(refusal("out.h5", OutputKind::kJsonFile), "");
  EXPECT_NE(refusal("out.h5", OutputKind::kFolder), "");
  put("x.h5", "\x89HDF\r\n\x1a\n and more");
  EXPECT_NE(refusal("x.h5", OutputKind::kHdf5File), "");
  const auto json = [&](const std::string& content) {
    put("x.json", content);
    return refusal("x.json", OutputKind::kJsonFile);
  };
  EXPECT_EQ(json(""), "");
  EXPECT_EQ(json(marked_json(R"({"perplexity": 3})")), "");
  EXPECT_NE(json("{}"), "");
  EXPECT_NE(json("[1]"), "");
  EXPECT_NE(json("notes"), "");
  EXPECT_EQ(refusal({{"--json", "/dev/null", OutputKind::kJsonFile}}), "");
}

TEST_F(Guard, OnlyReportsAndBlocksOfLlmpressAreReplaced) {
  put("r/other.txt");
  EXPECT_EQ(refusal("r", OutputKind::kReport), "");
  put("r/report.md");
  EXPECT_NE(refusal("r", OutputKind::kReport), "");
  put("r/report.json", marked_json("{}"));
  EXPECT_EQ(refusal("r", OutputKind::kReport), "");
  put("s/block-00000/x");
  put("s/linears-00001/0");
  EXPECT_NE(refusal("s", OutputKind::kResume), "");
  put("s/fingerprint", std::string(kResumeMark) + "abc");
  EXPECT_EQ(refusal("s", OutputKind::kResume), "");
  put("s/thesis.tex");
  EXPECT_TRUE(has(refusal("s", OutputKind::kResume), "thesis.tex"));
}

TEST_F(Guard, TheSecondRunIsRefusedNamingTheFirst) {
  const std::vector<OutputPath> outputs{{"the output", at("new/out")}};
  const std::string lock = at("new/.out.llmpress-lock").string();
  {
    const OutputGuard first({}, outputs);
    try {
      const OutputGuard second({}, {{"the output", at("new/./out/")}});
      FAIL() << "not refused";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kIo);
      EXPECT_TRUE(has(e.what(), formatted("process {}", ::getpid())));
    }
    EXPECT_TRUE(fs::exists(lock));
  }
  EXPECT_FALSE(fs::exists(at("new"))) << "made, not used, and gone again";
}

TEST_F(Guard, ALockEndsWithItsProcess) {
  const std::vector<OutputPath> outputs{{"the output", at("out")}};
  const pid_t child = ::fork();
  if (child == 0) {
    const OutputGuard guard({}, outputs);
    ::_exit(0);  // no destructor
  }
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(fs::exists(at(".out.llmpress-lock")));
  { const OutputGuard guard({}, outputs); }
  EXPECT_FALSE(fs::exists(at(".out.llmpress-lock")));
}

TEST_F(Guard, AFileOfTheLocksNameThatIsNoLockIsKept) {
  put(".out.llmpress-lock", "precious");
  EXPECT_THROW(OutputGuard({}, {{"the output", at("out")}}), Error);
  EXPECT_EQ(read_file(at(".out.llmpress-lock")), "precious");
}

TEST_F(Guard, LeftoversOfOthersAreNamedAndLeftAlone) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give files away";
  put("out.partial-1-0/spool");
  ASSERT_EQ(::chown(at("out.partial-1-0").c_str(), 12345, 12345), 0);
  const OutputGuard guard({}, {{"the output", at("out")}});
  ASSERT_EQ(guard.notes().size(), 1u);
  EXPECT_TRUE(has(guard.notes()[0], "out.partial-1-0"));
  EXPECT_TRUE(fs::exists(at("out.partial-1-0/spool")));
}

TEST_F(Guard, OutputsHaveTheRightsThatTheUsersMaskLeaves) {
  for (const mode_t mask : {0022u, 0002u, 0077u}) {
    const mode_t before = ::umask(mask);
    const std::string name = "out" + std::to_string(mask);
    write_artifact(name);
    write_artifact(name + ".h5", "hdf5");
    write_file_atomically(at(name + ".json"), "{}");
    ::umask(before);
    const auto rights = [&](const std::string& path) {
      struct stat status {};
      EXPECT_EQ(::stat(at(path).c_str(), &status), 0);
      return status.st_mode & 0777u;
    };
    EXPECT_EQ(rights(name), 0777u & ~mask);
    for (const char* file : {"/config.json", "/model.safetensors", "/side.txt",
                             "/llmpress.json", ".h5", ".json"}) {
      EXPECT_EQ(rights(name + file), 0666u & ~mask) << file;
    }
  }
}

}  // namespace
}  // namespace llmpress
