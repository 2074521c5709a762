// gpt-oss as it is published, through runs: its stacks are neither lost nor
// rounded twice.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "compress/model/decoder.h"
#include "compress/pipeline/evaluation/inspection.h"
#include "compress/pipeline/evaluation/verification.h"
#include "compress/pipeline/run/run.h"
#include "recipes/recipe_parser.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

fs::path golden() {
  return fs::path(source_dir()) / "tests/compress/model/goldens/gpt_oss_mxfp4";
}

class Mxfp4Run : public testing::Test {
 protected:
  std::unique_ptr<Checkpoint> run(
      const std::string& stage,
      const std::string& format = "compressed-tensors") {
    const fs::path out = directory_.path() / format;
    run_recipe(parse_recipe("model: " + golden().string() + "\nstages: [" +
                                stage + "]\noutput: {path: " + out.string() +
                                ", format: " + format + "}\n",
                            "test.yaml"),
               {}, pool_);
    return open_checkpoint(out);
  }

  MatrixF logits(const Checkpoint& checkpoint) {
    const Decoder decoder(checkpoint);
    const std::vector<TokenId> ids{5, 9, 3, 17, 30, 6, 11};
    const Segment all{ids.size(), 0, nullptr};
    return decoder.ends().logits(decoder.forward(ids, {&all, 1}, pool_).view(),
                                 pool_);
  }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

// E2M1 times a power of two is a bfloat16.
TEST_F(Mxfp4Run, CastsTheStackToPlainNumbersInItsPlace) {
  const auto base = open_checkpoint(golden());
  const auto cast = run("{quantize: {method: rtn, scheme: BF16}}");
  const TensorInfo& stack =
      cast->tensors().require("model.layers.0.mlp.experts.gate_up_proj");
  EXPECT_EQ(stack.dtype, DType::kBF16);
  EXPECT_EQ(stack.shape, (std::vector<std::size_t>{3, 32, 64}));
  EXPECT_EQ(cast->config_json().find("quantization_config"), std::string::npos);
  const MatrixF found = logits(*cast), wanted = logits(*base);
  float worst = 0, largest = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    largest = std::max(largest, std::abs(wanted.data()[i]));
    worst = std::max(worst, std::abs(wanted.data()[i] - found.data()[i]));
  }
  EXPECT_LE(worst, 1e-5f * largest);
}

TEST_F(Mxfp4Run, KeepsTheCodesOfExpertsThatNoStageSelects) {
  const auto base = open_checkpoint(golden());
  const auto artifact =
      run("{quantize: {method: rtn, weights: {bits: 8, group_size: 32}, "
          "targets: ['re:.*self_attn']}}");
  const std::string name = "model.layers.1.mlp.experts.2.up_proj";
  const Architecture arch =
      parse_architecture(base->config_json(), golden().string());
  const auto& linears = arch.block(1).linears;
  const auto at =
      std::ranges::find(linears, "mlp.experts.2.up_proj", &LinearSpec::name);
  ASSERT_NE(at, linears.end());
  const auto before = std::get<MicroFp4Weight>(
      read_block_linear(*base, arch, 1,
                        static_cast<std::size_t>(at - linears.begin()))
          .weight);
  const auto after =
      std::get<MicroFp4Weight>(artifact->read_linear(name).weight);
  EXPECT_EQ(after.codes, before.codes);
  EXPECT_EQ(after.scales, before.scales);
  EXPECT_EQ(artifact->tensors().find(
                "model.layers.1.mlp.experts.gate_up_proj_blocks"),
            nullptr);
}

TEST_F(Mxfp4Run, IsInspectedAndVerified) {
  const auto base = open_checkpoint(golden());
  const Architecture arch =
      parse_architecture(base->config_json(), golden().string());
  const Inspection inspection = inspect(*base, arch);
  EXPECT_EQ(
      std::ranges::count(inspection.tensors, "mxfp4", &InspectedTensor::type),
      2 * 3 * 3);
  EXPECT_TRUE(std::ranges::none_of(inspection.tensors,
                                   [](const InspectedTensor& tensor) {
                                     return tensor.name.ends_with("_blocks");
                                   }));
  EXPECT_EQ(verify(*base, arch, nullptr, pool_).count(FindingKind::kError), 0u);
}

const std::string kExperts =
    "{quantize: {method: rtn, weights: {type: mxfp4}, targets: "
    "['re:.*experts.*']}}";

TEST_F(Mxfp4Run, WritesTheStacksAsTheyArePublished) {
  const auto base = open_checkpoint(golden());
  for (const std::string& stage :
       {kExperts, std::string("{prune: {method: magnitude, sparsity: 0.5, "
                              "targets: ['re:.*self_attn.*']}}")}) {
    const auto artifact = run(stage, "mxfp4");
    EXPECT_EQ(artifact->format(), "mxfp4");
    std::size_t stacks = 0;
    for (const TensorInfo& info : base->tensors().tensors()) {
      if (info.name.find(".experts.") == std::string::npos) continue;
      const TensorInfo& written = artifact->tensors().require(info.name);
      EXPECT_EQ(written.shape, info.shape) << info.name;
      EXPECT_EQ(written.dtype, info.dtype) << info.name;
      EXPECT_TRUE(std::ranges::equal(artifact->tensors().read(written).bytes,
                                     base->tensors().read(info).bytes))
          << info.name;
      stacks += info.name.ends_with("_blocks") ? 1u : 0u;
    }
    EXPECT_EQ(stacks, 4u);
  }
}

TEST_F(Mxfp4Run, RefusesWhatStandsInNoStack) {
  const std::string attention =
      "{quantize: {method: rtn, weights: {type: mxfp4}, targets: "
      "['re:.*self_attn.*']}}";
  EXPECT_THROW((void)run(attention, "mxfp4"), Error);
  EXPECT_THROW((void)run("{quantize: {method: rtn, scheme: BF16}}", "mxfp4"),
               Error);
}

}  // namespace
}  // namespace llmpress
