#include "compress/pipeline/conversion/conversion.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "compress/model/decoder.h"
#include "compress/model/model_source.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/conversion/conversion_check.h"
#include "compress/pipeline/conversion/packed_forms.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/config_reader.h"
#include "formats/containers/safetensors.h"
#include "formats/gguf/gguf_architecture.h"
#include "quantizers/ggml_rounding.h"
#include "quantizers/rtn.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/compress/pipeline/conversion/conversions.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

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
           fs::path(source_dir()) / "tests/compress/model/goldens")) {
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

// Which format holds which packed type exactly, and what rounding to the nearest
// form that it does hold costs: docs/cli.md has the table.
struct Pair {
  const char* name;
  std::function<PackedWeight(ConstMatrixView, ThreadPool&)> source;
  const char* format;
  double
      error;  // 0: exact; else refused, and no more than that with allow_lossy
};

PackedWeight rounded(ConstMatrixView W, ThreadPool& pool, WeightScheme scheme) {
  QuantizeConfig config;
  config.weights = scheme;
  return round_to_nearest(W, config, pool);
}

std::vector<Pair> pairs() {
  const auto on = [](WeightScheme scheme) {
    return [scheme](ConstMatrixView W, ThreadPool& pool) {
      return rounded(W, pool, scheme);
    };
  };
  const auto blocks = [](GgmlType type) {
    return [type](ConstMatrixView W, ThreadPool& pool) {
      return PackedWeight(round_to_ggml(W, type, pool));
    };
  };
  const auto symmetric = on({.bits = 4, .group_size = 32, .symmetric = true});
  const auto affine = on({.bits = 4, .group_size = 32});
  const auto int3 = on({.bits = 3, .group_size = 32});
  const auto int6 = on({.bits = 6, .group_size = 32});
  const auto nf4 = on({.type = WeightType::kNf4, .group_size = 64});
  const auto fp8 = on({.type = WeightType::kFp8E4M3, .group_size = -1});
  const auto mxfp4 = on({.type = WeightType::kMxfp4});
  return {
      {"int4 sym", symmetric, "compressed-tensors", 0},
      {"int4 sym", symmetric, "gptq", 0},
      {"int4 sym", symmetric, "awq", 0},
      {"int4 sym", symmetric, "gguf", 0},
      {"int4 sym", symmetric, "hdf5", 0},
      {"int4 sym", symmetric, "bitsandbytes", 0.12},
      {"int4", affine, "gptq", 0},
      {"int4", affine, "awq", 0},
      {"int4", affine, "gguf", 1e-3},
      {"int3", int3, "gptq", 0},
      {"int3", int3, "gguf", 1e-3},
      {"int3", int3, "awq", 0.1},
      {"int6", int6, "compressed-tensors", 0},
      {"int6", int6, "gptq", 0.01},
      {"int6", int6, "gguf", 0.01},
      {"nf4", nf4, "bitsandbytes", 0},
      {"nf4", nf4, "gguf", 0.01},
      {"nf4", nf4, "gptq", 0.1},
      {"fp8", fp8, "compressed-tensors", 0},
      {"fp8", fp8, "gguf", 0.01},
      {"fp8", fp8, "gptq", 0.01},
      {"mxfp4", mxfp4, "gguf", 0},
      {"mxfp4", mxfp4, "gptq", 0.1},
      {"q4_0", blocks(GgmlType::kQ4_0), "compressed-tensors", 0},
      {"q4_0", blocks(GgmlType::kQ4_0), "gptq", 0},
      {"q4_0", blocks(GgmlType::kQ4_0), "awq", 0},
      {"q8_0", blocks(GgmlType::kQ8_0), "gptq", 0},
      {"q8_0", blocks(GgmlType::kQ8_0), "awq", 0.1},
      {"q4_1", blocks(GgmlType::kQ4_1), "hdf5", 0},
      {"q4_1", blocks(GgmlType::kQ4_1), "safetensors", 0},
      {"q4_1", blocks(GgmlType::kQ4_1), "gptq", 0.1},
      {"iq4_nl", blocks(GgmlType::kIq4Nl), "compressed-tensors", 0.1},
  };
}

// A Linear that is to be the same and is not is found; one that was rounded on
// purpose may differ.
TEST_F(Conversions, ComparesWhatWasWrittenWithTheSource) {
  const fs::path model = write_model(kShape);
  const auto written = convert(model, "m.gguf", {.type = GgmlType::kQ8_0});
  const auto source = open_checkpoint(model);
  const Architecture arch = read_architecture(*source);
  EXPECT_NO_THROW(check_conversion(*source, arch, written->path(), {}, pool_));
  EXPECT_NO_THROW(check_conversion(*written, read_architecture(*written),
                                   written->path(), {kDown}, pool_));
  try {
    check_conversion(*source, arch, written->path(), {kDown}, pool_);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(kDown), std::string::npos);
  }
}

// What plain numbers cannot say is named, and given up only when told to.
TEST_F(Conversions, GivesUpTheRoundingOfInputsOnlyWhenToldTo) {
  const fs::path model = write_model(kShape);
  const auto plain = open_checkpoint(model);
  const auto writer = make_artifact_writer(
      {.output = folder_.path() / "packed.h5", .format = "hdf5"});
  for (const TensorInfo& info : plain->tensors().tensors()) {
    const TensorBytes data = plain->tensors().read(info);
    if (info.name == std::string(kDown) + ".weight") {
      LinearWeights linear = plain->read_linear(kDown);
      linear.input = {.kind = ActivationQuant::Kind::kFp8};
      writer->add_linear(kDown, linear);
      continue;
    }
    writer->add_tensor({.name = info.name,
                        .dtype = info.dtype,
                        .shape = info.shape,
                        .bytes = {data.bytes.begin(), data.bytes.end()}});
  }
  writer->finish(plain->config_json());
  ConversionOptions options{.format = "safetensors"};
  try {
    convert(folder_.path() / "packed.h5", "out", options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("inputs are rounded"),
              std::string::npos)
        << error.what();
  }
  options.allow_lossy = true;
  const auto written = convert(folder_.path() / "packed.h5", "out", options);
  EXPECT_EQ(report_.inputs_unrounded, 1u);
  expect_same_tensors(*plain, *written);
}

TEST_F(Conversions, PairsAreExactOrRefusedOrOfAKnownError) {
  const TinyShape kWide{.hidden = 128,
                        .ffn = 128,
                        .heads = 4,
                        .kv_heads = 4,
                        .head_dim = 32,
                        .vocabulary = 40};
  const fs::path model = write_model(kWide);
  const auto plain = open_checkpoint(model);
  const Architecture arch = read_architecture(*plain);
  for (const Pair& pair : pairs()) {
    SCOPED_TRACE(formatted("{} to {}", pair.name, pair.format));
    const fs::path packed = folder_.path() / "packed.h5";
    const auto writer = make_artifact_writer(
        {.output = packed, .format = "hdf5", .source = model});
    for (const std::string& name : arch.linear_names()) {
      const MatrixF W = dequantize(plain->read_linear(name).weight);
      writer->add_linear(name, {.weight = pair.source(W.view(), pool_)});
    }
    for (const TensorInfo& info : plain->tensors().tensors()) {
      if (info.name.find("_proj.") != std::string::npos) continue;
      const TensorBytes data = plain->tensors().read(info);
      writer->add_tensor({.name = info.name,
                          .dtype = info.dtype,
                          .shape = info.shape,
                          .bytes = {data.bytes.begin(), data.bytes.end()}});
    }
    writer->finish(plain->config_json());
    ConversionOptions options{.format = pair.format};
    const bool is_file = pair.format == std::string("gguf") ||
                         pair.format == std::string("hdf5");
    const std::string to =
        std::string("out_") + pair.format +
        (is_file ? std::string(".") + (pair.format[0] == 'g' ? "gguf" : "h5")
                 : std::string());
    if (pair.error > 0) {
      EXPECT_THROW(convert(packed, to.c_str(), options), Error);
      options.allow_lossy = true;
    }
    const auto written = convert(packed, to.c_str(), options);
    const auto source = open_checkpoint(packed);
    double worst = 0;
    for (const std::string& name : arch.linear_names()) {
      worst = std::max(
          worst, relative_difference(written->read_linear(name).weight,
                                     source->read_linear(name).weight, pool_));
    }
    EXPECT_LE(worst, pair.error);
    EXPECT_EQ(worst > 0, pair.error > 0);
    if (pair.error > 0) {
      ASSERT_EQ(report_.rounded.size(), 1u);
      EXPECT_EQ(report_.rounded[0].linears, arch.linear_names().size());
      EXPECT_EQ(report_.rounded[0].largest_error, worst);
    } else {
      EXPECT_TRUE(report_.rounded.empty());
    }
  }
}

// Goldens whose models GGUF cannot say, with other numbers in config.json and the
// same tensors: from GGUF the same is computed as from the folder.
TEST_F(Conversions, FamiliesWithTamerSettingsComputeTheSameFromGguf) {
  struct Tamed {
    const char *golden, *settings;
    const char* only_layer = nullptr;  // becomes the first
  };
  constexpr Tamed kTamed[] = {
      {"starcoder2", R"({"sliding_window": null})"},
      {"gpt_oss", R"({"swiglu_alpha": 1.702, "swiglu_limit": 7.0})"},
      {"gpt_oss_mxfp4", R"({"swiglu_alpha": 1.702, "swiglu_limit": 7.0})"},
      {"qwen2_moe", R"({"norm_topk_prob": false, "decoder_sparse_step": 1,
                        "num_hidden_layers": 1, "sliding_window": null,
                        "use_sliding_window": false})",
       "model.layers.1."}};
  const std::vector<TokenId> ids{5, 9, 3, 17, 30, 6, 11, 2, 8, 21};
  const auto logits = [&](const Checkpoint& checkpoint) {
    const Decoder decoder(checkpoint);
    const Segment all{ids.size(), 0, nullptr};
    return decoder.ends().logits(decoder.forward(ids, {&all, 1}, pool_).view(),
                                 pool_);
  };
  for (const Tamed& tamed : kTamed) {
    const fs::path source =
        fs::path(source_dir()) / "tests/compress/model/goldens" / tamed.golden;
    const fs::path folder = folder_.path() / tamed.golden;
    fs::create_directories(folder);
    std::vector<NamedTensor> tensors;
    const auto reader = open_tensors(source);
    for (const TensorInfo& info : reader->tensors()) {
      std::string name = info.name;
      if (tamed.only_layer != nullptr && name.starts_with("model.layers.")) {
        if (!name.starts_with(tamed.only_layer)) continue;
        name.replace(0, std::strlen(tamed.only_layer), "model.layers.0.");
      }
      const TensorBytes data = reader->read(info);
      tensors.push_back({.name = name,
                         .dtype = info.dtype,
                         .shape = info.shape,
                         .bytes = {data.bytes.begin(), data.bytes.end()}});
    }
    write_file_atomically(folder / "model.safetensors",
                          write_safetensors(tensors, {}));
    auto config = nlohmann::json::parse(read_file(source / "config.json"));
    config.update(nlohmann::json::parse(tamed.settings));
    std::ofstream(folder / "config.json") << config;
    const auto base = open_checkpoint(folder);
    const MatrixF wanted = logits(*base);
    const MatrixF found = logits(*convert(folder, "m.gguf", {}));
    float largest = 0, worst = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      largest = std::max(largest, std::abs(wanted.data()[i]));
      worst = std::max(worst, std::abs(wanted.data()[i] - found.data()[i]));
    }
    EXPECT_LE(worst, 1e-5f * largest) << tamed.golden;
  }
}

TEST_F(Conversions, CodesPassThroughMlxUnchanged) {
  const auto gguf =
      convert(write_model(kShape), "m.gguf",
              {.type = GgmlType::kQ4_0, .ends_type = GgmlType::kF32});
  const auto packed =
      convert(gguf->path(), "packed", {.format = "compressed-tensors"});
  const auto mlx = convert(packed->path(), "mlx", {.format = "mlx"});
  EXPECT_EQ(mlx->format(), "mlx");
  EXPECT_EQ(mlx->tensors().require(std::string(kDown) + ".weight").dtype,
            DType::kU32);
  const auto back =
      convert(mlx->path(), "back", {.format = "compressed-tensors"});
  expect_same_tensors(*packed, *back);
}

}  // namespace
}  // namespace llmpress
