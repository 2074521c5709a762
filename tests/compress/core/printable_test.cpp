#include "compress/core/printable.h"

#include <gtest/gtest.h>

namespace llmpress {
namespace {

TEST(Printable, KeepsTextOfAnyLanguage) {
  const std::string text = "a.weight \"x\" \\ é 語 🙂 ± ‖";
  EXPECT_EQ(printable(text), text);
  EXPECT_EQ(printable(""), "");
}

TEST(Printable, WritesOutWhatSteersATerminal) {
  EXPECT_EQ(printable("\x1b[2J\x07"), "\\u001b[2J\\u0007");
  EXPECT_EQ(printable("a\nb\rc\td\x7f"), "a\\u000ab\\u000dc\\u0009d\\u007f");
  EXPECT_EQ(printable(std::string_view("\0", 1)), "\\u0000");
  // CSI as one C1 character.
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "\\u009b31m");
  EXPECT_EQ(printable("a\nb\tc", "\n\t"), "a\nb\tc");
}

TEST(Printable, WritesOutMarksOfDirection) {
  EXPECT_EQ(printable("a\u202eb\u2066c\u061cd\u2028"),
            "a\\u202eb\\u2066c\\u061cd\\u2028");
}

TEST(Printable, WritesOutOctetsThatAreNotUtf8) {
  EXPECT_EQ(printable("a\xff\x9b"), "a\\xff\\x9b");
  EXPECT_EQ(printable("\xc0\x9b"), "\\xc0\\x9b");           // too long a form
  EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // a surrogate
  EXPECT_EQ(printable("\xe2\x80"), "\\xe2\\x80");           // cut off
  EXPECT_EQ(printable("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");
}

}  // namespace
}  // namespace llmpress
