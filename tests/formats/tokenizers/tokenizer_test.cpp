#include "formats/tokenizers/tokenizer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "tests/formats/temporary_directory.h"
#include "tests/formats/tokenizers/tiny_tokenizer.h"
#include "tests/places.h"

namespace llmpress {
namespace {

using Ids = std::vector<TokenId>;
using nlohmann::json;
using testing::byte_level_tokenizer;
using testing::metaspace_tokenizer;
using testing::special_token;
const std::filesystem::path kShipped =
    source_dir() + "/models/tinystories-3.7m";

std::unique_ptr<Tokenizer> make(const json& tree, const json& config = {}) {
  return tokenizer_from_json(
      tree.dump(), {.config = config.is_null() ? "" : config.dump()}, "toy");
}

// The error that `call` throws; "none" if it does not.
std::string message_of(ErrorCode code, const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "none";
}

TEST(ByteLevelTokenizer, MergesInsideWordsOnly) {
  const auto toy = make(byte_level_tokenizer(
      {{"a", "b"}, {"\u0120", "ab"}, {"b", "\u0120"}, {"\u00C3", "\u00A9"}}));
  EXPECT_EQ(toy->kind, "bpe byte-level");
  EXPECT_EQ(toy->vocabulary_size(), 260u);
  // "b" + space would merge if they were one word.
  EXPECT_EQ(toy->encode("ab ab!"), (Ids{256, 257, '!'}));
  EXPECT_EQ(toy->encode("\u00E9"), (Ids{259}));         // C3 A9
  EXPECT_EQ(toy->encode("\u00E8"), (Ids{0xC3, 0xA8}));  // C3 A8
  EXPECT_EQ(toy->encode("\U0001F600"), (Ids{0xF0, 0x9F, 0x98, 0x80}));
  EXPECT_EQ(toy->encode(""), Ids{});
  EXPECT_FALSE(toy->adds_bos);
}

TEST(ByteLevelTokenizer, DecodesEveryText) {
  const auto toy = make(byte_level_tokenizer({{"a", "b"}, {"\u0120", "ab"}}));
  for (const std::string text : {"", " ", "  ab\r\n\tab ab",
                                 "na\u00EFve caf\u0065\u0301 \u4E2D\u6587 "
                                 "\U0001F469\u200D\U0001F680 \u0120 \u2581",
                                 "I'LL 12345"}) {
    EXPECT_EQ(toy->decode(toy->encode(text)), text);
  }
  EXPECT_EQ(toy->decode(Ids{0xC3}), "\uFFFD");
}

TEST(ByteLevelTokenizer, ReadsLlama3sSplitAndIgnoreMerges) {
  json tree = byte_level_tokenizer({{"1", "2"}, {"12", "3"}, {"2", "3"}});
  tree["pre_tokenizer"] = testing::split_then_bytes(testing::kLlama3Pattern);
  EXPECT_EQ(make(tree)->encode("123123"), (Ids{257, 257}));
  EXPECT_EQ(make(tree)->encode("23"), (Ids{258}));
  tree["model"]["vocab"]["31"] = 259;  // a token that no merge makes
  EXPECT_EQ(make(tree)->encode("31"), (Ids{'3', '1'}));
  tree["model"]["ignore_merges"] = true;
  EXPECT_EQ(make(tree)->encode("12331"), (Ids{257, 259}));
}

TEST(ByteLevelTokenizer, NormalizesToNfcAsQwenAsks) {
  json tree = byte_level_tokenizer({});
  tree["normalizer"] = {{"type", "NFC"}};
  EXPECT_EQ(make(tree)->encode("e\u0301"), (Ids{0xC3, 0xA9}));
  tree["normalizer"] = nullptr;
  EXPECT_EQ(make(tree)->encode("e\u0301"), (Ids{'e', 0xCC, 0x81}));
}

TEST(ByteLevelTokenizer, FindsAddedTokensFirst) {
  json tree = byte_level_tokenizer({{"a", "b"}});
  tree["added_tokens"] = {special_token("<|end|>", 300),
                          special_token("<|end|>x", 301)};
  tree["added_tokens"][1]["special"] = false;
  const auto toy = make(tree);
  EXPECT_EQ(toy->vocabulary_size(), 302u);
  EXPECT_EQ(toy->encode("ab<|end|>ab<|end|>x"), (Ids{256, 300, 256, 301}));
  EXPECT_EQ(toy->decode(toy->encode("ab<|end|>ab")), "ab<|end|>ab");
  EXPECT_THROW(toy->decode(Ids{299}), Error);  // a hole
  EXPECT_THROW(toy->decode(Ids{302}), Error);
}

TEST(ByteLevelTokenizer, AddedTokensAreWrittenAsTheyRead) {
  // "\u00E9" spells the byte E9 in the byte alphabet.
  json tree = byte_level_tokenizer({});
  tree["added_tokens"] = json::array({special_token("<\u00E9>", 256)});
  EXPECT_EQ(make(tree)->decode(Ids{256}), "<\u00E9>");
}

TEST(MetaspaceTokenizer, PutsASpaceInFrontAndFallsBackToBytes) {
  const auto toy = make(metaspace_tokenizer({{"▁", "a"}, {"▁a", "b"}}));
  EXPECT_EQ(toy->kind, "bpe metaspace");
  EXPECT_EQ(toy->encode("ab a b"), (Ids{264, 263, 259, 261}));
  EXPECT_EQ(toy->encode(" a"), (Ids{259, 263}));
  EXPECT_EQ(toy->encode("\u00E9"), (Ids{259, 3 + 0xC3, 3 + 0xA9}));
  EXPECT_EQ(toy->encode("\n"), (Ids{259, 3 + 0x0A}));
  EXPECT_EQ(toy->encode(""), Ids{});
}

TEST(MetaspaceTokenizer, DecodesEveryText) {
  const auto toy = make(metaspace_tokenizer({{"▁", "a"}, {"▁a", "b"}}));
  for (const std::string text :
       {"", "ab", " ab", "  ab  a ", "\n\u00E9\U0001F600 \u4E2Da"}) {
    EXPECT_EQ(toy->decode(toy->encode(text)), text);
  }
}

TEST(MetaspaceTokenizer, EveryStretchBetweenSpecialTokensIsAText) {
  const auto toy = make(metaspace_tokenizer({{"▁", "a"}}));
  EXPECT_EQ(toy->encode("a<s>a</s>"), (Ids{263, 1, 263, 2}));
}

TEST(MetaspaceTokenizer, NormalizedTokensAreFoundInTheNormalizedText) {
  json tree = metaspace_tokenizer({{"▁", "a"}});
  tree["normalizer"] = {{"type", "NFC"}};
  tree["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}};
  tree["added_tokens"].push_back(special_token("e\u0301", 300));
  EXPECT_EQ(make(tree)->encode("ae\u0301a\u00E9"),
            (Ids{263, 300, 260, 3 + 0xC3, 3 + 0xA9}));
  tree["added_tokens"].back()["normalized"] = true;  // now "\u00E9"
  EXPECT_EQ(make(tree)->encode("ae\u0301a\u00E9"), (Ids{263, 300, 260, 300}));
}

TEST(MetaspaceTokenizer, WithoutByteFallbackUnknownRunsAreOneToken) {
  json tree = metaspace_tokenizer({{"▁", "a"}});
  tree["model"]["byte_fallback"] = false;
  EXPECT_EQ(make(tree)->encode("a\u00E9\u00E8b\u00E9"), (Ids{263, 0, 261, 0}));
  tree["model"]["fuse_unk"] = false;
  EXPECT_EQ(make(tree)->encode("a\u00E9\u00E8"), (Ids{263, 0, 0}));
}

TEST(MetaspaceTokenizer, MetaspaceMayStandInThePreTokenizer) {
  json tree = metaspace_tokenizer({{"b", "▁"}, {"▁", "a"}, {"▁a", "b"}});
  tree["normalizer"] = nullptr;
  tree["pre_tokenizer"] = {{"type", "Metaspace"},
                           {"replacement", "▁"},
                           {"prepend_scheme", "first"},
                           {"split", false}};
  tree["decoder"] = tree["pre_tokenizer"];
  const auto whole = make(tree);
  EXPECT_EQ(whole->kind, "bpe metaspace");
  EXPECT_EQ(whole->encode("ab a<s>a"), (Ids{264, 263, 260, 1, 260}));
  EXPECT_EQ(whole->decode(whole->encode("ab a")), "ab a");
  tree["pre_tokenizer"]["split"] = true;
  EXPECT_EQ(make(tree)->encode("ab a<s>a"), (Ids{265, 264, 1, 260}));
}

TEST(Tokenizer, TextThatIsNotUtf8IsRefused) {
  const auto toy = make(byte_level_tokenizer({}));
  EXPECT_EQ(message_of(ErrorCode::kInvalidInput,
                       [&] {
                         toy->encode(
                             "ab\xFF"
                             "c");
                       }),
            "text: byte 2 is not UTF-8");
}

json with_template(json tree, const std::string& token, int id) {
  tree["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}},
        {{"type", "TemplateProcessing"},
         {"single",
          {{{"SpecialToken", {{"id", token}, {"type_id", 0}}}},
           {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
         {"pair", json::array()},
         {"special_tokens",
          {{token, {{"id", token}, {"ids", {id}}, {"tokens", {token}}}}}}}}}};
  return tree;
}

TEST(Tokenizer, BosIsAddedAsTemplateThenConfigThenKindSay) {
  const json bytes = [] {
    json tree = byte_level_tokenizer({});
    tree["added_tokens"] = {special_token("<|bos|>", 256),
                            special_token("<|eos|>", 257)};
    return tree;
  }();
  const json named = {{"bos_token", "<|bos|>"}, {"eos_token", "<|eos|>"}};
  json no = named, yes = named;
  no["add_bos_token"] = false;
  yes["add_bos_token"] = true;
  const json templated = with_template(bytes, "<|bos|>", 256);

  EXPECT_FALSE(make(bytes)->adds_bos);
  EXPECT_FALSE(make(bytes, named)->adds_bos);
  EXPECT_FALSE(make(bytes, yes)->adds_bos) << "GPT-2's kind has no say";
  EXPECT_TRUE(make(templated)->adds_bos);
  EXPECT_TRUE(make(templated, named)->adds_bos);
  EXPECT_TRUE(make(templated, no)->adds_bos) << "the template decides";
  EXPECT_EQ(make(templated)->bos_id, 256u);
  EXPECT_EQ(make(bytes, no)->eos_id, 257u);
  EXPECT_EQ(make(templated)->encode_document("a"), (Ids{256, 'a'}));
  EXPECT_EQ(make(bytes, no)->encode_document("a"), (Ids{'a'}));
  json only_offsets = bytes;
  only_offsets["post_processor"] = {{"type", "ByteLevel"}};
  EXPECT_FALSE(make(only_offsets, yes)->adds_bos);

  const json llama = metaspace_tokenizer({});
  EXPECT_TRUE(make(llama)->adds_bos);
  EXPECT_EQ(make(llama)->bos_id, 1u);
  EXPECT_EQ(make(llama)->eos_id, 2u);
  EXPECT_FALSE(make(llama, {{"add_bos_token", false}})->adds_bos);
}

TEST(Tokenizer, TokensMayBeNamedByObjectsInTheConfig) {
  const auto toy =
      make(metaspace_tokenizer({}), {{"bos_token", {{"content", "</s>"}}},
                                     {"eos_token", nullptr},
                                     {"add_bos_token", true}});
  EXPECT_EQ(toy->bos_id, 2u);
}

TEST(Tokenizer, ABosThatIsWantedButUnknownIsAnError) {
  EXPECT_NE(message_of(ErrorCode::kInvalidInput,
                       [] {
                         make(metaspace_tokenizer({}),
                              {{"bos_token", "<x>"}, {"add_bos_token", true}});
                       })
                .find("toy/tokenizer_config.json: add_bos_token"),
            std::string::npos);
}

TEST(Tokenizer, TheConfigMayAddTokens) {
  const auto toy =
      make(byte_level_tokenizer({}),
           {{"added_tokens_decoder",
             {{"256", {{"content", "<|im|>"}, {"special", true}}}}}});
  EXPECT_EQ(toy->encode("a<|im|>"), (Ids{'a', 256}));
}

struct Broken {
  const char* place;  // that the message names
  ErrorCode code;
  std::function<void(json&)> damage;
};

TEST(Tokenizer, BrokenFilesAreNamedWithTheirPlace) {
  constexpr auto kCorrupt = ErrorCode::kCorruptFile;
  constexpr auto kUnsupported = ErrorCode::kUnsupported;
  const std::vector<Broken> cases{
      {": /:", kCorrupt, [](json& t) { t.erase("model"); }},
      {"/model: member 'vocab'", kCorrupt,
       [](json& t) { t["model"].erase("vocab"); }},
      {"/model: member 'merges'", kCorrupt,
       [](json& t) { t["model"].erase("merges"); }},
      {"/model/vocab: found an array", kCorrupt,
       [](json& t) { t["model"]["vocab"] = json::array(); }},
      {"/model/vocab: is empty", kCorrupt,
       [](json& t) {
         t["model"]["vocab"] = json::object();
         t["model"]["merges"] = json::array();
         t["model"].erase("unk_token");
       }},
      {"/model/vocab/a: found \"x\"", kCorrupt,
       [](json& t) { t["model"]["vocab"]["a"] = "x"; }},
      {"/model/vocab/a: found -1", kCorrupt,
       [](json& t) { t["model"]["vocab"]["a"] = -1; }},
      {"/model/vocab/a: found 4294967295", kCorrupt,
       [](json& t) { t["model"]["vocab"]["a"] = 4294967295u; }},
      {"/model/vocab/b: id 260 is already that of 'a'", kCorrupt,
       [](json& t) { t["model"]["vocab"]["b"] = 260; }},
      {"/model/merges/0: token '▁a' is not", kCorrupt,
       [](json& t) { t["model"]["vocab"].erase("▁a"); }},
      {"/model/merges/0: token 'a' is not", kCorrupt,
       [](json& t) { t["model"]["vocab"].erase("a"); }},
      {"/model/merges/0: found 'a'", kCorrupt,
       [](json& t) { t["model"]["merges"][0] = "a"; }},
      {"/model/merges/0: found 'a b c'", kCorrupt,
       [](json& t) { t["model"]["merges"][0] = "a b c"; }},
      {"/model/merges/0: a merge has two", kCorrupt,
       [](json& t) { t["model"]["merges"][0] = {"a"}; }},
      {"/model/merges/0/1: found 7", kCorrupt,
       [](json& t) {
         t["model"]["merges"][0] = {"a", 7};
       }},
      {"/model/unk_token", kCorrupt,
       [](json& t) { t["model"]["unk_token"] = "<nix>"; }},
      {"/model/fuse_unk: found \"yes\"", kCorrupt,
       [](json& t) { t["model"]["fuse_unk"] = "yes"; }},
      {"/added_tokens: found an object", kCorrupt,
       [](json& t) { t["added_tokens"] = json::object(); }},
      {"/added_tokens/0: member 'id'", kCorrupt,
       [](json& t) { t["added_tokens"][0].erase("id"); }},
      {"/added_tokens/1/content", kCorrupt,
       [](json& t) { t["added_tokens"][1]["content"] = ""; }},
      {"added token '<s>': found id 7, wanted 1", kCorrupt,
       [](json& t) { t["added_tokens"][1]["id"] = 7; }},
      {"added token '<new>': id 1 is already that of '<s>'", kCorrupt,
       [](json& t) { t["added_tokens"][1]["content"] = "<new>"; }},
      {"/normalizer/normalizers/1/pattern/String", kCorrupt,
       [](json& t) {
         t["normalizer"]["normalizers"][1]["pattern"]["String"] = "";
       }},
      {"/normalizer/type: normalizer 'Nix'", kUnsupported,
       [](json& t) {
         t["normalizer"] = {{"type", "Nix"}};
       }},
      {"/normalizer/precompiled_charsmap: is not base64", kCorrupt,
       [](json& t) {
         t["normalizer"] = {{"type", "Precompiled"},
                            {"precompiled_charsmap", "AAA"}};
       }},
      {"/normalizer/precompiled_charsmap: its character map", kCorrupt,
       [](json& t) {
         t["normalizer"] = {{"type", "Precompiled"},
                            {"precompiled_charsmap", "AAAAAAAA"}};
       }},
      {"/pre_tokenizer/type: pre-tokenizer 'FixedLength'", kUnsupported,
       [](json& t) {
         t["pre_tokenizer"] = {{"type", "FixedLength"}};
       }},
      {"/pre_tokenizer/delimiter: wanted one character", kCorrupt,
       [](json& t) {
         t["pre_tokenizer"] = {{"type", "CharDelimiterSplit"},
                               {"delimiter", "ab"}};
       }},
      {"/pre_tokenizer/replacement", kCorrupt,
       [](json& t) {
         t["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "ab"}};
       }},
      {"/post_processor/type: post-processor 'Nix'", kUnsupported,
       [](json& t) {
         t["post_processor"] = {{"type", "Nix"}};
       }},
      {"/post_processor/cls: wanted a token and its id", kCorrupt,
       [](json& t) {
         t["post_processor"] = {{"type", "RobertaProcessing"},
                                {"cls", json::array({"<s>"})}};
       }},
      {"/post_processor: token 9999 is not", kCorrupt,
       [](json& t) { t = with_template(t, "<s>", 9999); }},
      {"/decoder/type: decoder 'CTC'", kUnsupported,
       [](json& t) {
         t["decoder"] = {{"type", "CTC"}};
       }},
      {"/model: model 'Nix'", kUnsupported,
       [](json& t) { t["model"]["type"] = "Nix"; }},
      {"/model/vocab: found an object", kCorrupt,
       [](json& t) { t["model"]["type"] = "Unigram"; }},
      {"/model/vocab/0: wanted a token and its score", kCorrupt,
       [](json& t) {
         t["model"] = {{"type", "Unigram"}, {"vocab", {{"a", 1, 2}}}};
       }},
      {"/model/unk_id: found 1", kCorrupt,
       [](json& t) {
         t["model"] = {{"type", "Unigram"},
                       {"unk_id", 1},
                       {"vocab", json::array({json::array({"a", -1.5})})}};
       }},
      {"/model/unk_token: '<nix>' is not", kCorrupt,
       [](json& t) {
         t["model"]["type"] = "WordPiece";
         t["model"]["unk_token"] = "<nix>";
       }},
      {"/model/dropout", kUnsupported,
       [](json& t) { t["model"]["dropout"] = 0.1; }},
      {"/model/merges/0: token 'a' is not inside a word", kCorrupt,
       [](json& t) { t["model"]["continuing_subword_prefix"] = "##"; }},
  };
  const json good = metaspace_tokenizer({{"▁", "a"}});
  EXPECT_NO_THROW(make(good));
  for (const Broken& broken : cases) {
    json tree = good;
    broken.damage(tree);
    const std::string message = message_of(broken.code, [&] { make(tree); });
    EXPECT_TRUE(message.starts_with("toy/tokenizer.json: ")) << message;
    EXPECT_NE(message.find(broken.place), std::string::npos)
        << message << "\nwanted: " << broken.place;
  }
}

TEST(Tokenizer, EveryTruncationIsRefused) {
  const std::string text = metaspace_tokenizer({{"▁", "a"}}).dump();
  for (std::size_t size = 0; size < text.size(); size += 7) {
    EXPECT_NE(message_of(ErrorCode::kCorruptFile,
                         [&] {
                           tokenizer_from_json(text.substr(0, size), {}, "toy");
                         }),
              "none")
        << size;
  }
}

TEST(Tokenizer, ABrokenConfigIsRefused) {
  const std::string text = metaspace_tokenizer({}).dump();
  for (const char* config :
       {"[]", "{", R"({"add_bos_token": 1})", R"({"bos_token": 7})",
        R"({"added_tokens_decoder": {"x": {"content": "<a>"}}})",
        R"({"added_tokens_decoder": {"99999999": {"content": "<a>"}}})",
        R"({"added_tokens_decoder": {"7": {"content": "<a>"}}})"}) {
    EXPECT_NE(message_of(ErrorCode::kCorruptFile,
                         [&] {
                           tokenizer_from_json(text, {.config = config}, "toy");
                         }),
              "none")
        << config;
  }
}

std::vector<std::string> sample_texts() {
  std::vector<std::string> texts{
      "",
      " ",
      "Once upon a time, there was a little girl.\n\nShe said, \"Hi!\"",
      "  two  spaces\tand tabs \r\n ends with space ",
      "na\u00EFve \u4E2D\u6587 \U0001F600 \u2581 <s> x</s><unk>y <0x41>",
      std::string("nul\0byte", 8)};
  std::error_code none;
  for (const auto& file : std::filesystem::directory_iterator(
           source_dir() + "/models/text", none)) {
    if (file.path().extension() == ".txt") {
      texts.push_back(read_file(file.path()));
    }
  }
  return texts;
}

TEST(Tokenizer, NormalizersThatDoubleATextAreRefusedByTheirPlace) {
  json tree = byte_level_tokenizer({});
  auto steps = json::array();
  for (int i = 0; i < 20; ++i) {
    steps.push_back({{"type", "Replace"},
                     {"pattern", {{"String", "a"}}},
                     {"content", "aa"}});
  }
  tree["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
  EXPECT_EQ(message_of(ErrorCode::kInvalidInput,
                       [&] { make(tree)->encode(std::string(1000, 'a')); }),
            "toy/tokenizer.json: /normalizer: a text grows to more than 68096 "
            "bytes");
  while (steps.size() > 6) steps.erase(steps.size() - 1);
  tree["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
  EXPECT_EQ(make(tree)->encode("a").size(), 64u);
  for (int i = 0; i < 101; ++i) steps.push_back({{"type", "NFC"}});
  tree["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
  EXPECT_NE(message_of(ErrorCode::kUnsupported, [&] { make(tree); })
                .find("/normalizer"),
            std::string::npos);
}

TEST(Tokenizer, AHundredThousandAddedTokensAreBoundedWork) {
  json tree = byte_level_tokenizer({});
  json decoder;
  for (int i = 0; i < 100'000; ++i) {
    const std::string content = "<|token_" + std::to_string(i);
    tree["added_tokens"].push_back(special_token(content, 300 + i));
    decoder[std::to_string(300 + i)] = {{"content", content},
                                        {"special", true}};
  }
  const auto toy = make(tree, {{"added_tokens_decoder", decoder}});
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += "<|token_<|token_12x";
  const Ids ids = toy->encode(text);
  EXPECT_EQ(ids.size(), 20'000u * 10);
  EXPECT_EQ(ids[8], 312u);
  tree["added_tokens"] = {special_token(std::string(4097, 'x'), 300)};
  EXPECT_NE(message_of(ErrorCode::kCorruptFile, [&] { make(tree); }), "none");
}

TEST(Tokenizer, BothFilesOfTheShippedModelGiveTheSameIds) {
  const auto from_json = load_tokenizer(kShipped / "tokenizer.json");
  const auto from_model = load_tokenizer(kShipped / "tokenizer.model");
  EXPECT_EQ(from_json->kind, "bpe metaspace");
  EXPECT_EQ(from_model->kind, "sentencepiece");
  EXPECT_EQ(from_json->vocabulary_size(), 2048u);
  EXPECT_EQ(from_model->vocabulary_size(), 2048u);
  EXPECT_EQ(from_json->bos_id, from_model->bos_id);
  EXPECT_EQ(from_json->eos_id, from_model->eos_id);
  for (const std::string& text : sample_texts()) {
    const Ids ids = from_json->encode_document(text);
    EXPECT_EQ(ids, from_model->encode_document(text)) << text.substr(0, 80);
    EXPECT_EQ(ids.front(), 1u);
    EXPECT_EQ(from_json->decode(ids), from_model->decode(ids));
    if (text.find("<s>") == std::string::npos) {
      const auto without_bos = std::span(ids).subspan(1);
      EXPECT_EQ(from_json->decode(without_bos), text);
      EXPECT_EQ(from_model->decode(without_bos), text);
    }
  }
}

TEST(SentencePieceTokenizer, WithoutLegacyOnlyTheFirstTextGetsASpace) {
  const std::string model = read_file(kShipped / "tokenizer.model");
  const auto legacy = tokenizer_from_sentencepiece(model, {}, "toy");
  const auto modern = tokenizer_from_sentencepiece(
      model, {.config = R"({"legacy": false})"}, "toy");
  EXPECT_EQ(legacy->encode("the</s>the"),
            (Ids{legacy->encode("the")[0], 2, legacy->encode("the")[0]}));
  const Ids ids = modern->encode("the</s>the");
  EXPECT_EQ(ids[0], legacy->encode("the")[0]);
  EXPECT_EQ(modern->decode(ids), "the</s>the");
  EXPECT_EQ(modern->encode("the the"), legacy->encode("the the"));
}

TEST(SentencePieceTokenizer, TheConfigMayAddTokensBehindTheFile) {
  const std::string model = read_file(kShipped / "tokenizer.model");
  const auto with = [&](const char* config) {
    return tokenizer_from_sentencepiece(model, {.config = config}, "toy");
  };
  const auto toy =
      with(R"({"added_tokens_decoder": {"2050": {"content": "<pad>"}}})");
  EXPECT_EQ(toy->vocabulary_size(), 2051u);
  EXPECT_EQ(toy->encode("<pad>"), (Ids{2050}));
  EXPECT_EQ(toy->decode(Ids{2050}), "<pad>");
  EXPECT_THROW(toy->decode(Ids{2049}), Error);
  EXPECT_NE(
      message_of(
          ErrorCode::kCorruptFile,
          [&] {
            with(R"({"added_tokens_decoder": {"5": {"content": "<p>"}}})");
          }),
      "none");
}

TEST(SentencePieceTokenizer, OlderFilesAddTokensWhereTheConfigSaysNothing) {
  const std::string model = read_file(kShipped / "tokenizer.model");
  TokenizerSideFiles beside{
      .config = R"({"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>"})",
      .special_tokens = R"({"eos_token": {"content": "<|im_end|>"},
                            "additional_special_tokens": ["<|im_start|>"]})",
      .added_tokens = R"({"<|im_start|>": 2048, "<|im_end|>": 2049})"};
  const auto toy = tokenizer_from_sentencepiece(model, beside, "toy");
  EXPECT_EQ(toy->vocabulary_size(), 2050u);
  EXPECT_EQ(toy->eos_id, 2049u);
  const Ids the = toy->encode("the");
  EXPECT_EQ(toy->encode("<|im_start|>the<|im_end|>"),
            (Ids{2048, the[0], 2049}));
  beside.config = R"({"added_tokens_decoder": {"2048": {"content": "<x>"}}})";
  const auto newer = tokenizer_from_sentencepiece(model, beside, "toy");
  EXPECT_EQ(newer->vocabulary_size(), 2049u);
  EXPECT_EQ(newer->encode("<x>"), Ids{2048});
  for (const char* broken :
       {R"({"<a>": -1})", R"({"<a>": "1"})", R"({"": 2048})", R"([])",
        R"({"<a>": 4194304})", R"({"<a>": 7})"}) {
    EXPECT_NE(message_of(ErrorCode::kCorruptFile,
                         [&] {
                           tokenizer_from_sentencepiece(
                               model, {.added_tokens = broken}, "toy");
                         }),
              "none")
        << broken;
  }
}

TEST(SentencePieceTokenizer, BrokenFilesAreRefused) {
  const std::string model = read_file(kShipped / "tokenizer.model");
  for (const std::string& bytes :
       {std::string(), std::string("not a model"),
        model.substr(0, model.size() / 2), model.substr(3)}) {
    EXPECT_NE(
        message_of(ErrorCode::kCorruptFile,
                   [&] { tokenizer_from_sentencepiece(bytes, {}, "toy"); }),
        "none")
        << bytes.size();
  }
}

void write(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

TEST(LoadTokenizer, PrefersJsonAndFallsBackWhereItIsNotKnown) {
  const TemporaryDirectory folder;
  EXPECT_NE(message_of(ErrorCode::kInvalidInput,
                       [&] { load_tokenizer(folder.path()); })
                .find("no tokenizer"),
            std::string::npos);
  const std::string model = read_file(kShipped / "tokenizer.model");
  write(folder.path() / "tokenizer.model", model);
  EXPECT_EQ(load_tokenizer(folder.path())->kind, "sentencepiece");
  EXPECT_EQ(load_tokenizer(folder.path())->sha256, sha256_hex(model));

  json tree = metaspace_tokenizer({});
  write(folder.path() / "tokenizer.json", tree.dump());
  EXPECT_EQ(load_tokenizer(folder.path())->kind, "bpe metaspace");
  EXPECT_EQ(load_tokenizer(folder.path())->sha256, sha256_hex(tree.dump()));
  write(folder.path() / "tokenizer_config.json", R"({"add_bos_token": false})");
  EXPECT_FALSE(load_tokenizer(folder.path())->adds_bos);

  tree["model"]["type"] = "Nix";
  write(folder.path() / "tokenizer.json", tree.dump());
  EXPECT_EQ(load_tokenizer(folder.path())->kind, "sentencepiece");
  write(folder.path() / "tokenizer.json", "{");  // broken is not unknown
  EXPECT_NE(message_of(ErrorCode::kCorruptFile,
                       [&] { load_tokenizer(folder.path()); }),
            "none");
  std::filesystem::remove(folder.path() / "tokenizer.model");
  write(folder.path() / "tokenizer.json", tree.dump());
  EXPECT_NE(message_of(ErrorCode::kUnsupported,
                       [&] { load_tokenizer(folder.path()); }),
            "none");
}

}  // namespace
}  // namespace llmpress
