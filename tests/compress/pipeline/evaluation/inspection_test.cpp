#include "compress/pipeline/evaluation/inspection.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "compress/core/error.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/run/run.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

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
    return std::ranges::any_of(verification.notes, [&](const auto& note) {
      return note.find(what) != std::string::npos;
    });
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
    EXPECT_TRUE(found.problems.empty()) << method;
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
    EXPECT_TRUE(found.problems.empty()) << transforms;
    EXPECT_LT(largest_error(found), 0.02) << transforms;
    EXPECT_TRUE(says(found, "compared with the base after its recipe's"))
        << transforms;
  }
}

TEST_F(Verifying, LeavesPlainRoundingAlone) {
  const Verification found =
      of("{quantize: {method: rtn, weights: {bits: 2, "
         "group_size: 64}}}");
  EXPECT_TRUE(found.problems.empty());
  EXPECT_TRUE(found.notes.empty());
  EXPECT_GT(largest_error(found), 0.2);
}

TEST_F(Verifying, TakesSparseWeightsForWhatTheyKeep) {
  const Verification found = of("{prune: {method: magnitude, sparsity: 0.98}}");
  EXPECT_TRUE(found.problems.empty());
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
    EXPECT_GE(found.problems.size() + kBlocks, found.linears.size()) << factor;
  }
  EXPECT_TRUE(against(Other(*base_, 1.0f), *base_).problems.empty());
}

TEST_F(Verifying, SaysThatPartsThatWereCutHaveNoCounterpart) {
  const Verification found =
      of("{prune: {method: ffn, sparsity: 0.25, heal: false, importance: "
         "weights}}");
  EXPECT_TRUE(found.problems.empty());
  EXPECT_TRUE(says(found, "takes parts of the model away"));
  EXPECT_FALSE(found.linears.front().relative_error);
}

// Stacked experts and weights that lie the other way round.
TEST(Inspecting, FindsLinearsWhereverTheyLie) {
  for (const char* name : {"gpt_oss", "granitemoehybrid", "gpt2", "phimoe"}) {
    const auto golden =
        open_checkpoint(std::filesystem::path(LLMPRESS_SOURCE_DIR) /
                        "tests/compress/model/goldens" / name);
    const Architecture arch = read_architecture(*golden);
    const Inspection found = inspect(*golden, arch);
    std::size_t linears = 0, bytes = 0;
    for (const InspectedTensor& tensor : found.tensors) {
      linears += tensor.linear ? 1 : 0;
      bytes += tensor.linear ? tensor.bytes : 0;
      EXPECT_EQ(tensor.name.find("gate_up_proj"), std::string::npos)
          << "the stack beside its experts";
    }
    EXPECT_EQ(linears, arch.linear_names().size()) << name;
    EXPECT_EQ(bytes, found.size.linear_bytes) << name;
  }
}

}  // namespace
}  // namespace llmpress
