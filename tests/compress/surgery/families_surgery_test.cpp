// What leaves a model's function alone, on every family that has a golden.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "compress/model/decoder.h"
#include "compress/model/tensor_places.h"
#include "compress/surgery/checkpoint_overlay.h"
#include "compress/surgery/model_rotation.h"
#include "compress/surgery/outlier_injection.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> goldens() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(
           fs::path(source_dir()) / "tests/compress/model/goldens")) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

class FamiliesSurgery : public testing::TestWithParam<std::string> {
 protected:
  MatrixF logits(const Checkpoint& checkpoint) {
    const Decoder decoder(checkpoint, {.isa = Isa::kScalar});
    const std::vector<TokenId> ids{5, 6, 7, 8, 9, 3, 12, 20, 31, 33};
    const Segment all{ids.size(), 0, nullptr};
    const MatrixF hidden = decoder.forward(ids, {&all, 1}, pool_);
    return decoder.ends().logits(hidden.view(), pool_);
  }

  // `edits` in float32 leave the logits as they are.
  void expect_same_function(CheckpointEdits edits) {
    edits.dtype = DType::kF32;
    const auto changed = overlay(*checkpoint_, std::move(edits));
    const MatrixF before = logits(*checkpoint_), after = logits(*changed);
    float largest = 0, difference = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
      largest = std::max(largest, std::abs(before.data()[i]));
      difference =
          std::max(difference, std::abs(before.data()[i] - after.data()[i]));
    }
    EXPECT_LE(difference, 2e-4 * largest);
  }

  std::unique_ptr<Checkpoint> checkpoint_ = open_checkpoint(
      fs::path(source_dir()) / "tests/compress/model/goldens" / GetParam());
  Architecture arch_ = read_architecture(*checkpoint_);
  ThreadPool pool_{2};
};

TEST_P(FamiliesSurgery, OutliersLeaveTheFunctionAlone) {
  const auto change = [&] {
    expect_same_function(
        inject_outliers(*checkpoint_, arch_, {.factor = 8, .channels = 2}));
  };
  if (GetParam() == "gpt_oss_mxfp4") {
    EXPECT_THROW(change(), Error);  // its stacks stay as they are
  } else {
    change();
  }
}

// Those whose stream no rotation can pass: norms with a mean or behind a part,
// what is read without a norm.
const std::set<std::string> kNotRotated{
    "bloom",       "bloom_2",       "codegen",       "codegen_2",
    "cohere",      "cohere2",       "cohere_2",      "exaone4",
    "exaone4_2",   "falcon",        "falcon_2",      "falcon_3",
    "falcon_4",    "falcon_h1",     "flex_olmo",     "flex_olmo_2",
    "gemma2",      "gemma3",        "gemma3_text",   "gemma3_text_2",
    "gemma4_text", "gemma4_text_2", "glm4",          "gpt2",
    "gpt2_2",      "gpt_bigcode",   "gpt_bigcode_2", "gpt_neo",
    "gpt_neox",    "gpt_neox_2",    "gpt_oss_mxfp4", "gptj",
    "jais2",       "jais2_2",       "minimax",       "mpt",
    "mpt_2",       "nemotron",      "nemotron_2",    "olmo",
    "olmo2",       "olmo3",         "olmo3_2",       "olmo_2",
    "opt",         "opt_2",         "persimmon",     "persimmon_2",
    "phi",         "phimoe",        "phimoe_2",      "rwkv",
    "stablelm",    "stablelm_2",    "starcoder2"};

TEST_P(FamiliesSurgery, RotationsLeaveTheFunctionAlone) {
  const bool refused = kNotRotated.contains(GetParam());
  try {
    expect_same_function(
        rotate_model(*checkpoint_, arch_, {.seed = 1}, pool_).edits);
    EXPECT_FALSE(refused);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_TRUE(refused) << e.what();
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, FamiliesSurgery, testing::ValuesIn(goldens()),
                         [](const auto& golden) { return golden.param; });

}  // namespace
}  // namespace llmpress
