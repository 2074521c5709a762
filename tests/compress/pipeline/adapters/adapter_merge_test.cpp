// Adapters merged into a model, against plain double loops.
#include "compress/pipeline/adapters/adapter_merge.h"

#include <cmath>

#include "tests/compress/pipeline/adapters/adapter_test_base.h"

namespace llmpress {
namespace {

class AdapterMerging : public AdapterTest {};

TEST_F(AdapterMerging, IsExactForLoraRsLoraAndDora) {
  const LoraDelta lora = delta(kQ0, 4, 2.0);
  const LoraDelta rslora = delta(kQ0, 4, 8 / 2.0);
  const LoraDelta dora = delta(kUp1, 3, 2.0, true);
  const auto a = AdapterFiles(R"("r": 4, "lora_alpha": 8)")
                     .linear(kQ0, lora)
                     .write(folder("lora"));
  const auto b = AdapterFiles(R"("r": 4, "lora_alpha": 8, "use_rslora": true)")
                     .linear(kQ0, rslora)
                     .write(folder("rslora"));
  const auto c = AdapterFiles(R"("r": 3, "lora_alpha": 6, "use_dora": true)")
                     .linear(kUp1, dora)
                     .write(folder("dora"));
  expect_merged(*merged({{a, 1}}), kQ0, lora);
  expect_merged(*merged({{b, 1}}), kQ0, rslora);
  expect_merged(*merged({{c, 1}}), kUp1, dora);
}

TEST_F(AdapterMerging, TakesRankAndAlphaFromPatterns) {
  const LoraDelta wide = delta(kQ0, 5, 20.0 / 5);
  const LoraDelta plain = delta(kUp1, 2, 3.0 / 2);
  const auto path =
      AdapterFiles(R"("r": 2, "lora_alpha": 3, "rank_pattern": {"q_proj": 5},
                      "alpha_pattern": {"layers\\.0\\..*": 20})")
          .linear(kQ0, wide)
          .linear(kUp1, plain)
          .write(folder("a"));
  const auto checkpoint = merged({{path, 1}});
  expect_merged(*checkpoint, kQ0, wide);
  expect_merged(*checkpoint, kUp1, plain);
}

TEST_F(AdapterMerging, ChangesOnlyLayersThatWereTransformed) {
  const std::string k1 = "model.layers.1.self_attn.k_proj";
  const LoraDelta only = delta(k1, 2, 2.0);
  const auto path = AdapterFiles(
                        R"("r": 2, "lora_alpha": 4, "layers_to_transform": [1],
             "target_modules": ["k_proj"])")
                        .linear(k1, only)
                        .write(folder("a"));
  const auto checkpoint = merged({{path, 1}});
  expect_merged(*checkpoint, k1, only);
  for (const auto& [name, values] : tensors_) {
    if (name == k1 + ".weight") continue;
    const MatrixF found = read_matrix(checkpoint->tensors(), name);
    EXPECT_TRUE(std::ranges::equal(found.data(), values.data())) << name;
  }
  // layer 0's k_proj has no factors, which is said
  ASSERT_EQ(notes_.size(), 1u);
  EXPECT_NE(notes_[0].find("1 of 2"), std::string::npos) << notes_[0];
}

TEST_F(AdapterMerging, ReplacesModulesToSaveAndThenAddsTheFactors) {
  const std::string norm = "model.layers.1.input_layernorm";
  Rng rng(3);
  const MatrixF head = random_matrix(shape_.vocabulary, shape_.hidden, rng);
  const MatrixF gain = random_matrix(1, shape_.hidden, rng);
  const LoraDelta on_head = delta("lm_head", 2, 2.0);
  const auto path =
      AdapterFiles(R"("r": 2, "lora_alpha": 4, "modules_to_save": ["lm_head"])")
          .matrix("lm_head.base_layer.weight", head)
          .linear("lm_head", on_head)
          .vector(norm + ".weight", gain.data())
          .vector("model.norm.weight", gain.data())
          .write(folder("a"));
  const auto checkpoint = merged({{path, 1}});
  expect_close(weight(*checkpoint, "lm_head"), naive_merge(on_head, head),
               "lm_head");
  for (const std::string& name : {norm, std::string("model.norm")}) {
    const MatrixF found = read_matrix(checkpoint->tensors(), name + ".weight");
    EXPECT_TRUE(std::ranges::equal(found.data(), gain.data())) << name;
  }
  expect_beside_equals_merged({{path, 1}});
}

TEST_F(AdapterMerging, MergesEmbeddings) {
  const LoraDelta delta = embedding_delta(3, 2.0);
  const auto path = AdapterFiles(R"("r": 3, "lora_alpha": 6)")
                        .embedding("model.embed_tokens", delta)
                        .write(folder("a"));
  const MatrixF& W = tensors_.at("model.embed_tokens.weight");
  const auto checkpoint = merged({{path, 1}});
  const MatrixF found =
      read_matrix(checkpoint->tensors(), "model.embed_tokens.weight");
  expect_close(transposed(found), naive_merge(delta, transposed(W)),
               "embedding");
  expect_beside_equals_merged({{path, 1}});
}

TEST_F(AdapterMerging, UntiesAHeadSoThatOnlyTheAdaptedSideChanges) {
  use({.tied = true});
  const LoraDelta on_head =
      sized_lora(shape_.vocabulary, shape_.hidden, 2, 2.0, false, rng_);
  const auto embedding =
      AdapterFiles(R"("r": 3, "lora_alpha": 6)")
          .embedding("model.embed_tokens", embedding_delta(3, 2.0))
          .write(folder("embedding"));
  const auto head = AdapterFiles(R"("r": 2, "lora_alpha": 4)")
                        .linear("lm_head", on_head)
                        .write(folder("head"));
  const MatrixF& W = tensors_.at("model.embed_tokens.weight");

  auto checkpoint = merged({{embedding, 1}});
  EXPECT_FALSE(parse_architecture(checkpoint->config_json(), "").tied_head);
  EXPECT_TRUE(
      std::ranges::equal(weight(*checkpoint, "lm_head").data(), W.data()));
  EXPECT_NE(notes_.back().find("untied"), std::string::npos);
  expect_beside_equals_merged({{embedding, 1}});

  checkpoint = merged({{head, 1}});
  expect_close(weight(*checkpoint, "lm_head"), naive_merge(on_head, W),
               "lm_head");
  EXPECT_TRUE(std::ranges::equal(
      read_matrix(checkpoint->tensors(), "model.embed_tokens.weight").data(),
      W.data()));
  expect_beside_equals_merged({{head, 1}});
  expect_beside_equals_merged({{head, 1}, {embedding, 0.5}});
}

TEST_F(AdapterMerging, ChangesBiasesInTheirOwnTensors) {
  use({.model_type = "qwen2", .qkv_bias = true});
  LoraDelta with_bias = delta(kQ0, 2, 2.0);
  for (std::size_t o = 0; o < with_bias.B.rows(); ++o) {
    with_bias.bias.push_back(static_cast<float>(rng_.normal()));
  }
  const auto added =
      AdapterFiles(R"("r": 2, "lora_alpha": 4, "lora_bias": true)")
          .linear(kQ0, with_bias)
          .write(folder("lora_bias"));
  const MatrixF& b = tensors_.at(kQ0 + ".bias");
  auto checkpoint = merged({{added, 0.5}});
  MatrixF found = read_matrix(checkpoint->tensors(), kQ0 + ".bias");
  for (std::size_t o = 0; o < b.size(); ++o) {
    const double wanted =
        b.data()[o] + 0.5 * 2.0 * static_cast<double>(with_bias.bias[o]);
    EXPECT_FLOAT_EQ(found.data()[o], static_cast<float>(wanted));
    EXPECT_EQ(checkpoint->read_linear(kQ0).bias[o], found.data()[o]);
  }
  expect_beside_equals_merged({{added, 0.5}});

  const std::vector<float> fresh(b.size(), 0.25f);
  const auto replaced =
      AdapterFiles(R"("r": 2, "lora_alpha": 4, "bias": "all")")
          .linear(kQ0, delta(kQ0, 2, 2.0))
          .vector(kQ0 + ".base_layer.bias", fresh)
          .write(folder("bias_all"));
  checkpoint = merged({{replaced, 1}});
  found = read_matrix(checkpoint->tensors(), kQ0 + ".bias");
  EXPECT_TRUE(std::ranges::equal(found.data(), fresh));
  expect_beside_equals_merged({{replaced, 1}});
}

// A checkpoint whose tensors are stored in bf16.
class Bf16Tensors : public MemoryCheckpoint {
 public:
  explicit Bf16Tensors(TinyTensors tensors, const TinyShape& shape)
      : MemoryCheckpoint(tensors, llmpress::config_json(shape)),
        reader_(tensors) {}
  const TensorReader& tensors() const override { return reader_; }

 private:
  class Reader : public TensorReader {
   public:
    explicit Reader(const TinyTensors& tensors) {
      for (NamedTensor& t : named_tensors(tensors)) {
        std::vector<float> values(t.bytes.size() / sizeof(float));
        decode_floats(DType::kF32, t.bytes, values);
        auto bytes = std::make_shared<std::vector<std::byte>>(
            bytes_of(DType::kBF16, values.size()));
        encode_floats(DType::kBF16, values, *bytes);
        infos_.push_back(
            {t.name, DType::kBF16, t.shape, bytes->size(), "memory"});
        data_[t.name] = bytes;
      }
    }
    std::span<const TensorInfo> tensors() const override { return infos_; }
    TensorBytes read(const TensorInfo& info) const override {
      const auto& bytes = data_.at(info.name);
      return {*bytes, bytes};
    }
    const std::map<std::string, std::string>& metadata() const override {
      return metadata_;
    }

   private:
    std::vector<TensorInfo> infos_{};
    std::map<std::string, std::shared_ptr<std::vector<std::byte>>> data_{};
    std::map<std::string, std::string> metadata_{};
  };
  Reader reader_;
};

TEST_F(AdapterMerging, RoundsOnceToTheTypeAsked) {
  for (auto& entry : tensors_) {
    for (float& v : entry.second.data()) v = std::round(v * 64) / 64;
  }
  const Bf16Tensors base(tensors_, shape_);
  const LoraDelta lora = delta(kQ0, 2, 2.0);
  const auto path = AdapterFiles(R"("r": 2, "lora_alpha": 4)")
                        .linear(kQ0, lora)
                        .write(folder("a"));
  const auto read = [&](std::optional<DType> dtype) {
    AdapterMerge merge = merge_adapters(base, arch_, {{path, 1}}, {}, pool_);
    merge.edits.dtype = dtype;
    const auto checkpoint = overlay(base, std::move(merge.edits));
    const TensorInfo& info = checkpoint->tensors().require(kQ0 + ".weight");
    EXPECT_EQ(info.dtype, dtype.value_or(DType::kBF16));
    EXPECT_EQ(checkpoint->tensors().read(info).bytes.size(), info.bytes);
    return read_matrix(checkpoint->tensors(), kQ0 + ".weight");
  };
  const MatrixF exact = read(DType::kF32);
  expect_close(exact, naive_merge(lora, tensors_.at(kQ0 + ".weight")), kQ0);
  const MatrixF rounded = read(std::nullopt);
  std::vector<float> wanted(exact.data().begin(), exact.data().end());
  round_through(DType::kBF16, wanted);
  EXPECT_TRUE(std::ranges::equal(rounded.data(), wanted));
  EXPECT_FALSE(std::ranges::equal(rounded.data(), exact.data()));
}

TEST_F(AdapterMerging, RefusesWhatTheModelDoesNotHaveWithItsPlace) {
  const auto unknown =
      AdapterFiles(R"("r": 2)")
          .linear("model.layers.9.self_attn.q_proj", delta(kQ0, 2, 1))
          .write(folder("unknown"));
  std::string what = refusal(ErrorCode::kInvalidInput, {{unknown, 1}});
  EXPECT_NE(what.find("layers.9"), std::string::npos) << what;
  EXPECT_NE(what.find(unknown.string()), std::string::npos) << what;

  const auto misshapen = AdapterFiles(R"("r": 2)")
                             .linear(kQ0, random_lora(24, 23, 2, false, rng_))
                             .write(folder("misshapen"));
  what = refusal(ErrorCode::kInvalidInput, {{misshapen, 1}});
  EXPECT_NE(what.find("[24, 23]"), std::string::npos) << what;

  const auto transposed_factors =
      AdapterFiles(R"("r": 2)")
          .linear(kUp1, random_lora(24, 40, 2, false, rng_))
          .write(folder("transposed"));
  refusal(ErrorCode::kInvalidInput, {{transposed_factors, 1}});

  LoraDelta biased = delta(kQ0, 2, 1);
  biased.bias.resize(24, 1.0f);
  const auto bias = AdapterFiles(R"("r": 2, "lora_bias": true)")
                        .linear(kQ0, biased)
                        .write(folder("bias"));
  what = refusal(ErrorCode::kInvalidInput, {{bias, 1}});
  EXPECT_NE(what.find("bias"), std::string::npos) << what;

  const auto norm =
      AdapterFiles(R"("r": 2)")
          .linear("model.norm", random_lora(24, 24, 2, false, rng_))
          .write(folder("norm"));
  refusal(ErrorCode::kInvalidInput, {{norm, 1}});
}

TEST_F(AdapterMerging, RefusesReplacementsThatAreScaledOrDoubled) {
  const auto path =
      AdapterFiles(R"("r": 2, "modules_to_save": ["norm"])")
          .vector("model.norm.weight", std::vector<float>(24, 1.5f))
          .write(folder("a"));
  std::string what = refusal(ErrorCode::kInvalidInput, {{path, 0.5}});
  EXPECT_NE(what.find("model.norm"), std::string::npos) << what;
  what = refusal(ErrorCode::kInvalidInput, {{path, 1}, {path, 1}});
  EXPECT_NE(what.find("too"), std::string::npos) << what;
}

TEST_F(AdapterMerging, IsTakenOutAgainByUnmerging) {
  const LoraDelta lora = delta(kQ0, 2, 2.0);
  const auto path = AdapterFiles(R"("r": 2, "lora_alpha": 4)")
                        .linear(kQ0, lora)
                        .write(folder("a"));
  const auto with = merged({{path, 0.5}});
  AdapterMerge out = unmerge_adapters(*with, arch_, {{path, 0.5}}, pool_);
  const auto without = overlay(*with, std::move(out.edits));
  const MatrixF& W = tensors_.at(kQ0 + ".weight");
  const MatrixF found = weight(*without, kQ0);
  const Reference bound = naive_merge(lora, W);
  for (std::size_t i = 0; i < W.size(); ++i) {
    ASSERT_NEAR(found.data()[i], W.data()[i], 3 * bound.bound.data()[i]);
  }
  EXPECT_GT(relative_difference(weight(*with, kQ0), W), 0.1);
}

TEST_F(AdapterMerging, CannotBeTakenOutForDoraAndReplacedTensors) {
  const auto dora = AdapterFiles(R"("r": 2, "use_dora": true)")
                        .linear(kQ0, delta(kQ0, 2, 1, true))
                        .write(folder("dora"));
  const auto saved =
      AdapterFiles(R"("r": 2)")
          .vector("model.norm.weight", std::vector<float>(24, 1.5f))
          .write(folder("saved"));
  for (const auto& path : {dora, saved}) {
    try {
      unmerge_adapters(*base_, arch_, {{path, 1}}, pool_);
      ADD_FAILURE() << path;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
      EXPECT_NE(std::string(e.what()).find(path.string()), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace llmpress
