#include "formats/adapters/peft_adapter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "compress/core/checked.h"
#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/rng.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/sharded.h"
#include "formats/containers/typed_tensors.h"
#include "tests/formats/containers/torch_writer.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

using json = nlohmann::json;

json plain_config() {
  return {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 6}};
}

PeftConfig parse(const json& config) {
  return parse_peft_config(config.dump(), "adapter_config.json");
}

std::string refusal(ErrorCode code, const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "was accepted";
  return "";
}

NamedTensor tensor(const std::string& name, std::vector<std::size_t> shape,
                   std::vector<float> values, DType dtype = DType::kF32) {
  return float_tensor("base_model.model." + name, dtype, std::move(shape),
                      values);
}

PeftAdapter read(const json& config, const std::vector<NamedTensor>& tensors) {
  const auto file =
      std::make_shared<const std::string>(write_safetensors(tensors, {}));
  const auto reader = read_safetensors({std::as_bytes(std::span(*file)), file},
                                       "adapter_model.safetensors");
  return read_peft_tensors(parse(config), *reader);
}

// A [2, 3], B [2, 2] of module "m.q".
std::vector<NamedTensor> plain_tensors() {
  return {tensor("m.q.lora_A.weight", {2, 3}, {1, 2, 3, 4, 5, 6}),
          tensor("m.q.lora_B.weight", {2, 2}, {7, 8, 9, 10})};
}

bool holds(const MatrixF& M, const std::vector<float>& values) {
  return std::ranges::equal(M.data(), values);
}

TEST(PeftConfig, ScalesByAlphaOverRankOrItsRoot) {
  json config = plain_config();
  EXPECT_EQ(parse(config).scaling_of("m.q"), 3);
  config["use_rslora"] = true;
  EXPECT_DOUBLE_EQ(parse(config).scaling_of("m.q"), 6 / std::sqrt(2.0));
  EXPECT_EQ(parse({{"peft_type", "LORA"}}).scaling_of("m.q"), 1);  // 8 / 8
}

TEST(PeftConfig, TakesTheFirstPatternThatMatchesInTheOrderOfTheFile) {
  const PeftConfig config = parse_peft_config(
      R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8,
          "rank_pattern": {"q_proj": 16, "0\\.q_proj": 32, "[kv]_proj": 2,
                           "^head": 3},
          "alpha_pattern": {"k_proj": 5.5}})",
      "adapter_config.json");
  EXPECT_EQ(config.rank_of("model.layers.0.q_proj"), 16u);
  EXPECT_EQ(config.rank_of("q_proj"), 16u);
  EXPECT_EQ(config.rank_of("model.xq_proj"), 4u);
  EXPECT_EQ(config.rank_of("model.q_proj.x"), 4u);
  EXPECT_EQ(config.rank_of("a.v_proj"), 2u);
  EXPECT_EQ(config.rank_of("head"), 3u);
  EXPECT_EQ(config.rank_of("a.head"), 4u);
  EXPECT_EQ(config.scaling_of("a.k_proj"), 2.75);
  EXPECT_EQ(config.scaling_of("a.v_proj"), 4);
}

TEST(PeftConfig, AHundredThousandPatternsAreBoundedWork) {
  for (const std::string end : {"q_proj", "(q|k)_proj"}) {  // names, patterns
    std::string text = R"({"peft_type": "LORA", "rank_pattern": {)";
    for (int i = 0; i < 100'000; ++i) {
      text += formatted("\"layers\\\\.{}.{}\": {}, ", i, end, i % 99 + 1);
    }
    text += "\"last\": 1000}}";
    const PeftConfig config = parse_peft_config(text, "adapter_config.json");
    for (int i = 0; i < 15; ++i) {
      const std::string layer = "m.layers." + std::to_string(i);
      EXPECT_EQ(config.rank_of(layer + ".q_proj"),
                static_cast<std::size_t>(i + 1));
      EXPECT_EQ(config.rank_of(layer + ".v_proj"), 8u);
    }
  }
}

TEST(PeftConfig, APatternThatBacktracksWithoutEndIsAnErrorThatNamesIt) {
  const PeftConfig config = parse_peft_config(
      R"({"peft_type": "LORA", "rank_pattern": {"(.+)+(.+)+[QZ]": 2}})",
      "a/adapter_config.json");
  try {
    (void)config.rank_of("model.layers.11.self_attn.q_proj.and.then.some.more");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
    EXPECT_TRUE(std::string(error.what())
                    .starts_with("a/adapter_config.json: /rank_pattern: "
                                 "regular expression '(.+)+(.+)+[QZ]' takes"))
        << error.what();
  }
}

TEST(PeftConfig, RefusesWhatChangesTheMeaningByItsKey) {
  const std::vector<std::pair<std::string, json>> changes{
      {"use_qalora", true},
      {"use_bdlora", true},
      {"layer_replication", json::parse("[[0, 4], [2, 5]]")},
      {"target_parameters", {"experts.gate_up_proj"}},
      {"trainable_token_indices", {1, 2}},
      {"megatron_config", {{"tensor_model_parallel_size", 2}}},
      {"alora_invocation_tokens", {5}},
      {"arrow_config", {{"top_k", 3}}},
      {"ensure_weight_tying", true},
      {"init_lora_weights", "pissa"},
      {"init_lora_weights", "pissa_niter_16"},
      {"init_lora_weights", "olora"},
      {"init_lora_weights", "corda"},
      {"init_lora_weights", "loftq"},
      {"init_lora_weights", "lora_ga"},
      {"peft_type", "LOHA"},
      {"bias", "some"},
      {"a_key_of_tomorrow", 1}};
  for (const auto& [key, value] : changes) {
    json config = plain_config();
    config[key] = value;
    const std::string what =
        refusal(ErrorCode::kUnsupported, [&] { parse(config); });
    EXPECT_NE(what.find(key), std::string::npos) << what;
  }
}

TEST(PeftConfig, PassesOverWhatIsOffOrOnlyHistory) {
  json config = plain_config();
  for (const char* const key : {"use_qalora", "a_key_of_tomorrow"}) {
    config[key] = false;
  }
  config["layer_replication"] = nullptr;
  config["loftq_config"] = json::object();
  config["megatron_core"] = "megatron.core";
  config["init_lora_weights"] = "gaussian";
  config["layers_to_transform"] = {0, 1};
  config["qalora_group_size"] = 16;
  config["runtime_config"] = {{"ephemeral_gpu_offload", false}};
  config["target_modules"] = "all-linear";
  EXPECT_EQ(parse(config).target_modules,
            std::vector<std::string>{"all-linear"});
}

TEST(PeftConfig, RefusesWrongTypesAndRanges) {
  const std::vector<std::pair<std::string, json>> broken{
      {"r", "8"},
      {"r", -1},
      {"r", 1.5},
      {"r", 99999999999},
      {"lora_alpha", {}},
      {"use_dora", 1},
      {"bias", true},
      {"rank_pattern", {1}},
      {"target_modules", {1}},
      {"init_lora_weights", 3}};
  for (const auto& [key, value] : broken) {
    if (value.is_null()) continue;
    json config = plain_config();
    config[key] = value;
    refusal(ErrorCode::kCorruptFile, [&] { parse(config); });
  }
  json config = plain_config();
  config["r"] = 0;
  refusal(ErrorCode::kInvalidInput, [&] { parse(config); });
  refusal(ErrorCode::kCorruptFile, [] { parse(json::object()); });
}

TEST(PeftAdapter, ReadsEveryPartByModule) {
  json config = plain_config();
  config["lora_bias"] = true;
  std::vector<NamedTensor> tensors = plain_tensors();
  tensors.push_back(tensor("m.q.lora_B.bias", {2}, {-1, -2}));
  tensors.push_back(tensor("m.q.base_layer.bias", {2}, {3, 4}));
  tensors.push_back(tensor("e.lora_embedding_A", {2, 4},
                           {1, 2, 3, 4, 5, 6, 7, 8}, DType::kBF16));
  tensors.push_back(tensor("e.lora_embedding_B", {1, 2}, {9, 10}, DType::kF16));
  tensors.push_back(tensor("norm.weight", {3}, {1, 1, 2}));
  tensors.push_back(tensor("head.weight", {1, 2}, {5, 6}));
  const PeftAdapter adapter = read(config, tensors);
  ASSERT_EQ(adapter.modules.size(), 4u);
  const PeftModule& q = adapter.modules.at("m.q");
  EXPECT_TRUE(holds(q.A, {1, 2, 3, 4, 5, 6}));
  EXPECT_TRUE(holds(q.B, {7, 8, 9, 10}));
  EXPECT_EQ(q.scaling, 3);
  EXPECT_FALSE(q.embedding);
  EXPECT_EQ(q.lora_bias, (std::vector<float>{-1, -2}));
  EXPECT_EQ(q.bias->values, (std::vector<float>{3, 4}));
  const PeftModule& e = adapter.modules.at("e");
  EXPECT_TRUE(e.embedding);
  EXPECT_EQ(e.A.cols(), 4u);
  EXPECT_TRUE(holds(e.B, {9, 10}));
  EXPECT_EQ(adapter.modules.at("norm").weight->shape,
            std::vector<std::size_t>{3});
  EXPECT_FALSE(adapter.modules.at("head").has_factors());
}

TEST(PeftAdapter, ReadsDoraUnderBothNamesOfItsMagnitude) {
  json config = plain_config();
  config["use_dora"] = true;
  for (const char* const suffix : {"", ".weight"}) {
    std::vector<NamedTensor> tensors = plain_tensors();
    tensors.push_back(
        tensor(std::string("m.q.lora_magnitude_vector") + suffix, {2}, {5, 6}));
    EXPECT_EQ(read(config, tensors).modules.at("m.q").magnitude,
              (std::vector<float>{5, 6}));
  }
  refusal(ErrorCode::kInvalidInput, [&] { read(config, plain_tensors()); });
}

TEST(PeftAdapter, RefusesTensorsThatItDoesNotKnow) {
  for (const char* const name :
       {"m.q.lora_C.weight", "m.q.lora_A.default.weight",
        "m.experts.base_layer.lora_A.weight",
        "m.e.token_adapter.trainable_tokens_delta", ".weight", "m.q.gate"}) {
    std::vector<NamedTensor> tensors = plain_tensors();
    tensors.push_back(tensor(name, {2, 2}, {1, 2, 3, 4}));
    const std::string what = refusal(ErrorCode::kUnsupported,
                                     [&] { read(plain_config(), tensors); });
    EXPECT_NE(what.find(name), std::string::npos);
  }
  refusal(ErrorCode::kUnsupported, [] {
    read(plain_config(), {float_tensor("model.m.q.lora_A.weight", DType::kF32,
                                       {1}, std::vector<float>{1})});
  });
  refusal(ErrorCode::kInvalidInput, [] { read(plain_config(), {}); });
}

enum class Defect {
  kNoA,
  kNoB,
  kRankOfA,
  kRankOfB,
  kConfigRank,
  kMagnitude,
  kNoMagnitude,
  kOneDimension,
  kThreeDimensions,
  kEmpty,
  kInteger,
  kNan,
  kInfinity,
  kCount
};

std::vector<float> random_values(std::size_t n, Rng& rng) {
  std::vector<float> values(n);
  for (float& v : values) v = static_cast<float>(rng.normal());
  return values;
}

struct Sample {
  json config = plain_config();
  std::size_t out = 0, in = 0, rank = 0;
  std::vector<float> A{}, B{};
  std::vector<NamedTensor> tensors{};
};

Sample random_adapter(Rng& rng) {
  Sample s;
  s.out = 1 + rng.below(37);
  s.in = 1 + rng.below(61);
  s.rank = 1 + rng.below(11);
  const DType dtype =
      std::array{DType::kF32, DType::kF16, DType::kBF16}[rng.below(3)];
  s.A = random_values(s.rank * s.in, rng);
  s.B = random_values(s.out * s.rank, rng);
  round_through(dtype, s.A);
  round_through(dtype, s.B);
  s.config["r"] = s.rank;
  const bool pattern = rng.below(2) == 0;
  if (pattern) {
    s.config["r"] = 77;
    s.config["rank_pattern"] = {{"q", s.rank}};
  }
  s.tensors = {tensor("m.q.lora_A.weight", {s.rank, s.in}, s.A, dtype),
               tensor("m.q.lora_B.weight", {s.out, s.rank}, s.B, dtype)};
  if (rng.below(2) == 0) {
    s.config["use_dora"] = true;
    s.tensors.push_back(tensor("m.q.lora_magnitude_vector", {s.out},
                               random_values(s.out, rng)));
  }
  return s;
}

void break_adapter(Defect defect, Sample& s, Rng& rng) {
  NamedTensor& A = s.tensors[0];
  NamedTensor& B = s.tensors[1];
  const auto again = [&](NamedTensor& t, std::vector<std::size_t> shape) {
    const std::size_t n = checked_elements(shape, "test");
    t = float_tensor(t.name, DType::kF32, shape, random_values(n, rng));
  };
  const auto poison = [&](float value) {
    again(B, {s.out, s.rank});
    std::memcpy(B.bytes.data() + 4 * rng.below(s.out * s.rank), &value, 4);
  };
  switch (defect) {
    case Defect::kNoA:
      s.tensors.erase(s.tensors.begin());
      break;
    case Defect::kNoB:
      s.tensors.erase(s.tensors.begin() + 1);
      break;
    case Defect::kRankOfA:
      again(A, {s.rank + 1, s.in});
      break;
    case Defect::kRankOfB:
      again(B, {s.out, s.rank + 1});
      break;
    case Defect::kConfigRank:
      s.config["rank_pattern"] = {{"m.q", s.rank + 1}};
      break;
    case Defect::kMagnitude:
      s.config["use_dora"] = true;
      s.tensors.resize(2);
      s.tensors.push_back(tensor("m.q.lora_magnitude_vector", {s.out + 1},
                                 random_values(s.out + 1, rng)));
      break;
    case Defect::kNoMagnitude:
      s.config["use_dora"] = s.tensors.size() == 2;
      break;
    case Defect::kOneDimension:
      again(A, {s.rank * s.in});
      break;
    case Defect::kThreeDimensions:
      again(A, {s.rank, s.in, 1});
      break;
    case Defect::kEmpty:
      again(A, {s.rank, 0});
      break;
    case Defect::kInteger:
      A.dtype = DType::kI32;
      A.shape = {s.rank, s.in};
      A.bytes.resize(4 * s.rank * s.in);
      break;
    case Defect::kNan:
      poison(std::numeric_limits<float>::quiet_NaN());
      break;
    case Defect::kInfinity:
      poison(-std::numeric_limits<float>::infinity());
      break;
    case Defect::kCount:
      break;
  }
}

TEST(PeftAdapter, IsExactOrRefusesForAThousandRandomAdapters) {
  Rng rng(31);
  for (int trial = 0; trial < 1000; ++trial) {
    Sample s = random_adapter(rng);
    if (rng.below(2) == 0) {
      const PeftAdapter adapter = read(s.config, s.tensors);
      const PeftModule& q = adapter.modules.at("m.q");
      EXPECT_TRUE(holds(q.A, s.A) && q.A.rows() == s.rank) << trial;
      EXPECT_TRUE(holds(q.B, s.B) && q.B.rows() == s.out) << trial;
      EXPECT_EQ(q.scaling, 6 / static_cast<double>(s.rank));
      continue;
    }
    const auto defect = static_cast<Defect>(
        rng.below(static_cast<std::uint64_t>(Defect::kCount)));
    break_adapter(defect, s, rng);
    const std::string what =
        refusal(ErrorCode::kInvalidInput, [&] { read(s.config, s.tensors); });
    EXPECT_NE(what.find("m.q.lora_"), std::string::npos)
        << what << ", defect " << static_cast<int>(defect);
  }
}

TEST(PeftAdapter, NamesTheTensorAndThePlaceOfANan) {
  std::vector<NamedTensor> tensors = plain_tensors();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(tensors[0].bytes.data() + 16, &nan, 4);
  const std::string what =
      refusal(ErrorCode::kInvalidInput, [&] { read(plain_config(), tensors); });
  EXPECT_NE(what.find("m.q.lora_A.weight"), std::string::npos) << what;
  EXPECT_NE(what.find("[1, 1]"), std::string::npos) << what;
}

TEST(PeftAdapter, ReadsAFolderWholeOrInShards) {
  const TemporaryDirectory folder;
  const auto path = folder.path();
  write_file_atomically(path / "adapter_config.json", plain_config().dump());
  refusal(ErrorCode::kIo, [&] { read_peft_adapter(path); });
  write_file_atomically(path / "adapter_model.bin", "x");
  refusal(ErrorCode::kUnsupported, [&] { read_peft_adapter(path); });
  const std::vector<NamedTensor> tensors = plain_tensors();
  write_file_atomically(path / "adapter_model.bin",
                        testing::torch_file(tensors));
  EXPECT_EQ(read_peft_adapter(path).modules.size(), 1u);
  std::map<std::string, std::string> index;
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string file = formatted("shard-{}.safetensors", i);
    write_file_atomically(path / file,
                          write_safetensors(std::span(&tensors[i], 1), {}));
    index[tensors[i].name] = file;
  }
  write_file_atomically(path / "adapter_model.safetensors.index.json",
                        shard_index_json(index, 40));
  EXPECT_TRUE(
      holds(read_peft_adapter(path).modules.at("m.q").B, {7, 8, 9, 10}));
  write_file_atomically(path / "adapter_model.safetensors",
                        write_safetensors(tensors, {}));
  EXPECT_EQ(read_peft_adapter(path).modules.size(), 1u);
}

TEST(PeftAdapterWriter, WritesWhatItReads) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "adapter";
  std::map<std::string, PeftModule> modules;
  modules["a.q"] = {.A = {{1, 2, 3}, 1, 3}, .B = {{4, 5}, 2, 1}};
  modules["b.a.q"] = {.A = {{1, 2, 3, 4}, 2, 2},
                      .B = {{5, 6}, 1, 2},
                      .scaling = 0.25,
                      .bias = PeftReplacement{{1}, {8}}};
  modules["c.q"] = modules["a.q"];
  modules["e"] = {.A = {{1, 2}, 1, 2}, .B = {{4, 5}, 2, 1}, .embedding = true};
  modules["norm"] = {.weight = PeftReplacement{{2}, {1, 0.5f}}};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    write_peft_adapter(path, modules, {.base_model = "base", .dtype = dtype});
    const PeftAdapter adapter = read_peft_adapter(path);
    EXPECT_EQ(adapter.config.base_model, "base");
    EXPECT_EQ(adapter.config.rank, 1u);
    EXPECT_EQ(adapter.config.modules_to_save, std::vector<std::string>{"norm"});
    ASSERT_EQ(adapter.modules.size(), modules.size());
    for (const auto& [name, wanted] : modules) {
      const PeftModule& found = adapter.modules.at(name);
      EXPECT_TRUE(std::ranges::equal(found.A.data(), wanted.A.data()));
      EXPECT_TRUE(std::ranges::equal(found.B.data(), wanted.B.data()));
      EXPECT_EQ(found.A.rows(), wanted.A.rows());
      EXPECT_EQ(found.scaling, wanted.scaling) << name;
      EXPECT_EQ(found.embedding, wanted.embedding);
      EXPECT_EQ(found.weight.has_value(), wanted.weight.has_value());
      EXPECT_EQ(found.bias.has_value(), wanted.bias.has_value());
    }
  }
}

TEST(PeftAdapterWriter, RefusesWhatNoReaderWouldTake) {
  const TemporaryDirectory folder;
  const auto write = [&](const std::map<std::string, PeftModule>& modules,
                         DType dtype) {
    return refusal(ErrorCode::kInvalidArgument, [&] {
      write_peft_adapter(folder.path() / "a", modules, {.dtype = dtype});
    });
  };
  write({}, DType::kF32);
  write({{"q", {}}}, DType::kF32);
  write({{"q", {.A = {{1}, 1, 1}, .B = {{1, 2}, 1, 2}}}}, DType::kF32);
  const PeftModule large{.A = {{1e6f}, 1, 1}, .B = {{1}, 1, 1}};
  (void)refusal(ErrorCode::kNumeric, [&] {
    write_peft_adapter(folder.path() / "a", {{"q", large}},
                       {.dtype = DType::kF16});
  });
  PeftModule dora = large;
  dora.magnitude = {1};
  write({{"p", large}, {"q", dora}}, DType::kF32);
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "a"));
  write_file_atomically(folder.path() / "precious", "x");
  refusal(ErrorCode::kInvalidArgument, [&] {
    write_peft_adapter(folder.path(), {{"q", large}}, {});
  });
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "precious"));
}

}  // namespace
}  // namespace llmpress
