#include "formats/tokenizers/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "tests/formats/tokenizers/tiny_tokenizer.h"

namespace llmpress {
namespace {

using Texts = std::vector<std::string>;
using nlohmann::json;

Texts split(const json& tree, std::string_view text, bool at_start = true) {
  const JsonDocument document(tree.dump(), "tokenizer.json");
  const TextPieces pieces = PreTokenizer(document.root()).split(text, at_start);
  return {pieces.pieces.begin(), pieces.pieces.end()};
}

json byte_level(bool add_prefix_space) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}};
}

// The examples of Hugging Face's documentation of ByteLevel.
TEST(PreTokenizer, ByteLevelCutsAsDocumented) {
  EXPECT_EQ(split(byte_level(false), "Hello my friend, how is your day going?"),
            (Texts{"Hello", " my", " friend", ",", " how", " is", " your",
                   " day", " going", "?"}));
  EXPECT_EQ(split(byte_level(true), "Hello there"),
            (Texts{" Hello", " there"}));
  EXPECT_EQ(split(byte_level(true), " Hello"), (Texts{" Hello"}));
  EXPECT_EQ(split(byte_level(false), "Hello there\nHello there"),
            (Texts{"Hello", " there", "\n", "Hello", " there"}));
  EXPECT_EQ(split(byte_level(false), "Hello there       dear"),
            (Texts{"Hello", " there", "      ", " dear"}));
  EXPECT_EQ(split(byte_level(false), "i\u2B62j"), (Texts{"i", "\u2B62", "j"}));
}

TEST(PreTokenizer, Gpt2KeepsContractionsNumbersAndRunsOfSpaceTogether) {
  EXPECT_EQ(
      split(byte_level(false), "I'll can't I'LL 1000 x\u00B2  \n\n  end  "),
      (Texts{"I", "'ll", " can", "'t", " I", "'", "LL", " 1000", " x", "\u00B2",
             "  \n\n ", " end", "  "}));
  EXPECT_EQ(split(byte_level(false), "\u00E9t\u00E9 \u4E2D\u6587 \U0001F600!"),
            (Texts{"\u00E9t\u00E9", " \u4E2D\u6587", " \U0001F600!"}));
}

TEST(PreTokenizer, Llama3CutsDigitsByThreesAndNewlinesByRuns) {
  const json llama3 = testing::split_then_bytes(testing::kLlama3Pattern);
  EXPECT_EQ(split(llama3, "I'LL pay $12345.67\n\n  now!!\n 3\u00BD ok"),
            (Texts{"I", "'LL", " pay", " $", "123", "45", ".", "67", "\n\n",
                   " ", " now", "!!\n", " ", "3\u00BD", " ok"}));
  EXPECT_EQ(split(llama3, "a \r\n \n b\t\tc  "),
            (Texts{"a", " \r\n \n", " b", "\t", "\tc", "  "}));
  // A combining accent is no letter: it leads the letters after it.
  EXPECT_EQ(split(llama3, "(hi) e\u0301cole \U0001F44D\U0001F3FD"),
            (Texts{"(hi", ")", " e", "\u0301cole", " \U0001F44D\U0001F3FD"}));
}

json split_by(const std::string& behavior, bool invert = false) {
  return {{"type", "Split"},
          {"pattern", {{"String", "-"}}},
          {"behavior", behavior},
          {"invert", invert}};
}

// The table of Hugging Face's documentation of SplitDelimiterBehavior.
TEST(PreTokenizer, SplitHasFiveBehaviors) {
  const std::string text = "the-final--countdown";
  EXPECT_EQ(split(split_by("Removed"), text),
            (Texts{"the", "final", "countdown"}));
  EXPECT_EQ(split(split_by("Isolated"), text),
            (Texts{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split(split_by("MergedWithPrevious"), text),
            (Texts{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(split(split_by("MergedWithNext"), text),
            (Texts{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(split(split_by("Contiguous"), text),
            (Texts{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(split(split_by("Removed", true), text), (Texts{"-", "-", "-"}));
}

TEST(PreTokenizer, DigitsStandAloneOrTogether) {
  EXPECT_EQ(split({{"type", "Digits"}, {"individual_digits", true}}, "a12 3"),
            (Texts{"a", "1", "2", " ", "3"}));
  EXPECT_EQ(split({{"type", "Digits"}}, "a12 3"), (Texts{"a", "12", " ", "3"}));
}

TEST(PreTokenizer, MetaspacePutsItsPrefixWhereTheSchemeSays) {
  const auto metaspace = [](const char* scheme) {
    return json{{"type", "Metaspace"},
                {"replacement", "▁"},
                {"prepend_scheme", scheme}};
  };
  EXPECT_EQ(split(metaspace("always"), "Hey  you", false),
            (Texts{"▁Hey", "▁", "▁you"}));
  EXPECT_EQ(split(metaspace("always"), " Hey"), (Texts{"▁Hey"}));
  EXPECT_EQ(split(metaspace("first"), "Hey you"), (Texts{"▁Hey", "▁you"}));
  EXPECT_EQ(split(metaspace("first"), "Hey you", false),
            (Texts{"Hey", "▁you"}));
  EXPECT_EQ(split(metaspace("never"), "Hey you"), (Texts{"Hey", "▁you"}));
  json whole = metaspace("always");
  whole["split"] = false;
  EXPECT_EQ(split(whole, "Hey you"), (Texts{"▁Hey▁you"}));
  EXPECT_EQ(split({{"type", "Metaspace"},
                   {"replacement", "▁"},
                   {"add_prefix_space", false}},
                  "Hey"),
            (Texts{"Hey"}));
}

TEST(PreTokenizer, NothingComesOfNothing) {
  EXPECT_EQ(split(byte_level(true), ""), Texts{});
  EXPECT_EQ(split(split_by("Isolated"), ""), Texts{});
}

TEST(PreTokenizer, BytesAreSpelledWhereAnotherStepFollows) {
  EXPECT_EQ(split({{"type", "Sequence"},
                   {"pretokenizers",
                    {byte_level(false),
                     {{"type", "Digits"}, {"individual_digits", true}}}}},
                  "a 12"),
            (Texts{"a", "\u0120", "1", "2"}));
}

TEST(PreTokenizer, UnknownKindsAreNamedWithTheirPlace) {
  const auto refused = [](const json& tree) -> std::string {
    try {
      split(tree, "x");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      return error.what();
    }
    return "accepted";
  };
  EXPECT_TRUE(refused({{"type", "Sequence"},
                       {"pretokenizers", {{{"type", "FixedLength"}}}}})
                  .starts_with("tokenizer.json: /pretokenizers/0/type: "
                               "pre-tokenizer 'FixedLength'"));
  EXPECT_NE(refused(split_by("Sideways")).find("/behavior"), std::string::npos);
}

}  // namespace
}  // namespace llmpress
