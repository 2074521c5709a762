#include "compress/pipeline/evaluation/verification.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/run/run.h"
#include "formats/containers/safetensors.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

class Verifying : public testing::Test {
 protected:
  Verification of(const std::string& stages) {
    const auto out = directory_.path() / "out";
    run_recipe(small_recipe("[" + stages + "]", out), {}, pool_);
    return against(*open_checkpoint(out), *base_);
  }
  Verification against(const Checkpoint& artifact, const Checkpoint& base) {
    const Architecture arch =
        parse_architecture(artifact.config_json(), "artifact");
    return verify(artifact, arch, &base, pool_);
  }
  static double largest_error(const Verification& verification) {
    double largest = 0;
    for (const VerifiedLinear& linear : verification.linears) {
      largest = std::max(largest, linear.relative_error.value_or(9));
    }
    return largest;
  }
  static bool says(const Verification& verification, const std::string& what) {
    return std::ranges::any_of(
        verification.findings, [&](const Finding& finding) {
          return to_line(finding).find(what) != std::string::npos;
        });
  }
  static std::size_t errors_of(const Verification& verification) {
    return verification.count(FindingKind::kError);
  }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
  std::unique_ptr<Checkpoint> base_ =
      open_checkpoint(shipped("tinystories-3.7m"));
};

// 8 bits in rows of 256 whose scales were moved leave errors below 0.03; moved
// scales alone would make them 0.5, a rotation 1.4.
TEST_F(Verifying, MeasuresRoundingWhereScalesWereMoved) {
  for (const std::string method : {"smoothquant", "awq"}) {
    const Verification found =
        of("{quantize: {method: " + method + ", scheme: W8A8}}");
    EXPECT_EQ(errors_of(found), 0u) << method;
    EXPECT_LT(largest_error(found), 0.03) << method;
    EXPECT_TRUE(says(found, "scales were moved from input_layernorm"))
        << method;
  }
}

TEST_F(Verifying, RepeatsTheRecipesRotationsOnTheBase) {
  for (const std::string transforms :
       {"{rotate: {seed: 3}}",
        "{inject_outliers: {}}, {rotate: {online: true}}",
        "{inject_outliers: {factor: 7}}"}) {
    const Verification found =
        of(transforms + ", {quantize: {method: rtn, scheme: W8A16}}");
    EXPECT_EQ(errors_of(found), 0u) << transforms;
    EXPECT_LT(largest_error(found), 0.02) << transforms;
    EXPECT_TRUE(says(found, "compared with the base after its recipe's"))
        << transforms;
  }
}

TEST_F(Verifying, LeavesPlainRoundingAlone) {
  const Verification found =
      of("{quantize: {method: rtn, weights: {bits: 2, "
         "group_size: 64}}}");
  EXPECT_EQ(errors_of(found), 0u);
  EXPECT_TRUE(found.findings.empty());
  EXPECT_GT(largest_error(found), 0.2);
}

TEST_F(Verifying, TakesSparseWeightsForWhatTheyKeep) {
  const Verification found = of("{prune: {method: magnitude, sparsity: 0.98}}");
  EXPECT_EQ(errors_of(found), 0u);
  EXPECT_GT(largest_error(found), 0.8);
}

// A base of other weights: errors near sqrt(2), and of none at all: exactly 1.
TEST_F(Verifying, FailsForWeightsThatAreNotTheBases) {
  class Other : public Checkpoint {
   public:
    Other(const Checkpoint& base, float factor)
        : base_(base), factor_(factor) {}
    const std::filesystem::path& path() const override { return path_; }
    const TensorReader& tensors() const override { return base_.tensors(); }
    const std::string& config_json() const override {
      return base_.config_json();
    }
    std::string_view format() const override { return base_.format(); }
    bool has_linear(std::string_view name) const override {
      return base_.has_linear(name);
    }
    const TensorInfo* plain_weight(std::string_view name) const override {
      return base_.plain_weight(name);
    }
    LinearWeights read_linear(std::string_view name) const override {
      LinearWeights linear = base_.read_linear(name);
      MatrixF W = dequantize(linear.weight);
      for (float& w : W.data()) w *= factor_;
      linear.weight = make_dense(W.view(), DType::kF32);
      return linear;
    }

   private:
    const Checkpoint& base_;
    float factor_;
    std::filesystem::path path_ = "other";
  };
  // Codes read without their scales, and weights that were lost.
  for (const float factor : {0.001f, 0.0f, -1.0f, 300.0f}) {
    const Verification found = against(Other(*base_, factor), *base_);
    // Rows that are all smaller may have been moved into the Linear behind
    // them: then that one is wrong.
    constexpr std::size_t kBlocks = 4;
    EXPECT_GE(errors_of(found) + kBlocks, found.linears.size()) << factor;
  }
  EXPECT_EQ(errors_of(against(Other(*base_, 1.0f), *base_)), 0u);
}

TEST_F(Verifying, SaysThatPartsThatWereCutHaveNoCounterpart) {
  const Verification found =
      of("{prune: {method: ffn, sparsity: 0.25, heal: false, importance: "
         "weights}}");
  EXPECT_EQ(errors_of(found), 0u);
  EXPECT_TRUE(says(found, "takes parts of the model away"));
  EXPECT_FALSE(found.linears.front().relative_error);
}

// A folder with the shipped model's files whose tensors `change` has altered.
class Damaged : public Verifying {
 protected:
  using Change = std::function<void(std::vector<NamedTensor>&)>;

  std::filesystem::path folder(const std::filesystem::path& source,
                               const Change& change) {
    const auto out = directory_.path() / "damaged";
    std::filesystem::create_directories(out);
    for (const auto& [name, content] : files_of(source)) {
      if (!name.ends_with(".safetensors")) {
        write_file_atomically(out / name, content);
      }
    }
    const auto reader = open_tensors(source);
    std::vector<NamedTensor> tensors;
    for (const TensorInfo& info : reader->tensors()) {
      const TensorBytes data = reader->read(info);
      tensors.push_back({.name = info.name,
                         .dtype = info.dtype,
                         .shape = info.shape,
                         .bytes = {data.bytes.begin(), data.bytes.end()}});
    }
    change(tensors);
    write_file_atomically(out / "model.safetensors",
                          write_safetensors(tensors, {}));
    return out;
  }
  Verification verified(const std::filesystem::path& path) {
    const auto checkpoint = open_checkpoint(path);
    return verify(*checkpoint, read_architecture(*checkpoint), nullptr, pool_);
  }
  static NamedTensor& named(std::vector<NamedTensor>& tensors,
                            const std::string& name) {
    return *std::ranges::find(tensors, name, &NamedTensor::name);
  }
};

TEST_F(Damaged, EveryFaultIsAFindingWithItsPlace) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Verification found = verified(
      folder(shipped("tinystories-3.7m"), [&](std::vector<NamedTensor>& all) {
        auto& up = named(all, "model.layers.1.mlp.up_proj.weight");
        std::memcpy(up.bytes.data() + 4, &nan, sizeof nan);
        auto& norm = named(all, "model.layers.2.input_layernorm.weight");
        std::memcpy(norm.bytes.data(), &nan, sizeof nan);
        auto& query = named(all, "model.layers.3.self_attn.q_proj.weight");
        std::swap(query.shape[0], query.shape[1]);
        query.shape[0] /= 2;
        query.shape[1] *= 2;
        std::erase_if(all, [](const NamedTensor& t) {
          return t.name == "model.layers.0.self_attn.k_proj.weight";
        });
        all.push_back({.name = "model.layers.0.mlp.extra.weight",
                       .dtype = DType::kF32,
                       .shape = {1},
                       .bytes = std::vector<std::byte>(4)});
        all.push_back({.name = "model.layers.4.mlp.up_proj.weight",
                       .dtype = DType::kF32,
                       .shape = {1},
                       .bytes = std::vector<std::byte>(4)});
      }));
  EXPECT_EQ(errors_of(found), 4u);
  EXPECT_EQ(found.count(FindingKind::kWarning), 2u);
  for (const char* const line :
       {"error: ", "model.layers.1.mlp.up_proj",
        "model.layers.2.input_layernorm",
        "model.layers.3.self_attn.q_proj' is [128, 512], wanted [256, 256]",
        "model.layers.0.self_attn.k_proj.weight' is missing",
        "warning: model.layers.0.mlp.extra.weight: no module of llama reads",
        "warning: model.layers.4: 1 tensors that belong to no block"}) {
    EXPECT_TRUE(says(found, line)) << line;
  }
  const auto json = nlohmann::json::parse(to_json(found));
  EXPECT_EQ(json["ok"], false);
  EXPECT_EQ(json["findings"].size(), found.findings.size());
}

TEST_F(Damaged, NaNOctetsOfFp8AreErrors) {
  const auto out = directory_.path() / "fp8";
  run_recipe(
      small_recipe("[{quantize: {method: rtn, scheme: FP8_DYNAMIC}}]", out), {},
      pool_);
  EXPECT_TRUE(verified(out).findings.empty());
  const Verification found =
      verified(folder(out, [](std::vector<NamedTensor>& all) {
        named(all, "model.layers.2.mlp.up_proj.weight").bytes[5] =
            std::byte{0x7f};
      }));
  EXPECT_EQ(errors_of(found), 1u);
  EXPECT_TRUE(says(found, "model.layers.2.mlp.up_proj"));
}

// What a wrong word in config.json does to GPTQ's zero points.
TEST_F(Damaged, ZeroPointsOfTheOtherConventionAreFound) {
  const auto out = directory_.path() / "gptq";
  Recipe recipe = small_recipe(
      "[{quantize: {method: rtn, weights: {bits: 4, group_size: 32, symmetric: "
      "false}}}]",
      out, "");
  recipe.output->format = "gptq";
  run_recipe(recipe, {}, pool_);
  EXPECT_TRUE(verified(out).findings.empty());
  const auto config = read_file(out / "config.json");
  auto json = nlohmann::ordered_json::parse(config);
  auto& format = json["quantization_config"]["checkpoint_format"];
  const bool first = format == "gptq";
  format = first ? "gptq_v2" : "gptq";
  write_file_atomically(out / "config.json", json.dump());
  const Verification found = verified(out);
  EXPECT_EQ(errors_of(found), 1u);
  EXPECT_TRUE(says(found, first ? "one too small" : "one too large"));
}

// No family has tensors that nothing reads, or that are found twice.
TEST_F(Verifying, FindsNothingInModelsThatAreWhole) {
  const auto goldens =
      std::filesystem::path(source_dir()) / "tests/compress/model/goldens";
  for (const auto& entry : std::filesystem::directory_iterator(goldens)) {
    if (!std::filesystem::exists(entry.path() / "config.json")) continue;
    const auto checkpoint = open_checkpoint(entry.path());
    const Verification found =
        verify(*checkpoint, read_architecture(*checkpoint), nullptr, pool_);
    for (const Finding& finding : found.findings) {
      EXPECT_TRUE(finding.kind == FindingKind::kNote ||
                  finding.place == "tokenizer")
          << entry.path() << ": " << to_line(finding);
    }
  }
}

}  // namespace
}  // namespace llmpress
