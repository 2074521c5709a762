// Adapters beside a model: the same logits as merged.
#include "compress/pipeline/adapters/adapter_beside.h"

#include "quantizers/rtn.h"
#include "tests/compress/pipeline/adapters/adapter_test_base.h"

namespace llmpress {
namespace {

class AdapterBeside : public AdapterTest {};

TEST_F(AdapterBeside, LeavesTheOwnBiasOutOfDorasFactors) {
  use({.model_type = "qwen2", .qkv_bias = true});
  const auto path = AdapterFiles(R"("r": 2, "lora_alpha": 4, "use_dora": true)")
                        .linear(kQ0, delta(kQ0, 2, 2.0, true))
                        .write(folder("dora"));
  expect_beside_equals_merged({{path, 1}});
  expect_beside_equals_merged({{path, 0.7}});
}

// What prepacked weights and the ranks of a Linear's rows may not have.
TEST_F(AdapterBeside, NoAdapterNeedsNoCompanion) {
  const AdaptersBeside beside =
      keep_beside(*base_, arch_, {}, Isa::kScalar, pool_);
  EXPECT_EQ(beside.companion, nullptr);
  EXPECT_EQ(relative_difference(logits(*beside.checkpoint), logits(*base_)), 0);
}

TEST_F(AdapterBeside, EqualsTheAdapterBesideTheBase) {
  std::vector<WeightedAdapter> all;
  for (const bool dora : {false, true}) {
    AdapterFiles files(dora ? R"("r": 3, "lora_alpha": 6, "use_dora": true)"
                            : R"("r": 3, "lora_alpha": 6)");
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      for (std::size_t l = 0; l < arch_.block(layer).linears.size(); ++l) {
        const std::string name = arch_.linear_name(layer, l);
        files.linear(name, delta(name, 3, 2.0, dora));
      }
    }
    files.linear("lm_head", delta("lm_head", 3, 2.0, dora));
    files.embedding("model.embed_tokens", embedding_delta(3, 2.0, dora));
    all.push_back({files.write(folder(dora ? "dora" : "lora")), 1});
    expect_beside_equals_merged({all.back()});
  }
  expect_beside_equals_merged({{all[0].path, 0.5}, {all[1].path, 0.25}});
}

TEST_F(AdapterBeside, BesideAPackedBaseAddsToItsDequantizedWeights) {
  const auto path = AdapterFiles(R"("r": 3, "lora_alpha": 6, "use_dora": true)")
                        .linear(kQ0, delta(kQ0, 3, 2.0, true))
                        .write(folder("a"));
  QuantizeConfig int4;
  int4.weights.group_size = 8;
  base_->packed[kQ0] = {.weight = round_to_nearest(
                            tensors_.at(kQ0 + ".weight").view(), int4, pool_)};
  const MatrixF beside = logits_beside(*base_, {{path, 1}});
  AdapterMerge merge = merge_adapters(*base_, arch_, {{path, 1}}, {}, pool_);
  const auto checkpoint = overlay(*base_, std::move(merge.edits));
  EXPECT_LT(relative_difference(beside, logits(*checkpoint)), 1e-5);
}

TEST_F(AdapterBeside, RefusesRotatedLinears) {
  const auto path = AdapterFiles(R"("r": 2)")
                        .linear(kQ0, delta(kQ0, 2, 1))
                        .write(folder("a"));
  base_->packed[kQ0] = base_->read_linear(kQ0);
  base_->packed[kQ0].input_hadamard = 8;
  EXPECT_THROW(merged({{path, 1}})->read_linear(kQ0), Error);
  EXPECT_THROW(logits_beside(*base_, {{path, 1}}), Error);
}

}  // namespace
}  // namespace llmpress
