#include "compress/pipeline/conversion/conversion.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "compress/core/error.h"
#include "compress/model/decoder.h"
#include "compress/model/model_source.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/config_reader.h"
#include "formats/gguf/gguf_architecture.h"
#include "quantizers/ggml_rounding.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

class Conversions : public ::testing::Test {
 protected:
  std::unique_ptr<Checkpoint> convert(const fs::path& from, const char* to,
                                      ConversionOptions options) {
    options.output = folder_.path() / to;
    if (options.format.empty()) options.format = "gguf";
    report_ = convert_model(*open_checkpoint(from), options, pool_);
    return open_checkpoint(options.output);
  }

  fs::path write_model(const TinyShape& shape) {
    const fs::path path = folder_.path() / "model";
    const auto writer =
        make_artifact_writer({.output = path, .format = "safetensors"});
    for (const NamedTensor& t : named_tensors(tiny_tensors(shape, 5))) {
      writer->add_tensor(t);
    }
    writer->finish(config_json(shape));
    return path;
  }

  static constexpr const char* kDown = "model.layers.0.mlp.down_proj";

  TemporaryDirectory folder_{};
  ThreadPool pool_{2};
  ConversionReport report_{};
};

const TinyShape kShape{.hidden = 64,
                       .ffn = 96,
                       .heads = 4,
                       .kv_heads = 2,
                       .head_dim = 16,
                       .vocabulary = 40};

void expect_same_tensors(const Checkpoint& a, const Checkpoint& b) {
  ASSERT_EQ(a.tensors().tensors().size(), b.tensors().tensors().size());
  for (const TensorInfo& info : a.tensors().tensors()) {
    const TensorInfo& other = b.tensors().require(info.name);
    EXPECT_EQ(other.dtype, info.dtype) << info.name;
    EXPECT_EQ(other.shape, info.shape) << info.name;
    const TensorBytes x = a.tensors().read(info), y = b.tensors().read(other);
    EXPECT_TRUE(std::ranges::equal(x.bytes, y.bytes)) << info.name;
  }
}

TEST_F(Conversions, ThereAndBackIsTheSameModel) {
  const fs::path model = write_model(kShape);
  const auto gguf = convert(model, "m.gguf", {});
  const auto back = convert(gguf->path(), "back", {.format = "safetensors"});
  expect_same_tensors(*open_checkpoint(model), *back);
}

TEST_F(Conversions, RoundsToATypeAsTheQuantizerDoes) {
  const fs::path model = write_model(kShape);
  const auto gguf = convert(model, "m.gguf", {.type = GgmlType::kQ4_0});
  const MatrixF W =
      dequantize(open_checkpoint(model)->read_linear(kDown).weight);
  const auto stored = gguf->read_linear(kDown).weight;
  EXPECT_EQ(std::get<GgmlWeight>(stored).blocks,
            round_to_ggml(W.view(), GgmlType::kQ4_0, pool_).blocks);
  // The head has q6_K, whose blocks of 256 do not fit 64 inputs.
  EXPECT_EQ(describe(gguf->read_linear("lm_head").weight), "q8_0");
  EXPECT_EQ(describe(gguf->read_linear("model.embed_tokens").weight), "q4_0");
  EXPECT_EQ(report_.notes.size(), 1u);
}

TEST_F(Conversions, BlocksKeepTheirCodesInCompressedTensorsAndBack) {
  const fs::path model = write_model(kShape);
  for (const GgmlType type :
       {GgmlType::kQ4_0, GgmlType::kQ5_0, GgmlType::kQ8_0, GgmlType::kMxfp4}) {
    const auto gguf =
        convert(model, "m.gguf", {.type = type, .ends_type = GgmlType::kF32});
    const auto packed =
        convert(gguf->path(), "packed", {.format = "compressed-tensors"});
    const auto again = convert(packed->path(), "again.gguf", {});
    const auto blocks = [](const Checkpoint& c) {
      return std::get<GgmlWeight>(c.read_linear(kDown).weight).blocks;
    };
    const PackedWeight between = packed->read_linear(kDown).weight;
    EXPECT_FALSE(std::holds_alternative<GgmlWeight>(between));
    EXPECT_TRUE(
        std::ranges::equal(dequantize(between).data(),
                           dequantize(gguf->read_linear(kDown).weight).data()))
        << facts(type).name;
    EXPECT_EQ(blocks(*again), blocks(*gguf)) << facts(type).name;
  }
}

TEST_F(Conversions, CodesPassThroughGptqAndAwqUnchanged) {
  const auto gguf =
      convert(write_model(kShape), "m.gguf",
              {.type = GgmlType::kQ4_0, .ends_type = GgmlType::kF32});
  const auto packed =
      convert(gguf->path(), "packed", {.format = "compressed-tensors"});
  const auto gptq = convert(packed->path(), "gptq", {.format = "gptq"});
  EXPECT_EQ(gptq->format(), "gptq");
  const auto awq = convert(gptq->path(), "awq", {.format = "awq"});
  EXPECT_EQ(awq->format(), "awq");
  const auto back =
      convert(awq->path(), "back", {.format = "compressed-tensors"});
  expect_same_tensors(*packed, *back);
  const auto again = convert(back->path(), "again.gguf", {});
  EXPECT_EQ(std::get<GgmlWeight>(again->read_linear(kDown).weight).blocks,
            std::get<GgmlWeight>(gguf->read_linear(kDown).weight).blocks);
}

TEST_F(Conversions, CodesBecomeNumbersWhereThatIsAskedFor) {
  const auto gguf =
      convert(write_model(kShape), "m.gguf",
              {.type = GgmlType::kQ4_0, .ends_type = GgmlType::kF32});
  const auto gptq = convert(
      convert(gguf->path(), "packed", {.format = "compressed-tensors"})->path(),
      "gptq", {.format = "gptq"});
  EXPECT_THROW((void)convert(gptq->path(), "no", {.format = "safetensors"}),
               Error);
  const auto plain = convert(gptq->path(), "plain",
                             {.format = "safetensors", .type = GgmlType::kF32});
  EXPECT_NE(plain->plain_weight(kDown), nullptr);
  EXPECT_TRUE(
      std::ranges::equal(dequantize(plain->read_linear(kDown).weight).data(),
                         dequantize(gptq->read_linear(kDown).weight).data()));
}

TEST_F(Conversions, OtherBlocksBecomePlainNumbersOrAreRefused) {
  const auto gguf =
      convert(write_model(kShape), "m.gguf", {.type = GgmlType::kIq4Nl});
  EXPECT_THROW(
      (void)convert(gguf->path(), "x", {.format = "compressed-tensors"}),
      Error);
  const auto plain = convert(gguf->path(), "plain", {.format = "safetensors"});
  EXPECT_TRUE(
      std::ranges::equal(dequantize(plain->read_linear(kDown).weight).data(),
                         dequantize(gguf->read_linear(kDown).weight).data()));
  EXPECT_THROW(
      (void)convert(gguf->path(), "y",
                    {.format = "safetensors", .type = GgmlType::kQ4_0}),
      Error);
}

struct Golden {
  std::vector<TokenId> ids{};
  MatrixF logits{};
};

Golden read_golden(const fs::path& folder) {
  const auto expected = open_tensors(folder / "expected.safetensors");
  const TensorBytes data = expected->read(expected->require("input_ids"));
  std::vector<std::int64_t> ids(data.bytes.size() / sizeof(std::int64_t));
  std::memcpy(ids.data(), data.bytes.data(), data.bytes.size());
  return {.ids = {ids.begin(), ids.end()},
          .logits = read_matrix(*expected, "logits")};
}

bool is_written(const fs::path& folder) {
  const auto type =
      ConfigReader::parse(read_file(folder / "config.json"), folder.string())
          .text("model_type");
  return std::ranges::any_of(gguf_architectures(), [&](const auto& row) {
    return row.model_type == type;
  });
}

// Either a golden's model is written and computes the same logits from GGUF, or
// it is refused because GGUF cannot say what it is.
TEST_F(Conversions, FamiliesComputeTheSameFromGguf) {
  std::size_t written = 0;
  std::string refused;
  for (const auto& entry : fs::directory_iterator(
           fs::path(LLMPRESS_SOURCE_DIR) / "tests/compress/model/goldens")) {
    if (!is_written(entry.path())) continue;
    std::unique_ptr<Checkpoint> gguf;
    try {
      gguf = convert(entry.path(), "m.gguf", {});
    } catch (const Error& e) {
      ASSERT_EQ(e.code(), ErrorCode::kUnsupported)
          << entry.path() << ": " << e.what();
      refused += entry.path().filename().string() + ": " + e.what() + "\n";
      continue;
    }
    ++written;
    const Golden golden = read_golden(entry.path());
    const Decoder decoder(*gguf);
    const Segment all{golden.ids.size(), 0, nullptr};
    const MatrixF hidden = decoder.forward(golden.ids, {&all, 1}, pool_);
    const MatrixF logits = decoder.ends().logits(hidden.view(), pool_);
    float largest = 0, worst = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      largest = std::max(largest, std::abs(golden.logits.data()[i]));
      worst =
          std::max(worst, std::abs(golden.logits.data()[i] - logits.data()[i]));
    }
    EXPECT_LE(worst, 2e-4f * largest) << entry.path();
  }
  EXPECT_GE(written, 5u) << refused;
  RecordProperty("refused", refused);
}

}  // namespace
}  // namespace llmpress
