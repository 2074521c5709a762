#include "formats/tokenizers/bpe_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "compress/core/error.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

using Ids = std::vector<TokenId>;

struct Toy {
  Vocabulary vocabulary{};
  std::vector<BpeMerge> merges{};

  TokenId add(const std::string& token) {
    return vocabulary
        .try_emplace(token, static_cast<TokenId>(vocabulary.size()))
        .first->second;
  }
  void merge(const std::string& left, const std::string& right) {
    const TokenId a = add(left), b = add(right);
    merges.push_back({.left = a, .right = b, .result = add(left + right)});
  }
  Ids encode(std::string_view text, const BpeModelConfig& config = {}) const {
    BpeModel::Scratch scratch;
    Ids ids;
    BpeModel(vocabulary, merges, config).encode(text, scratch, ids);
    return ids;
  }
  Ids ids(const std::vector<std::string>& tokens) const {
    Ids out;
    for (const auto& token : tokens) out.push_back(vocabulary.at(token));
    return out;
  }
};

TEST(BpeModel, MergesByRankAndTheLeftmostOfEquals) {
  Toy toy;
  toy.merge("b", "c");
  toy.merge("a", "b");
  toy.merge("a", "a");
  EXPECT_EQ(toy.encode("abc"), toy.ids({"a", "bc"}));
  EXPECT_EQ(toy.encode("abab"), toy.ids({"ab", "ab"}));
  EXPECT_EQ(toy.encode("aaa"), toy.ids({"aa", "a"}));
  EXPECT_EQ(toy.encode("aaaaa"), toy.ids({"aa", "aa", "a"}));
  EXPECT_EQ(toy.encode(""), Ids{});
}

TEST(BpeModel, OfTwoRanksForOnePairTheLastCounts) {
  Toy toy;
  toy.merge("a", "b");
  toy.merge("b", "c");
  toy.merge("a", "b");
  EXPECT_EQ(toy.encode("abc"), toy.ids({"a", "bc"}));
}

TEST(BpeModel, UnknownCharactersAreFusedIfAsked) {
  Toy toy;
  toy.merge("a", "b");
  const TokenId unknown = toy.add("<unk>");
  BpeModelConfig config{.unknown = unknown};
  EXPECT_EQ(toy.encode("x\u00E9ab\u4E2D", config),
            (Ids{unknown, unknown, toy.vocabulary.at("ab"), unknown}));
  config.fuse_unknown = true;
  EXPECT_EQ(toy.encode("x\u00E9ab\u4E2D", config),
            (Ids{unknown, toy.vocabulary.at("ab"), unknown}));
}

TEST(BpeModel, AnUnknownCharacterWithoutATokenForItIsAnError) {
  Toy toy;
  toy.merge("a", "b");
  try {
    toy.encode("ab\u00E9", {.origin = "tokenizer.json: /model"});
    ADD_FAILURE() << "encoded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
    EXPECT_NE(std::string(error.what()).find("'\u00E9'"), std::string::npos);
  }
}

TEST(BpeModel, FallsBackToBytesOnlyIfAllAreThere) {
  Toy toy;
  toy.merge("a", "b");
  const TokenId c3 = toy.add("<0xC3>"), a9 = toy.add("<0xA9>");
  const TokenId unknown = toy.add("<unk>");
  const BpeModelConfig config{.byte_fallback = true, .unknown = unknown};
  EXPECT_EQ(toy.encode("\u00E9", config), (Ids{c3, a9}));
  EXPECT_EQ(toy.encode("\u00E8", config), (Ids{unknown}));
}

TEST(BpeModel, MergesOfByteTokensReachAcrossCharacters) {
  Toy toy;
  toy.merge("<0xA9>", "a");
  toy.add("<0xC3>");
  EXPECT_EQ(toy.encode("\u00E9a", {.byte_fallback = true}),
            toy.ids({"<0xC3>", "<0xA9>a"}));
}

TEST(BpeModel, IgnoreMergesTakesAWholePieceThatIsAToken) {
  Toy toy;
  toy.merge("a", "b");
  for (const char* token : {"c", "abc"}) toy.add(token);
  EXPECT_EQ(toy.encode("abc"), toy.ids({"ab", "c"}));
  EXPECT_EQ(toy.encode("abc", {.ignore_merges = true}), toy.ids({"abc"}));
  EXPECT_EQ(toy.encode("abcc", {.ignore_merges = true}),
            toy.ids({"ab", "c", "c"}));
}

// What the definition says, in O(n^2).
Ids merged_one_by_one(const Toy& toy, std::string_view text) {
  Ids ids;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    next_utf8(text, at);
    ids.push_back(
        toy.vocabulary.at(std::string(text.substr(begin, at - begin))));
  }
  for (;;) {
    std::size_t best_rank = toy.merges.size(), best = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      for (std::size_t rank = 0; rank < best_rank; ++rank) {
        if (toy.merges[rank].left == ids[i] &&
            toy.merges[rank].right == ids[i + 1]) {
          best_rank = rank;
          best = i;
        }
      }
    }
    if (best_rank == toy.merges.size()) return ids;
    ids[best] = toy.merges[best_rank].result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(BpeModel, HeapCutsAndCacheGiveWhatTheDefinitionGives) {
  std::mt19937 rng(5);
  const std::vector<std::string> alphabet{"a", "b", "c", "\u2581", "\u00E9"};
  for (int round = 0; round < 60; ++round) {
    Toy toy;
    std::vector<std::string> tokens = alphabet;
    for (const auto& token : alphabet) toy.add(token);
    const std::size_t merges = rng() % 25;
    while (toy.merges.size() < merges) {
      const std::string left = tokens[rng() % tokens.size()];
      const std::string right = tokens[rng() % tokens.size()];
      const bool known = std::any_of(
          toy.merges.begin(), toy.merges.end(), [&](const BpeMerge& merge) {
            return merge.left == toy.vocabulary.at(left) &&
                   merge.right == toy.vocabulary.at(right);
          });
      if (known) continue;
      toy.merge(left, right);
      tokens.push_back(left + right);
    }
    const BpeModel model(toy.vocabulary, toy.merges, {});
    BpeModel::Scratch scratch;  // shared, so that the cache is used
    for (int i = 0; i < 20; ++i) {
      std::string text;
      for (auto n = rng() % 120; n > 0; --n) {
        text += alphabet[rng() % alphabet.size()];
      }
      Ids ids;
      model.encode(text, scratch, ids);
      ASSERT_EQ(ids, merged_one_by_one(toy, text)) << text;
    }
  }
}

TEST(BpeModel, ALongWordIsOneWord) {  // 2^18 of one letter, merged in pairs
  Toy toy;
  std::string token = "a";
  for (int i = 0; i < 10; ++i, token += token) toy.merge(token, token);
  EXPECT_EQ(toy.encode(std::string(1 << 18, 'a')),
            Ids(1 << 8, toy.vocabulary.at(token)));
}

}  // namespace
}  // namespace llmpress
