#include "compress/calibration/calibration_text.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

class CalibrationText : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& name,
                              const std::string& content) {
    const auto path = directory_.path() / name;
    write_file_atomically(path, content);
    return path;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Tokenizer> tokenizer_ =
      load_tokenizer(shipped("tinystories-3.7m"));
};

TEST_F(CalibrationText, SequentialTakesTheFirstWindows) {
  const auto path = shipped("text/calibration.txt");
  const auto ids = tokenizer_->encode_document(read_file(path));
  const CalibrationSet set =
      load_calibration({.text = path,
                        .samples = 3,
                        .sequence_length = 16,
                        .sampling = Sampling::kSequential},
                       *tokenizer_);
  ASSERT_EQ(set.sequences.size(), 3u);
  for (std::size_t i = 0; i < 48; ++i) {
    EXPECT_EQ(set.sequences[i / 16][i % 16], ids[i]);
  }
  EXPECT_EQ(set.sequences[0][0], *tokenizer_->bos_id);
  EXPECT_EQ(set.tokens(), 48u);
}

TEST_F(CalibrationText, RandomFollowsTheSeed) {
  CalibrationConfig config{.text = shipped("text/calibration.txt"),
                           .samples = 5,
                           .sequence_length = 32,
                           .seed = 7};
  const CalibrationSet a = load_calibration(config, *tokenizer_);
  EXPECT_EQ(a.sha256, load_calibration(config, *tokenizer_).sha256);
  config.seed = 8;
  EXPECT_NE(a.sha256, load_calibration(config, *tokenizer_).sha256);
}

TEST_F(CalibrationText, JsonLinesAreDocuments) {
  const auto path = write(
      "c.jsonl", "{\"text\": \"Once upon a time\"}\n\n{\"text\": \"a cat\"}\n");
  auto expected = tokenizer_->encode_document("Once upon a time");
  const auto second = tokenizer_->encode_document("a cat");
  expected.insert(expected.end(), second.begin(), second.end());
  const CalibrationSet set =
      load_calibration({.text = path,
                        .samples = 1,
                        .sequence_length = expected.size(),
                        .sampling = Sampling::kSequential},
                       *tokenizer_);
  EXPECT_EQ(set.sequences[0], expected);
}

TEST_F(CalibrationText, SaysWhichLineOfJsonIsWrong) {
  const auto path = write("c.jsonl", "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n");
  try {
    load_calibration({.text = path}, *tokenizer_);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidInput);
    EXPECT_NE(std::string(e.what()).find("c.jsonl:2"), std::string::npos);
  }
}

TEST_F(CalibrationText, RefusesAShortTextAndNotesFewerSamples) {
  const auto path = write("short.txt", "One little dog ran home.");
  EXPECT_THROW(
      load_calibration({.text = path, .sequence_length = 512}, *tokenizer_),
      Error);
  const CalibrationSet set =
      load_calibration({.text = path,
                        .samples = 100,
                        .sequence_length = 4,
                        .sampling = Sampling::kSequential},
                       *tokenizer_);
  EXPECT_LT(set.sequences.size(), 100u);
  EXPECT_EQ(set.notes.size(), 1u);
}

}  // namespace
}  // namespace llmpress
