#include "formats/tokenizers/added_tokens.h"

#include <gtest/gtest.h>

namespace llmpress {
namespace {

// "text" for a stretch of text, "#7:<s>" for token 7.
std::vector<std::string> parts(const AddedTokenFinder& finder,
                               std::string_view text) {
  std::vector<std::string> out;
  for (const auto& part : finder.split(text)) {
    std::string& shown = out.emplace_back();
    if (part.id) shown.append("#").append(std::to_string(*part.id)).append(":");
    shown += part.text;
  }
  return out;
}
using Texts = std::vector<std::string>;

TEST(AddedTokenFinder, TakesTheLongestOfTheLeftmost) {
  const AddedTokenFinder finder({{.id = 1, .content = "<a"},
                                 {.id = 2, .content = "<a>"},
                                 {.id = 3, .content = "a>b"}});
  EXPECT_EQ(parts(finder, "x<a>b<aa>b"),
            (Texts{"x", "#2:<a>", "b", "#1:<a", "#3:a>b"}));
  EXPECT_EQ(parts(finder, "plain"), Texts{"plain"});
  EXPECT_EQ(parts(finder, ""), Texts{});
}

TEST(AddedTokenFinder, StripsWhiteSpaceOnTheSidesItIsToldTo) {
  const AddedTokenFinder finder({{.id = 1, .content = "<l>", .lstrip = true},
                                 {.id = 2, .content = "<r>", .rstrip = true}});
  EXPECT_EQ(parts(finder, "a \u00A0<l> b"),
            (Texts{"a", "#1: \u00A0<l>", " b"}));
  EXPECT_EQ(parts(finder, "a <r> \n b"), (Texts{"a ", "#2:<r> \n ", "b"}));
  EXPECT_EQ(parts(finder, "<r>  <l>"), (Texts{"#2:<r>  ", "#1:<l>"}));
}

TEST(AddedTokenFinder, ASingleWordIsNotFoundInsideOne) {
  const AddedTokenFinder finder(
      {{.id = 1, .content = "ing", .single_word = true}});
  EXPECT_EQ(parts(finder, "ing sing ings -ing. \u00E9ing"),
            (Texts{"#1:ing", " sing ings -", "#1:ing", ". \u00E9ing"}));
}

}  // namespace
}  // namespace llmpress
