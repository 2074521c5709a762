// What a checkpoint means where its files and its config.json disagree, and
// what it says of forms that are not read.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "compress/core/error.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/quantization_config.h"
#include "tests/formats/linears/sample_linears.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;
using Floats = std::vector<float>;

void write_model(const fs::path& folder,
                 const std::vector<NamedTensor>& tensors,
                 const std::string& config) {
  fs::create_directories(folder);
  std::ofstream(folder / "model.safetensors", std::ios::binary)
      << write_safetensors(tensors, {{"format", "pt"}});
  std::ofstream(folder / "config.json") << config;
}

NamedTensor matrix(const std::string& name, const Floats& values) {
  return tensor_of<float>(name, DType::kF32, {1, values.size()}, values);
}

// A tensor of a block, by which the names of the model's ends are known.
NamedTensor block() { return matrix("model.layers.0.mlp.up_proj.weight", {0}); }

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

#define EXPECT_SAYS(text, part) \
  EXPECT_NE((text).find(part), std::string::npos) << (text)

const std::string kTied = R"({"tie_word_embeddings": true})";

TEST(TiedHead, TwoStoredMatricesThatDifferAreNotTied) {
  const TemporaryDirectory tmp;
  write_model(tmp.path(),
              {matrix("model.embed_tokens.weight", {1, 2}),
               matrix("lm_head.weight", {1, 3}), block()},
              kTied);
  const auto model = open_checkpoint(tmp.path());
  EXPECT_SAYS(model->config_json(), "\"tie_word_embeddings\": false");
  ASSERT_EQ(model->notes().size(), 1u);
  EXPECT_SAYS(model->notes()[0], "both stored and differ");
}

TEST(TiedHead, EqualMatricesStayTiedWhateverTheirTypes) {
  const TemporaryDirectory tmp;
  write_model(tmp.path(),
              {matrix("model.embed_tokens.weight", {1, -2}), block(),
               tensor_of<std::uint16_t>("lm_head.weight", DType::kBF16, {1, 2},
                                        {0x3f80, 0xc000})},
              kTied);
  const auto model = open_checkpoint(tmp.path());
  EXPECT_EQ(model->config_json(), kTied);
  EXPECT_TRUE(model->notes().empty());
}

TEST(TiedHead, ALoneHeadIsTheEmbeddingToo) {
  const TemporaryDirectory tmp;
  write_model(tmp.path(), {matrix("lm_head.weight", {5, 6}), block()}, kTied);
  const auto model = open_checkpoint(tmp.path());
  EXPECT_EQ(dequantize(model->read_linear("model.embed_tokens").weight)(0, 1),
            6.0f);
  EXPECT_EQ(model->tensors().find("lm_head.weight"), nullptr);
  EXPECT_EQ(model->notes().size(), 1u);
  write_model(tmp.path(), {matrix("lm_head.weight", {5, 6}), block()},
              R"({"tie_word_embeddings": false})");
  EXPECT_FALSE(open_checkpoint(tmp.path())->has_linear("model.embed_tokens"));
}

TEST(TiedHead, ATiedHeadInAnotherFormIsRefused) {
  const TemporaryDirectory tmp;
  write_model(
      tmp.path(),
      {matrix("model.embed_tokens.weight", {1, 2}), block(),
       tensor_of<std::int8_t>("lm_head.weight", DType::kI8, {1, 2}, {1, 2}),
       matrix("lm_head.weight_scale", {1})},
      kTied);
  EXPECT_SAYS(error_of([&] { open_checkpoint(tmp.path()); }),
              "config.json: tie_word_embeddings is true, but");
}

TEST(QuantMethod, OneThatIsNotReadIsNamedWhateverIsStored) {
  const TemporaryDirectory tmp;
  for (const std::string method :
       {"hqq", "fbgemm_fp8", "modelopt", "quark", "compressed_tensors"}) {
    write_model(
        tmp.path(), {block()},
        R"({"quantization_config": {"quant_method": ")" + method + R"("}})");
    EXPECT_SAYS(
        error_of([&] { open_checkpoint(tmp.path()); }),
        "config.json: quantization_config: quant_method '" + method + "'");
  }
  write_model(tmp.path(), {block()}, R"({"quantization_config": {"bits": 4}})");
  EXPECT_SAYS(error_of([&] { open_checkpoint(tmp.path()); }),
              "'quant_method' is missing");
  write_model(tmp.path(), {block()}, "{}");
  std::ofstream(tmp.path() / "hf_quant_config.json") << "{}";
  EXPECT_SAYS(error_of([&] { open_checkpoint(tmp.path()); }), "ModelOpt");
}

// AutoGPTQ's and AutoAWQ's own files, from before config.json had it.
TEST(QuantMethod, IsReadFromTheFileBesideTheConfiguration) {
  const auto format_of = [](const std::string& file, const std::string& text) {
    const TemporaryDirectory tmp;
    write_model(tmp.path(), {block()}, "{}");
    std::ofstream(tmp.path() / file) << text;
    return std::string(open_checkpoint(tmp.path())->format());
  };
  EXPECT_EQ(format_of("quantize_config.json",
                      R"({"bits": 4, "group_size": 128, "desc_act": false,
                          "sym": true, "model_name_or_path": null})"),
            "gptq");
  EXPECT_EQ(format_of("quant_config.json",
                      R"({"zero_point": true, "q_group_size": 128, "w_bit": 4,
                          "version": "GEMM"})"),
            "awq");
  EXPECT_SAYS(error_of([&] {
                (void)format_of("quant_config.json", R"({"version": "gemv"})");
              }),
              "AWQ");
  EXPECT_SAYS(error_of([&] { (void)format_of("quantize_config.json", "x"); }),
              "quantize_config.json");
}

TEST(QuantMethod, Fp8LeavesTheInputsOfDenseWeightsAlone) {
  const TemporaryDirectory tmp;
  for (const std::string scheme : {"dynamic", "static"}) {
    write_model(tmp.path(), {matrix("lm_head.weight", {1, 2})},
                R"({"quantization_config": {"quant_method": "fp8",
                    "activation_scheme": ")" +
                    scheme + R"("}})");
    EXPECT_TRUE(open_checkpoint(tmp.path())->read_linear("lm_head").input ==
                ActivationQuant{});
  }
}

TEST(QuantMethod, ADenseWeightUnderAPackedSchemeIsNamed) {
  const TemporaryDirectory tmp;
  write_model(tmp.path(), {matrix("lm_head.weight", {1, 2})},
              R"({"quantization_config": {"quant_method": "compressed-tensors",
                  "format": "int-quantized", "config_groups": {"g": {
                    "targets": ["Linear"], "weights": {"num_bits": 8}}}}})");
  EXPECT_SAYS(
      error_of([&] { open_checkpoint(tmp.path())->read_linear("lm_head"); }),
      "list it in 'ignore'");
}

TEST(Absence, SaysWhatLiesAtTheNameOfALinear) {
  const TemporaryDirectory tmp;
  const auto said = [&](const std::vector<NamedTensor>& tensors) {
    write_model(tmp.path(), tensors, "{}");
    return open_checkpoint(tmp.path())->describe_absence("l");
  };
  EXPECT_EQ(said({matrix("m.weight", {1})}), "'l.weight' is missing");
  EXPECT_SAYS(
      said({tensor_of<std::int64_t>("l.weight", DType::kI64, {1, 1}, {1})}),
      "'l.weight' is I64, wanted F64, F32, F16 or BF16");
  EXPECT_SAYS(
      said({tensor_of<std::uint8_t>("l.weight", DType::kF8E4M3, {1, 1}, {1})}),
      "'l.weight' is F8_E4M3 without a scale");
  EXPECT_SAYS(
      said({tensor_of<std::int32_t>("l.qweight", DType::kI32, {1, 1}, {1})}),
      "of which config.json says nothing (.qweight I32)");
  EXPECT_SAYS(said({tensor_of<float>("l.weight", DType::kF32, {1}, {1})}),
              "has shape [1], wanted 2 dimensions");
}

TEST(Absence, NamesWhatAFolderHasInPlaceOfSafetensors) {
  const TemporaryDirectory tmp;
  std::ofstream(tmp.path() / "config.json") << "{}";
  std::ofstream(tmp.path() / "pytorch_model.bin") << "x";
  EXPECT_SAYS(error_of([&] { open_checkpoint(tmp.path()); }),
              "pytorch_model.bin: is no file of torch.save");
  std::ofstream(tmp.path() / "model.safetensors")
      << "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
  EXPECT_SAYS(error_of([&] { open_checkpoint(tmp.path()); }),
              "model.safetensors: is a git-lfs pointer");
  std::ofstream(tmp.path() / "m.gguf") << "GGUF0000";
  EXPECT_SAYS(error_of([&] { open_checkpoint(tmp.path() / "m.gguf"); }),
              "m.gguf: GGUF version 808464432, wanted 2 or 3");
}

TEST(Absence, NamesConfigJsonAndThePlaceWhereItIsNotJson) {
  const TemporaryDirectory tmp;
  write_model(tmp.path(), {block()}, "{\n \"a\": 1,\n}");
  EXPECT_SAYS(error_of([&] { open_checkpoint(tmp.path()); }),
              "config.json: not JSON at octet 12 (line 3, column 1)");
}

std::string kv_config(const std::string& scheme) {
  return R"({"quantization_config": {"quant_method": "compressed-tensors",
             "config_groups": {}, "kv_cache_scheme": )" +
         scheme + "}}";
}

TEST(KvScheme, StaticScalesComeFromTheAttentionModule) {
  const TemporaryDirectory tmp;
  const std::string config =
      kv_config(R"({"num_bits": 8, "type": "float", "strategy": "tensor",
                    "dynamic": false, "symmetric": true})");
  write_model(
      tmp.path(),
      {tensor_of<float>("a.attn.k_scale", DType::kF32, {1}, {0.5f}),
       tensor_of<float>("a.attn.v_scale", DType::kF32, {1}, {0.25f}),
       tensor_of<float>("b.attn.k_proj.output_scale", DType::kF32, {1}, {2}),
       tensor_of<float>("b.attn.v_proj.output_scale", DType::kF32, {1}, {3}),
       tensor_of<float>("c.attn.k_scale", DType::kF32, {1}, {-1})},
      config);
  const auto model = open_checkpoint(tmp.path());
  const auto a = model->kv_scheme("a");
  ASSERT_TRUE(a);
  EXPECT_EQ(a->rounding.kind, ActivationQuant::Kind::kFp8);
  EXPECT_EQ(a->key_scales, (Floats{0.5f}));
  EXPECT_EQ(a->value_scales, (Floats{0.25f}));
  EXPECT_EQ(model->kv_scheme("b")->value_scales, (Floats{3}));
  EXPECT_THROW(model->kv_scheme("c"), Error);
  EXPECT_SAYS(error_of([&] { model->kv_scheme("d"); }), "'d' has no k_scale");
}

TEST(KvScheme, OneThatCannotBeAppliedIsRefusedAtOnce) {
  const TemporaryDirectory tmp;
  for (const char* scheme :
       {R"({"num_bits": 6})", R"({"num_bits": 4, "type": "float"})",
        R"({"num_bits": 8, "symmetric": false})",
        R"({"num_bits": 8, "strategy": "channel"})",
        R"({"num_bits": 8, "strategy": "attn_head", "dynamic": true})"}) {
    write_model(tmp.path(), {block()}, kv_config(scheme));
    EXPECT_SAYS(error_of([&] { open_checkpoint(tmp.path()); }),
                "config.json: quantization_config.kv_cache_scheme: ");
  }
}

TEST(KvScheme, StaysInTheConfigurationOfAnArtifact) {
  const std::string config = kv_config(R"({"num_bits": 8})");
  const std::string kept = with_quantization_config(config, "");
  ASSERT_TRUE(parse_quantization_config(kept, "c").kv_cache);
  EXPECT_EQ(parse_quantization_config(kept, "c").kv_cache->bits, 8);
  EXPECT_TRUE(parse_quantization_config(
                  with_quantization_config(
                      config, R"({"quant_method": "compressed-tensors",
                                  "kv_cache_scheme": null})"),
                  "c")
                  .kv_cache);
  EXPECT_THROW(
      with_quantization_config(config, R"({"quant_method": "bitsandbytes"})"),
      Error);
}

}  // namespace
}  // namespace llmpress
