#include "formats/gguf/gguf_tokenizer.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/tokenizers/sentencepiece_model.h"
#include "formats/tokenizers/tokenizer.h"
#include "tests/formats/tokenizers/tiny_tokenizer.h"
#include "tests/places.h"

namespace llmpress {
namespace {

using Files = std::map<std::string, std::string>;

std::unique_ptr<Tokenizer> tokenizer_of(const Files& files) {
  return tokenizer_from_files(
      [&](const std::string& name) {
        const auto at = files.find(name);
        return at == files.end() ? std::string() : at->second;
      },
      "");
}

std::string shipped_model() {
  return read_file(source_dir() + "/models/tinystories-3.7m/tokenizer.model");
}

constexpr const char* kTexts[] = {"Once upon a time, there was a cat.",
                                  " two  spaces\nand a line",
                                  "caf\xC3\xA9 \xF0\x9F\x98\x80 123456",
                                  "",
                                  "don't stop",
                                  "\t\ttabs"};

// The files that came out of the metadata that was made of `files`.
Files there_and_back(const Files& files, std::size_t vocabulary,
                     GgufMetadata& metadata) {
  add_gguf_tokenizer(files, vocabulary, metadata);
  return gguf_tokenizer_files(metadata);
}

TEST(GgufTokenizer, SentencePieceGivesTheSameIdsThereAndBack) {
  GgufMetadata metadata("m");
  const Files files{{"tokenizer.model", shipped_model()}};
  const Files back = there_and_back(files, 2048, metadata);
  EXPECT_EQ(metadata.text("tokenizer.ggml.model"), "llama");
  EXPECT_EQ(metadata.texts("tokenizer.ggml.tokens").size(), 2048u);
  const auto before = tokenizer_of(files), after = tokenizer_of(back);
  for (const char* text : kTexts) {
    EXPECT_EQ(after->encode(text), before->encode(text)) << text;
    const auto ids = before->encode(text);
    EXPECT_EQ(after->decode(ids), before->decode(ids)) << text;
  }
  EXPECT_EQ(after->bos_id, before->bos_id);
  EXPECT_EQ(after->eos_id, before->eos_id);
  EXPECT_EQ(after->adds_bos, before->adds_bos);
}

TEST(GgufTokenizer, BytePairsGiveTheSameIdsThereAndBack) {
  GgufMetadata metadata("m");
  const Files files{
      {"tokenizer.json",
       testing::byte_level_tokenizer({{"t", "h"}, {"th", "e"}}).dump()}};
  const Files back = there_and_back(files, 300, metadata);
  EXPECT_EQ(metadata.text("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(metadata.text("tokenizer.ggml.pre"), "gpt-2");
  EXPECT_EQ(metadata.texts("tokenizer.ggml.tokens")[299], "[PAD299]");
  const auto before = tokenizer_of(files), after = tokenizer_of(back);
  for (const char* text : kTexts) {
    EXPECT_EQ(after->encode(text), before->encode(text)) << text;
  }
}

GgufMetadata byte_pairs(const char* pre) {
  GgufMetadata metadata("m.gguf");
  add_gguf_tokenizer(
      {{"tokenizer.json", testing::byte_level_tokenizer({{"t", "h"}}).dump()}},
      258, metadata);
  metadata.set("tokenizer.ggml.pre", std::string(pre));
  return metadata;
}

TEST(GgufTokenizer, CutsAsTheNameSays) {
  // Digits one by one, three at a time, or all.
  const auto pieces = [](const char* pre) {
    return tokenizer_of(gguf_tokenizer_files(byte_pairs(pre)))->encode("1234");
  };
  for (const char* pre : {"gpt-2", "llama-bpe", "qwen2", "smollm", "tekken",
                          "gpt-4o", "qwen35", "default"}) {
    EXPECT_EQ(pieces(pre).size(), 4u) << pre;  // no merges of digits
    EXPECT_EQ(find_gguf_pre_tokenizer(pre)->name, pre);
  }
}

TEST(GgufTokenizer, PutsBosInFrontWhereTheFileSaysSo) {
  GgufMetadata metadata = byte_pairs("llama-bpe");
  metadata.set("tokenizer.ggml.bos_token_id", std::uint32_t{65});
  EXPECT_FALSE(tokenizer_of(gguf_tokenizer_files(metadata))->adds_bos);
  metadata.set("tokenizer.ggml.add_bos_token", true);
  const auto tokenizer = tokenizer_of(gguf_tokenizer_files(metadata));
  EXPECT_TRUE(tokenizer->adds_bos);
  EXPECT_EQ(tokenizer->bos_id, 65u);
}

TEST(GgufTokenizer, RefusesWhatItDoesNotKnowByName) {
  const auto refusal = [](const GgufMetadata& metadata) {
    try {
      (void)gguf_tokenizer_files(metadata);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(refusal(byte_pairs("odd-cut")).find("'odd-cut'"),
            std::string::npos);
  GgufMetadata bert = byte_pairs("gpt-2");
  bert.set("tokenizer.ggml.model", std::string("bert"));
  EXPECT_NE(refusal(bert).find("'bert'"), std::string::npos);
  GgufMetadata ragged = byte_pairs("gpt-2");
  ragged.set_array("tokenizer.ggml.token_type", std::vector<std::int32_t>{1});
  EXPECT_NE(refusal(ragged).find("token_type"), std::string::npos);
  GgufMetadata typed = byte_pairs("gpt-2");
  typed.set_array("tokenizer.ggml.token_type",
                  std::vector<std::int32_t>(258, 9));
  EXPECT_NE(refusal(typed).find("token_type"), std::string::npos);
  EXPECT_TRUE(gguf_tokenizer_files(GgufMetadata("m")).empty());
}

TEST(SentencePieceModel, ComesBackAsItWasWritten) {
  const SentencePieceModel model =
      parse_sentencepiece_model(shipped_model(), "m");
  const SentencePieceModel back =
      parse_sentencepiece_model(write_sentencepiece_model(model), "m");
  ASSERT_EQ(back.pieces.size(), model.pieces.size());
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    EXPECT_EQ(back.pieces[id].text, model.pieces[id].text);
    EXPECT_EQ(back.pieces[id].score, model.pieces[id].score);
    EXPECT_EQ(back.pieces[id].type, model.pieces[id].type);
  }
  EXPECT_EQ(back.kind, model.kind);
  EXPECT_EQ(back.byte_fallback, model.byte_fallback);
  EXPECT_EQ(back.add_dummy_prefix, model.add_dummy_prefix);
}

TEST(SentencePieceModel, RefusesEveryBrokenPrefix) {
  const std::string whole = write_sentencepiece_model(
      {.pieces = {{"a", 1, PieceType::kNormal}}, .bos = "a"});
  std::size_t refused = 0;
  for (std::size_t size = 1; size < whole.size(); ++size) {
    try {
      (void)parse_sentencepiece_model(whole.substr(0, size), "m");
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, whole.size() / 2);
}

}  // namespace
}  // namespace llmpress
