#include "formats/llama2c/llama2c_tokenizer.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/tokenizers/sentencepiece_model.h"
#include "formats/tokenizers/tokenizer.h"
#include "tests/formats/containers/torch_writer.h"
#include "tests/places.h"

namespace llmpress {
namespace {

using testing::octets;

// As tokenizer.py of llama2.c writes it.
std::string tokenizer_bin(const SentencePieceModel& model) {
  std::string file = octets(std::uint32_t{99});
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    std::string text = model.pieces[id].text;
    if (id == 1 || id == 2) text = "\n" + text + "\n";
    for (std::size_t at; (at = text.find("\xe2\x96\x81")) != text.npos;) {
      text.replace(at, 3, " ");
    }
    file += octets(model.pieces[id].score) +
            octets(static_cast<std::uint32_t>(text.size())) + text;
  }
  return file;
}

std::string converted(const std::string& file, std::size_t vocabulary) {
  return sentencepiece_of_llama2c(std::as_bytes(std::span(file)), vocabulary,
                                  "tokenizer.bin");
}

TEST(Llama2cTokenizer, CutsTextsAsTheModelThatItWasMadeOf) {
  const std::string original =
      read_file(source_dir() + "/models/tinystories-3.7m/tokenizer.model");
  const SentencePieceModel model = parse_sentencepiece_model(original, "o");
  const auto expected = tokenizer_from_sentencepiece(original, {}, "o");
  const auto found = tokenizer_from_sentencepiece(
      converted(tokenizer_bin(model), model.pieces.size()), {}, "f");
  EXPECT_EQ(found->bos_id, expected->bos_id);
  EXPECT_EQ(found->eos_id, expected->eos_id);
  for (const char* text :
       {"Once upon a time, there was a girl.", "  two  spaces \n\t x",
        "caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac 123"}) {
    EXPECT_EQ(found->encode_document(text), expected->encode_document(text));
    EXPECT_EQ(found->decode(found->encode(text)), text);
  }
}

TEST(Llama2cTokenizer, RefusesCutsAndOtherCounts) {
  const SentencePieceModel model{
      .pieces = {
          {.text = "<unk>"}, {.text = "<s>"}, {.text = "</s>"}, {.text = "a"}}};
  const std::string file = tokenizer_bin(model);
  EXPECT_NO_THROW((void)converted(file, 4));
  EXPECT_THROW((void)converted(file, 5), Error);
  for (std::size_t size = 0; size < file.size(); ++size) {
    EXPECT_THROW((void)converted(file.substr(0, size), 4), Error) << size;
  }
}

}  // namespace
}  // namespace llmpress
