#include "compress/tool/chat.h"

#include <gtest/gtest.h>

#include "formats/checkpoints/artifact_writer.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

std::optional<TokenId> turn_end(const std::string& behind_an_answer) {
  static const auto tokenizer =
      load_tokenizer(source_dir() + "/models/tinystories-3.7m");
  const TemporaryDirectory folder;
  write_file_atomically(folder.path() / "chat_template.jinja",
                        "{% for m in messages %}{{ m.content }}{% if m.role == "
                        "'assistant' %}" +
                            behind_an_answer + "{% endif %}{% endfor %}");
  return Chat(folder.path(), *tokenizer).turn_end();
}

TEST(Chat, ATurnEndsAtTheMarkerBehindAnAnswer) {
  EXPECT_EQ(turn_end("</s>\n"), 2u);
  EXPECT_EQ(turn_end(" \n</s>"), 2u);
  EXPECT_EQ(turn_end("<unk></s>"), 0u);
}

TEST(Chat, ATurnWithoutMarkerHasNoEnd) {
  EXPECT_EQ(turn_end(""), std::nullopt);
  EXPECT_EQ(turn_end("\n"), std::nullopt);
  EXPECT_EQ(turn_end(". </s>"), std::nullopt) << "the answer may go on";
  EXPECT_EQ(turn_end("{{ raise_exception('no') }}"), std::nullopt);
}

}  // namespace
}  // namespace llmpress
