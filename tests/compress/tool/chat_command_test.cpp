// generate --chat and inspect of a model with a chat template.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
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

class ChatCommand : public testing::Test {
 protected:
  ChatCommand() { fs::copy(shipped_, model_); }

  Outcome run(const std::string& arguments, const std::string& input = "") {
    write_file_atomically(path("in"), input);
    const std::string command =
        program() + " " + arguments + " <" + path("in").string() + " >" +
        path("out").string() + " 2>" + path("err").string();
    const int status = std::system(command.c_str());
    return {WEXITSTATUS(status), read_file(path("out")),
            read_file(path("err"))};
  }
  fs::path path(const std::string& name) { return directory_.path() / name; }
  void set_template(const std::string& text) {
    write_file_atomically(model_ / "chat_template.jinja", text);
  }
  std::string chat(const std::string& more) {
    return "generate " + model_.string() + " --chat -n 12 --quiet " + more;
  }

  TemporaryDirectory directory_;
  const fs::path shipped_ = source_dir() + "/models/tinystories-3.7m";
  const fs::path model_ = directory_.path() / "model";
};

TEST_F(ChatCommand, AnswersWhatTheTemplateWrites) {
  const std::string told = "Once upon a time";
  const Outcome plain = run("generate " + shipped_.string() + " -n 12 --quiet" +
                            " --prompt '" + told + "'");
  ASSERT_EQ(plain.code, 0) << plain.err;
  // BOS comes from the template, once.
  set_template(
      "{{ bos_token }}{{ messages | map(attribute='content') | join }}");
  const Outcome answer = run(chat("--prompt '" + told + "'"));
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_EQ(told + answer.out, plain.out);
  const Outcome system = run(chat("--system 'Once upon' --prompt ' a time'"));
  EXPECT_EQ(system.out, answer.out) << system.err;
}

TEST_F(ChatCommand, EveryLineOfStdinIsAMessageOfOneConversation) {
  set_template(
      "{{ bos_token }}{{ messages[-1].content }}{% if messages | length > 1 %}"
      "{{ raise_exception(messages[1].role ~ messages | length) }}{% endif %}");
  const Outcome outcome = run(chat(""), "Once\n\nTwice\n");
  EXPECT_EQ(outcome.code, 3);
  EXPECT_GT(outcome.out.size(), 10u) << "the first answer";
  EXPECT_NE(outcome.err.find("assistant3"), std::string::npos) << outcome.err;
}

TEST_F(ChatCommand, WithoutATemplateOrPromptItIsRefused) {
  const Outcome none = run(chat("--prompt x"));
  EXPECT_EQ(none.code, 3);
  EXPECT_NE(none.err.find("has no chat template"), std::string::npos);
  EXPECT_EQ(run("generate " + model_.string()).code, 2);
  EXPECT_EQ(run("generate " + model_.string() + " -p x --system y").code, 2);
  set_template("{% include 'x' %}");
  const Outcome broken = run(chat("--prompt x"));
  EXPECT_EQ(broken.code, 3);
  EXPECT_NE(broken.err.find("chat_template.jinja: line 1, column 4: "),
            std::string::npos)
      << broken.err;
}

TEST_F(ChatCommand, InspectSaysWhereTheTemplateIs) {
  const std::string inspect = "inspect " + model_.string() + " --quiet";
  EXPECT_EQ(run(inspect).out.find("chat template"), std::string::npos);
  set_template("x");
  EXPECT_NE(run(inspect).out.find("chat template: in " + model_.string() +
                                  "/chat_template.jinja\n"),
            std::string::npos);
  EXPECT_NE(run(inspect + " --json").out.find("\"chat_template\": true"),
            std::string::npos);
}

}  // namespace
}  // namespace llmpress
