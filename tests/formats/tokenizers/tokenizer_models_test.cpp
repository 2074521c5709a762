// Every kind of model, normalizer, pre-tokenizer and decoder of tokenizer.json.
// golden/tokenizers.json holds small tokenizers and what the `tokenizers` library
// makes of texts; bench/tokenizers/compare_models.py --golden writes it.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/files/base64.h"
#include "formats/files/mapped_file.h"
#include "formats/tokenizers/tokenizer.h"
#include "tests/places.h"

namespace llmpress {
namespace {

using Ids = std::vector<TokenId>;
using nlohmann::json;

std::unique_ptr<Tokenizer> make(const json& tree) {
  return tokenizer_from_json(tree.dump(), {}, "toy");
}

TEST(TokenizerModels, GiveTheLibrarysIdsAndTexts) {
  const json golden = json::parse(read_file(
      source_dir() + "/tests/formats/tokenizers/golden/tokenizers.json"));
  ASSERT_GE(golden["tokenizers"].size(), 45u);
  for (const json& entry : golden["tokenizers"]) {
    const auto tokenizer = make(entry["tokenizer"]);
    ASSERT_EQ(entry["answers"].size(), golden["texts"].size());
    for (std::size_t i = 0; i < golden["texts"].size(); ++i) {
      const auto text = golden["texts"][i].get<std::string>();
      const Ids ids = tokenizer->encode(text);
      EXPECT_EQ(ids, entry["answers"][i]["ids"].get<Ids>())
          << entry["name"] << ": " << golden["texts"][i];
      EXPECT_EQ(tokenizer->decode(ids),
                entry["answers"][i]["text"].get<std::string>())
          << entry["name"] << ": " << golden["texts"][i];
    }
  }
}

using Pieces = std::vector<std::pair<std::string, double>>;
// JSON's own lists of pairs would be objects.
json unigram(const Pieces& pieces) {
  json vocab = json::array();
  for (const auto& [text, score] : pieces) {
    vocab.push_back(json::array({text, score}));
  }
  return {{"model", {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", vocab}}}};
}

TEST(UnigramTokenizer, TakesTheCutOfTheLargestSum) {
  // ab + c = -3, a + bc = -2.5, a + b + c = -6.
  const Pieces vocab = {{"?", 0},  {"a", -2},  {"b", -2},
                        {"c", -2}, {"ab", -1}, {"bc", -0.5}};
  EXPECT_EQ(make(unigram(vocab))->kind, "unigram");
  EXPECT_EQ(make(unigram(vocab))->encode("abc"), (Ids{1, 5}));
  Pieces equal = vocab;  // ab + c = a + bc: the one found first, ab, stays
  equal[5].second = -1;
  EXPECT_EQ(make(unigram(equal))->encode("abc"), (Ids{1, 5}))
      << "the way through bc reaches the end before the one through c";
}

TEST(UnigramTokenizer, UnknownCostsTenMoreThanTheWorstToken) {
  // The long token is -11.5 against a + unknown = -1 + (-2 - 10) = -13.
  const Pieces vocab = {{"?", 0}, {"a", -1}, {"b", -2}, {"ax", -2}};
  EXPECT_EQ(make(unigram(vocab))->encode("ax"), (Ids{3}));
  Pieces worse = vocab;  // now the smallest is -14, unknown -24
  worse[3].second = -14;
  EXPECT_EQ(make(unigram(worse))->encode("ax"), (Ids{3}));
  EXPECT_EQ(make(unigram(vocab))->encode("axyz"), (Ids{3, 0}));
  EXPECT_EQ(make(unigram(vocab))->encode("zzazz"), (Ids{0, 1, 0}));
}

TEST(UnigramTokenizer, WithoutAnUnknownTokenTheTextIsRefused) {
  json tree = unigram({{"a", -1.0}});
  tree["model"].erase("unk_id");
  EXPECT_EQ(make(tree)->encode("aa"), (Ids{0, 0}));
  EXPECT_THROW(make(tree)->encode("ab"), Error);
}

TEST(WordPieceTokenizer, TakesTheLongestTokenAndDoesNotLookBack) {
  json tree = {{"pre_tokenizer", {{"type", "Whitespace"}}},
               {"model",
                {{"type", "WordPiece"},
                 {"unk_token", "?"},
                 {"max_input_chars_per_word", 5},
                 {"vocab",
                  {{"?", 0},
                   {"a", 1},
                   {"ab", 2},
                   {"##bc", 3},
                   {"##c", 4},
                   {"##d", 5}}}}}};
  const auto toy = make(tree);
  EXPECT_EQ(toy->kind, "wordpiece");
  EXPECT_EQ(toy->encode("abc a"), (Ids{2, 4, 1}));
  EXPECT_EQ(toy->encode("abbc"), (Ids{2, 3}));
  EXPECT_EQ(toy->encode("abb"), (Ids{0})) << "no token for the rest";
  EXPECT_EQ(toy->encode("acccc"), (Ids{1, 4, 4, 4, 4}));
  EXPECT_EQ(toy->encode("accccc"), (Ids{0})) << "six characters";
  tree["model"].erase("unk_token");
  EXPECT_THROW(make(tree)->encode("b"), Error);
}

TEST(WordPieceTokenizer, TheClassTokenStandsBeforeADocument) {
  const json tree = {
      {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
      {"post_processor",
       {{"type", "BertProcessing"},
        {"sep", json::array({"[S]", 2})},
        {"cls", json::array({"[C]", 1})}}},
      {"model",
       {{"type", "WordPiece"},
        {"unk_token", "?"},
        {"vocab", {{"?", 0}, {"[C]", 1}, {"[S]", 2}, {"a", 3}, {",", 4}}}}}};
  const auto toy = make(tree);
  EXPECT_TRUE(toy->adds_bos);
  EXPECT_EQ(toy->encode_document("a,a"), (Ids{1, 3, 4, 3}));
}

TEST(Base64, DecodesWholeGroupsOnly) {
  EXPECT_EQ(decode_base64(""), "");
  EXPECT_EQ(decode_base64("TWFu"), "Man");
  EXPECT_EQ(decode_base64("TWE="), "Ma");
  EXPECT_EQ(decode_base64("TQ=="), "M");
  EXPECT_EQ(decode_base64("+/8="), "\xFB\xFF");
  for (const char* broken : {"TQ", "TQ=", "T===", "TW=u", "TW u", "TWF\n"}) {
    EXPECT_FALSE(decode_base64(broken)) << broken;
  }
}

}  // namespace
}  // namespace llmpress
