#include "compress/model/prepacked_weights.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "compress/model/decoder.h"
#include "compress/model/tensor_places.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/safetensors.h"
#include "tests/compress/kernels/random_weights.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

class Prepacked : public ::testing::Test {
 protected:
  // A model in a folder, its gate_proj in int4; then what it is laid out as.
  void write_model(const TinyShape& shape = {}) {
    Rng rng(7);
    const auto writer = make_artifact_writer({.output = model_});
    for (const NamedTensor& tensor : named_tensors(tiny_tensors(shape, 3))) {
      if (!tensor.name.ends_with("gate_proj.weight")) {
        writer->add_tensor(tensor);
        continue;
      }
      writer->add_linear(
          tensor.name.substr(0, tensor.name.size() - 7),
          {.weight = testing::random_grouped(
               shape.ffn, shape.hidden, 4, 8, testing::Zeros::kSymmetric,
               /*permuted=*/false, DType::kF16, rng)});
    }
    writer->finish(config_json(shape));
    checkpoint_ = open_checkpoint(model_);
    arch_ = read_architecture(*checkpoint_);
  }

  std::shared_ptr<const PrepackedWeights> make() {
    log_.clear();
    return prepack(*checkpoint_, arch_, pool_, {},
                   [this](const std::string& line) { log_ += line; });
  }

  std::vector<float> logits(std::shared_ptr<const PrepackedWeights> prepacked,
                            bool streamed = false) {
    const Decoder decoder(*checkpoint_, {.prepacked = std::move(prepacked),
                                         .pool = &pool_,
                                         .streamed = streamed});
    const auto tokens = random_tokens(9, arch_.vocabulary, 5);
    const Segment all{tokens.size(), 0, nullptr};
    const MatrixF hidden = decoder.forward(tokens, {&all, 1}, pool_);
    const MatrixF Y = decoder.ends().logits(hidden.view(), pool_);
    return {Y.data().begin(), Y.data().end()};
  }

  TemporaryDirectory tmp_;
  const fs::path model_ = tmp_.path() / "model";
  const fs::path file_ = model_ / "llmpress.prepacked";
  std::unique_ptr<Checkpoint> checkpoint_{};
  Architecture arch_{};
  ThreadPool pool_{3};
  std::string log_{};
};

TEST_F(Prepacked, AModelRunsFromItAsFromItsWeights) {
  for (const bool tied : {false, true}) {
    write_model({.qkv_bias = true,
                 .o_bias = true,
                 .tied = tied,
                 .more_json = ", \"attention_bias\": true"});
    const auto made = make();
    EXPECT_NE(log_.find("is not there"), std::string::npos) << log_;
    EXPECT_EQ(logits(made), logits(nullptr));
    EXPECT_EQ(logits(made, /*streamed=*/true), logits(nullptr));
    const auto again = make();
    EXPECT_EQ(log_, "");
    EXPECT_EQ(logits(again), logits(nullptr));
    fs::remove_all(model_);
  }
}

TEST_F(Prepacked, HoldsEveryLinearAndIsTheSameAtAnyThreadCount) {
  write_model();
  (void)make();
  EXPECT_EQ(open_safetensors(file_)->tensors().size(), 2 * 7 + 1u);
  const std::string octets = read_file(file_);
  ThreadPool one(1);
  write_prepacked(*checkpoint_, arch_, one, {});
  EXPECT_TRUE(read_file(file_) == octets);
  for (const auto& entry : fs::directory_iterator(model_)) {
    EXPECT_EQ(entry.path().filename().string().find("partial"),
              std::string::npos);
    EXPECT_FALSE(entry.path().filename().string().starts_with('.'));
  }
}

TEST_F(Prepacked, IsMadeAnewWhenTheModelIsAnother) {
  write_model();
  (void)make();
  const fs::path weights = model_ / "model.safetensors";
  fs::last_write_time(weights,
                      fs::last_write_time(weights) + std::chrono::seconds(1));
  (void)make();
  EXPECT_NE(log_.find("other files"), std::string::npos) << log_;
  (void)make();
  EXPECT_EQ(log_, "");
  write_file_atomically(file_,
                        write_safetensors({}, {{"llmpress_version", "0"}}));
  (void)make();
  EXPECT_NE(log_.find("another version"), std::string::npos) << log_;
  EXPECT_EQ(logits(make()), logits(nullptr));
}

TEST_F(Prepacked, DamagedOctetsAreRefusedByName) {
  write_model();
  (void)make();
  std::string octets = read_file(file_);
  octets.back() ^= 1;  // of the last Linear
  write_file_atomically(file_, octets);
  try {
    (void)logits(make());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptFile);
    EXPECT_NE(std::string(error.what())
                  .find("'model.layers.1.mlp.down_proj' is damaged"),
              std::string::npos)
        << error.what();
  }
  write_file_atomically(file_, octets.substr(0, octets.size() - 1));
  EXPECT_THROW((void)make(), Error);
}

TEST_F(Prepacked, AFileOfSomebodyElseIsKept) {
  write_model();
  write_file_atomically(file_, write_safetensors({}, {{"format", "pt"}}));
  try {
    (void)make();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(open_safetensors(file_)->metadata().size(), 1u);
}

TEST_F(Prepacked, StandsBesideAModelInOneFile) {
  write_model();
  EXPECT_EQ(prepacked_path(model_), file_);
  EXPECT_EQ(prepacked_path(model_ / "m.gguf"), model_ / "m.gguf.prepacked");
}

}  // namespace
}  // namespace llmpress
