#include "formats/linears/quantization_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "formats/linears/compressed_tensors.h"
#include "tests/formats/linears/sample_linears.h"

namespace llmpress {
namespace {

using json = nlohmann::json;

QuantizationConfig parse(const std::string& object) {
  return parse_quantization_config("{\"quantization_config\":" + object + "}",
                                   "config.json");
}

// Whether a group with this target alone has a scheme for `linear`.
bool targets(const char* target, const std::string& linear) {
  const json object = {
      {"quant_method", "compressed-tensors"},
      {"config_groups",
       {{"g", {{"targets", {target}}, {"weights", {{"num_bits", 4}}}}}}}};
  return parse(object.dump()).scheme_of(linear).weights.has_value();
}

// As llm-compressor writes it.
const std::string kReal = R"({"config_groups":{
  "group_0":{"targets":["Linear"],"weights":{"num_bits":4,"type":"int","symmetric":false,
    "group_size":128,"strategy":"group","block_structure":null,"dynamic":false,
    "actorder":"static","scale_dtype":null,"zp_dtype":"torch.int8","observer":"minmax",
    "observer_kwargs":{}},"input_activations":null,"output_activations":null,
    "format":"pack-quantized"},
  "group_1":{"targets":["re:.*down_proj$"],"weights":{"num_bits":8,"type":"float",
    "strategy":"channel"},"input_activations":{"num_bits":8,"type":"float",
    "strategy":"token","dynamic":true}},
  "group_2":{"targets":["model.layers.1.mlp.down_proj"],"weights":{"num_bits":8}}},
 "format":"mixed-precision","global_compression_ratio":null,
 "ignore":["lm_head","re:model\\.layers\\.7\\..*"],"kv_cache_scheme":null,
 "quant_method":"compressed-tensors","quantization_status":"compressed",
 "transform_config":{}})";

TEST(QuantizationConfig, TheMostExactTargetWinsAndIgnoreBeatsAll) {
  const QuantizationConfig config = parse(kReal);
  EXPECT_EQ(config.method, "compressed-tensors");
  const auto& by_class = config.scheme_of("model.layers.1.mlp.up_proj");
  ASSERT_TRUE(by_class.weights);
  EXPECT_EQ(by_class.weights->bits, 4);
  EXPECT_EQ(by_class.weights->group_size, 128u);
  EXPECT_FALSE(by_class.weights->symmetric);
  EXPECT_FALSE(
      by_class.weights->order_by_group);  // "static": only the solver's
  EXPECT_EQ(by_class.format, "pack-quantized");
  const auto& by_pattern = config.scheme_of("model.layers.0.mlp.down_proj");
  EXPECT_TRUE(by_pattern.weights->floating);
  EXPECT_TRUE(by_pattern.input->dynamic);
  EXPECT_EQ(by_pattern.format, "mixed-precision");  // the whole model's
  const auto& by_name = config.scheme_of("model.layers.1.mlp.down_proj");
  EXPECT_FALSE(by_name.weights->floating);
  EXPECT_EQ(by_name.weights->strategy, "tensor");
  EXPECT_FALSE(config.scheme_of("lm_head").weights);
  EXPECT_FALSE(config.scheme_of("model.layers.7.mlp.down_proj").weights);
}

// Block FP8 of transformers, whose kernels find a scale for each token and block.
TEST(QuantizationConfig, BlocksOfFp8WeightsAreGroupsOfDynamicInputs) {
  const auto input_of = [](const std::string& more) {
    const auto config = parse(R"({"quant_method":"fp8")" + more + "}");
    EXPECT_TRUE(config.notes("config.json").empty()) << more;
    return *config.scheme_of("model.layers.0.mlp.up_proj").input;
  };
  const QuantArgs blocks = input_of(R"(,"weight_block_size":[64,128])");
  EXPECT_EQ(blocks.strategy, "group");
  EXPECT_EQ(blocks.group_size, 128u);
  EXPECT_TRUE(blocks.dynamic);
  EXPECT_EQ(input_of("").strategy, "token");
  const QuantArgs fixed =
      input_of(R"(,"weight_block_size":[64,128],"activation_scheme":"static")");
  EXPECT_EQ(fixed.strategy, "tensor");
  EXPECT_FALSE(fixed.dynamic);
}

TEST(QuantizationConfig, RefusesInputsWithPowersOfTwoForScales) {
  EXPECT_THROW(
      parse(R"({"quant_method":"compressed-tensors","config_groups":{"g":{
        "targets":["Linear"],"weights":{"num_bits":8,"type":"float",
        "strategy":"group","group_size":32,"scale_dtype":"torch.uint8"},
        "input_activations":{"num_bits":8,"type":"float","strategy":"group",
        "group_size":32,"scale_dtype":"torch.uint8","dynamic":true}}}})"),
      Error);
}

TEST(QuantizationConfig, SaysWhereScalesOfInputsMayBeOthers) {
  const auto notes = parse(R"({"quant_method":"fp8","scale_fmt":"ue8m0"})")
                         .notes("config.json");
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("'ue8m0'"), std::string::npos);
}

TEST(QuantizationConfig, TheClassLinearDoesNotNameAnEmbedding) {
  const QuantizationConfig config = parse(kReal);
  EXPECT_FALSE(config.scheme_of("model.embed_tokens").weights);
  EXPECT_FALSE(config.scheme_of("transformer.wte").weights);
  EXPECT_TRUE(config.scheme_of("model.layers.1.mlp.up_proj").weights);
  EXPECT_TRUE(targets("model.embed_tokens", "model.embed_tokens"));
}

TEST(QuantizationConfig, PatternsMatchFromTheStartLikePythons) {
  EXPECT_TRUE(targets("re:model", "model.layers.0"));
  EXPECT_FALSE(targets("re:layers", "model.layers.0"));
  EXPECT_TRUE(targets("re:.*(q|k)_proj", "a.k_proj.x"));
  EXPECT_TRUE(targets("re:(?!.*lm_head).*", "model.a"));
  EXPECT_FALSE(targets("re:(?!.*lm_head).*", "lm_head"));
  EXPECT_TRUE(targets("Linear", "anything"));
  EXPECT_FALSE(targets("q_proj", "a.q_proj"));
  EXPECT_THROW(targets("re:(", "x"), Error);
}

TEST(QuantizationConfig, APatternThatBacktracksWithoutEndIsAnErrorThatNamesIt) {
  for (const char* key : {"ignore", "targets"}) {
    json object = {{"quant_method", "compressed-tensors"},
                   {"config_groups", {{"g", {{"targets", {"Linear"}}}}}}};
    (key == std::string("ignore")
         ? object["ignore"]
         : object["config_groups"]["g"]["targets"]) = {"re:(a|aa)+$"};
    try {
      (void)parse(object.dump()).scheme_of(std::string(60, 'a') + "b");
      ADD_FAILURE() << key;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
      EXPECT_TRUE(std::string(error.what())
                      .starts_with("config.json: quantization_config: regular "
                                   "expression 're:(a|aa)+$' takes more than "))
          << error.what();
    }
  }
}

TEST(QuantizationConfig, ReadsHuggingFacesOwnMethods) {
  const auto fp8 = parse(
      R"({"activation_scheme":"dynamic","fmt":"e4m3","quant_method":"fp8",
          "weight_block_size":[128,64],"modules_to_not_convert":["lm_head"]})");
  const auto& scheme = fp8.scheme_of("model.layers.0.mlp.up_proj");
  EXPECT_EQ(scheme.weights->strategy, "block");
  EXPECT_EQ(scheme.weights->block_cols, 64u);
  EXPECT_TRUE(scheme.input->dynamic);
  EXPECT_FALSE(fp8.scheme_of("lm_head").weights);
  EXPECT_EQ(parse(R"({"quant_method":"bitsandbytes","llm_int8_threshold":6.0})")
                .int8_threshold,
            6.0f);
  EXPECT_EQ(parse(R"({"load_in_4bit":true})").method, "bitsandbytes");
  EXPECT_EQ(parse_quantization_config("{}", "c").method, "");
}

TEST(QuantizationConfig, RefusesWhatIsMalformedOrWouldBeMisread) {
  for (
      const char* object : {
          "1",
          "[]",
          R"({"quant_method":1})",
          R"({"quant_method":"hqq","bits":4})",
          R"({"bits":4})",
          R"({"config_groups":{"g":{"output_activations":{"num_bits":8}}}})",
          R"({"quant_method":"compressed-tensors","config_groups":[]})",
          R"({"quant_method":"compressed-tensors","config_groups":{"W8A8":["Linear"]}})",
          R"({"config_groups":{"g":{"targets":"Linear"}}})",
          R"({"config_groups":{"g":{"targets":[1]}}})",
          R"({"config_groups":{"g":{"weights":{"num_bits":0}}}})",
          R"({"config_groups":{"g":{"weights":{"num_bits":"4"}}}})",
          R"({"config_groups":{"g":{"weights":{"num_bits":-4}}}})",
          R"({"config_groups":{"g":{"weights":{"num_bits":1e99}}}})",
          R"({"config_groups":{"g":{"weights":{"type":"complex"}}}})",
          R"({"config_groups":{"g":{"weights":{"group_size":4.5}}}})",
          R"({"config_groups":{"g":{"weights":{"block_structure":[1]}}}})",
          R"({"config_groups":{"g":{"weights":[]}}})",
          R"({"config_groups":{},"ignore":"lm_head"})",
          R"({"config_groups":{},"transform_config":{"config_groups":{"u":{}}}})",
          R"({"config_groups":{},"llmpress":{"version":2}})",
          R"({"config_groups":{},"llmpress":{"linears":{"a":1}}})",
          R"({"config_groups":{},"llmpress":{"linears":{"a":{"outlier_threshold":-1}}}})",
          R"({"quant_method":"bitsandbytes","llm_int8_threshold":"six"})",
      }) {
    EXPECT_THROW(parse(object), Error) << object;
  }
  EXPECT_THROW(parse_quantization_config("", "c"), Error);
  EXPECT_THROW(parse_quantization_config("[]", "c"), Error);
  EXPECT_THROW(parse_quantization_config("{\"a\":1,\"a\":2}", "c"), Error);
  EXPECT_THROW(parse_quantization_config(std::string(1 << 20, '['), "c"),
               Error);
  std::string deep =
      "{\"a\":" + std::string(200, '[') + std::string(200, ']') + "}";
  EXPECT_THROW(parse_quantization_config(deep, "c"), Error);
}

DescribedLinear described(const LinearWeights& linear) {
  const auto e = encode_compressed_tensors("x", linear);
  return {e.scheme, e.extension};
}

// transformers takes the scheme of experts from the group whose pattern names
// them, and otherwise from the first group.
TEST(QuantizationConfig, NamesExpertsThatAreAllAlikeByAPattern) {
  const auto w4 = described({.weight = sample_grouped(4, 4, 64, 32, true)});
  const auto w8 = described({.weight = sample_grouped(8, 4, 64, 32, true)});
  std::map<std::string, DescribedLinear> linears{{"l.0.mlp.experts.0.up", w4},
                                                 {"l.0.mlp.experts.1.up", w4},
                                                 {"l.0.attn.q", w8},
                                                 {"l.0.attn.o", w4},
                                                 {"l.0.shared_experts.up", w8}};
  const auto targets = [&](const char* group) {
    return json::parse(compressed_tensors_config(
        linears, {}))["config_groups"][group]["targets"];
  };
  EXPECT_EQ(targets("group_0"),
            json::array({"re:.*\\.experts\\..*", "l.0.attn.o"}));
  EXPECT_EQ(targets("group_1"),
            json::array({"l.0.attn.q", "l.0.shared_experts.up"}));
  const QuantizationConfig read =
      parse(compressed_tensors_config(linears, {"l.0.gate"}));
  for (const auto& [name, linear] : linears) {
    EXPECT_EQ(read.scheme_of(name).weights->bits, linear.scheme.weights->bits)
        << name;
  }
  linears["l.0.mlp.experts.1.up"] = w8;  // no pattern can tell them apart
  EXPECT_EQ(targets("group_0"),
            json::array({"l.0.attn.o", "l.0.mlp.experts.0.up"}));
}

TEST(QuantizationConfig, NamesModulesAlsoAsTheirClassDoes) {
  const auto w4 = described({.weight = sample_grouped(4, 4, 64, 32, true)});
  const auto w8 = described({.weight = sample_grouped(8, 4, 64, 32, true)});
  const ModuleNames names{.of_class = {{"h.", "transformer.h."},
                                       {"h.0.gate", "transformer.h.0.router"}},
                          .ignore = {"re:(.*\\.)?vision_tower\\..*"}};
  const json j = json::parse(compressed_tensors_config(
      {{"h.0.q", w4}, {"h.0.o", w8}}, {"h.0.gate", "lm_head"}, names));
  EXPECT_EQ(j["config_groups"]["group_0"]["targets"],
            json::array({"h.0.o", "transformer.h.0.o"}));
  EXPECT_EQ(j["config_groups"]["group_1"]["targets"],
            json::array({"h.0.q", "transformer.h.0.q"}));
  EXPECT_EQ(j["ignore"],
            json::array({"h.0.gate", "lm_head", "re:(.*\\.)?vision_tower\\..*",
                         "transformer.h.0.router"}));
  const QuantizationConfig read = parse(j.dump());
  EXPECT_FALSE(read.scheme_of("model.vision_tower.a.fc1").weights);
  EXPECT_EQ(read.scheme_of("transformer.h.0.o").weights->bits, 8);
}

TEST(QuantizationConfig, DescribesOneSchemeByClass) {
  const auto w4 = described({.weight = sample_grouped(4, 4, 64, 32, false)});
  const auto dense = described(
      {.weight = make_dense(sample_matrix(2, 2).view(), DType::kF32)});
  const json j = json::parse(compressed_tensors_config(
      {{"l.b", w4}, {"l.a", w4}, {"l.c", dense}}, {"lm_head"}));
  const json& group = j["config_groups"]["group_0"];
  EXPECT_EQ(j["config_groups"].size(), 1u);
  EXPECT_EQ(group["targets"], json::array({"Linear"}));
  EXPECT_EQ(j["ignore"], json::array({"l.c", "lm_head"}));
  EXPECT_EQ(j["format"], "pack-quantized");
  EXPECT_EQ(group["format"], "pack-quantized");
  EXPECT_EQ(group["weights"],
            json::parse(R"({"num_bits":4,"type":"int","symmetric":false,
              "group_size":32,"strategy":"group","block_structure":null,
              "dynamic":false,"actorder":null,"scale_dtype":null,
              "zp_dtype":"torch.int8","observer":"minmax","observer_kwargs":{}})"));
  EXPECT_TRUE(group["input_activations"].is_null());
  EXPECT_FALSE(j.contains("llmpress"));
}

TEST(QuantizationConfig, NamesLinearsWhenSchemesDiffer) {
  LinearWeights w8a8{.weight = sample_int8(4, 8, false, false)};
  w8a8.input = {.kind = ActivationQuant::Kind::kInt};
  const json j = json::parse(compressed_tensors_config(
      {{"l.b", described({.weight = sample_grouped(4, 4, 64, 32, true)})},
       {"l.a", described(w8a8)}},
      {"lm_head"}));
  EXPECT_EQ(j["format"], "mixed-precision");
  EXPECT_EQ(j["config_groups"]["group_0"]["targets"], json::array({"l.a"}));
  EXPECT_EQ(j["config_groups"]["group_0"]["format"], "int-quantized");
  EXPECT_EQ(j["config_groups"]["group_0"]["input_activations"]["strategy"],
            "token");
  EXPECT_EQ(j["config_groups"]["group_0"]["input_activations"]["dynamic"],
            true);
  EXPECT_EQ(j["config_groups"]["group_1"]["targets"], json::array({"l.b"}));
}

TEST(QuantizationConfig, SaysNothingAboutADenseModel) {
  EXPECT_EQ(
      compressed_tensors_config(
          {{"l", described({.weight = make_dense(sample_matrix(2, 2).view(),
                                                 DType::kF32)})}},
          {"lm_head"}),
      "");
}

TEST(QuantizationConfig, KeepsTheOrderOfTheModelsKeys) {
  EXPECT_EQ(
      with_quantization_config(R"({"z":1,"a":1e-05,"quantization_config":{}})",
                               R"({"quant_method":"m"})"),
      "{\n  \"z\": 1,\n  \"a\": 1e-05,\n  \"quantization_config\": {\n"
      "    \"quant_method\": \"m\"\n  }\n}\n");
}

}  // namespace
}  // namespace llmpress
