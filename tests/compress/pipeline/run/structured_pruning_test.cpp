#include "compress/pipeline/run/structured_pruning.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "tests/compress/pipeline/structured_model.h"

namespace llmpress {
namespace {

using Method = PruneMethod;

// What float32 sums in another order, and the dampened refit of noise, may
// change.
constexpr double kSame = 2e-4;

PruneConfig config_of(Method method, double sparsity = 0.5) {
  PruneConfig config{.method = method, .sparsity = sparsity};
  if (method == Method::kKvHeads) config.kv_heads = 2;
  return config;
}

PruneConfig cut(PruneConfig config) {
  config.heal = false;
  return config;
}

TinyShape shape_of(Method method) {
  TinyShape shape{.layers = 4, .heads = 8, .kv_heads = 4};
  if (method == Method::kHidden) shape.hidden = 32;
  return shape;
}

constexpr Method kMethods[] = {Method::kFfn, Method::kHeads, Method::kHidden,
                               Method::kDepth, Method::kKvHeads};

class StructuredMethod : public testing::TestWithParam<Method> {};
INSTANTIATE_TEST_SUITE_P(All, StructuredMethod, testing::ValuesIn(kMethods));

TEST_P(StructuredMethod, GivesAModelOfTheShapeThatItsConfigurationSays) {
  const TinyShape shape = shape_of(GetParam());
  const PrunedModel model(shape, tiny_tensors(shape, 1), config_of(GetParam()));
  const Architecture &was = model.base_arch(), &is = model.arch();
  const bool heads = GetParam() == Method::kHeads;
  const bool fewer_kv = heads || GetParam() == Method::kKvHeads;
  EXPECT_EQ(is.ffn, GetParam() == Method::kFfn ? was.ffn / 2 : was.ffn);
  EXPECT_EQ(is.hidden,
            GetParam() == Method::kHidden ? was.hidden / 2 : was.hidden);
  EXPECT_EQ(is.layers,
            GetParam() == Method::kDepth ? was.layers / 2 : was.layers);
  EXPECT_EQ(is.heads, heads ? was.heads / 2 : was.heads);
  EXPECT_EQ(is.kv_heads, fewer_kv ? was.kv_heads / 2 : was.kv_heads);
  EXPECT_EQ(is.head_dim, was.head_dim);
}

TEST_P(StructuredMethod, ChangesNothingWhereNothingGoes) {
  const TinyShape shape = shape_of(GetParam());
  PruneConfig config = config_of(GetParam(), 0.0);
  config.kv_heads = shape.kv_heads;
  for (const PruneConfig& c : {config, cut(config)}) {
    PrunedModel model(shape, tiny_tensors(shape, 2), c);
    EXPECT_LT(model.difference(), kSame) << c.heal;
  }
}

TEST_P(StructuredMethod, LosesLessWithHealing) {
  const TinyShape shape = shape_of(GetParam());
  const TinyTensors tensors = tiny_tensors(shape, 3);
  const PruneConfig config = config_of(GetParam());
  PrunedModel healed(shape, tensors, config);
  PrunedModel plain(shape, tensors, cut(config));
  EXPECT_LT(healed.last_error(), 0.9 * plain.last_error());
  for (const LayerReport& row : healed.report()) {
    EXPECT_TRUE(row.calibrated || row.method == "removed") << row.name;
  }
}

TEST_P(StructuredMethod, KeepsBiasesAndATiedHead) {
  TinyShape shape = shape_of(GetParam());
  shape.qkv_bias = shape.o_bias = shape.mlp_bias = shape.tied = true;
  shape.more_json = R"(, "attention_bias": true, "mlp_bias": true)";
  const PrunedModel model(shape, tiny_tensors(shape, 4), config_of(GetParam()));
  EXPECT_TRUE(model.arch().tied_head);
  EXPECT_FALSE(model.checkpoint().has_linear("lm_head"));
  const auto linear =
      model.checkpoint().read_linear("model.layers.0.self_attn.k_proj");
  EXPECT_EQ(linear.bias.size(), model.arch().kv_width());
}

TEST_P(StructuredMethod, KnowsTheArchitecturesOfTheDecoder) {
  for (const char* type : {"mistral", "qwen2", "qwen3"}) {
    TinyShape shape = shape_of(GetParam());
    shape.model_type = type;
    shape.qkv_bias = shape.model_type == "qwen2";
    shape.head_norms = shape.model_type == "qwen3";
    const PrunedModel model(shape, tiny_tensors(shape, 5),
                            config_of(GetParam()));
    EXPECT_EQ(model.arch().model_type, type);
  }
}

TEST_P(StructuredMethod, WritesTheSameBytesAtAnyThreadCount) {
  const TinyShape shape = shape_of(GetParam());
  const TinyTensors tensors = tiny_tensors(shape, 6);
  const PrunedModel one(shape, tensors, config_of(GetParam()), 1);
  const PrunedModel three(shape, tensors, config_of(GetParam()), 3);
  for (const char* file : {"model.safetensors", "config.json"}) {
    EXPECT_EQ(read_file(one.path() / file), read_file(three.path() / file));
  }
}

TEST(StructuredPruning, LosesNothingWithFfnChannelsThatAreZero) {
  const TinyShape shape;
  TinyTensors tensors = tiny_tensors(shape, 1);
  for (const char* block : {"model.layers.0.mlp.", "model.layers.1.mlp."}) {
    MatrixF& up = tensors[std::string(block) + "up_proj.weight"];
    for (std::size_t c = 1; c < shape.ffn; c += 2) {
      std::ranges::fill(up.row(c), 0.0f);
    }
  }
  PrunedModel model(shape, tensors, cut(config_of(Method::kFfn)));
  EXPECT_EQ(model.arch().ffn, shape.ffn / 2);
  EXPECT_LT(model.difference(), kSame);
}

TEST(StructuredPruning, LosesNothingWithHeadsWhoseValuesAreZero) {
  const TinyShape shape{.heads = 6, .kv_heads = 3};
  TinyTensors tensors = tiny_tensors(shape, 2);
  for (const char* block : {"model.layers.0.", "model.layers.1."}) {
    MatrixF& v = tensors[std::string(block) + "self_attn.v_proj.weight"];
    for (std::size_t r = 0; r < shape.head_dim; ++r) {
      std::ranges::fill(v.row(shape.head_dim + r), 0.0f);  // the second head
    }
  }
  for (const Importance by : {Importance::kActivations, Importance::kWeights}) {
    PruneConfig config = cut(config_of(Method::kHeads, 0.34));
    config.importance = by;
    PrunedModel model(shape, tensors, config);
    EXPECT_EQ(model.arch().heads, 4u);
    EXPECT_LT(model.difference(), kSame);
  }
}

// The norms see fewer channels: their gains must make up for it.
TEST(StructuredPruning, LosesNothingWithResidualChannelsThatAreZero) {
  TinyShape shape;
  shape.tied = true;
  TinyTensors tensors = tiny_tensors(shape, 3);
  const auto zero_columns = [](MatrixF& W) {
    for (std::size_t r = 0; r < W.rows(); ++r) {
      for (std::size_t c = 2; c < W.cols(); c += 3) W(r, c) = 0;
    }
  };
  const auto zero_rows = [](MatrixF& W) {
    for (std::size_t r = 2; r < W.rows(); r += 3) {
      std::ranges::fill(W.row(r), 0.0f);
    }
  };
  zero_columns(tensors["model.embed_tokens.weight"]);
  for (const char* block : {"model.layers.0.", "model.layers.1."}) {
    zero_rows(tensors[std::string(block) + "self_attn.o_proj.weight"]);
    zero_rows(tensors[std::string(block) + "mlp.down_proj.weight"]);
  }
  for (const Importance by : {Importance::kActivations, Importance::kWeights}) {
    PruneConfig config = cut(config_of(Method::kHidden, 1.0 / 3));
    config.importance = by;
    PrunedModel model(shape, tensors, config);
    EXPECT_EQ(model.arch().hidden, 16u);
    // Weights that read silent channels may outweigh others: then channels
    // that matter go. Activations always see the silence.
    if (by == Importance::kActivations) {
      EXPECT_LT(model.difference(), kSame);
    }
  }
}

// A block whose outputs are zero passes the stream through.
TEST(StructuredPruning, RemovesABlockThatDoesNothing) {
  const TinyShape shape{.layers = 4};
  TinyTensors tensors = tiny_tensors(shape, 4);
  for (const char* name : {"model.layers.2.self_attn.o_proj.weight",
                           "model.layers.2.mlp.down_proj.weight"}) {
    std::ranges::fill(tensors[name].data(), 0.0f);
  }
  for (const DepthImportance by :
       {DepthImportance::kCosine, DepthImportance::kPerplexity}) {
    PruneConfig config = config_of(Method::kDepth, 0.25);
    config.depth_importance = by;
    for (const PruneConfig& c : {config, cut(config)}) {
      PrunedModel model(shape, tensors, c);
      EXPECT_EQ(model.arch().layers, 3u);
      if (by == DepthImportance::kCosine) {
        EXPECT_EQ(model.report().front().name, "model.layers.2");
        EXPECT_LT(model.difference(), kSame);
      }
    }
  }
}

// Equal heads are merged without loss, also by the mean.
TEST(StructuredPruning, MergesEqualHeadsExactly) {
  const TinyShape shape{.kv_heads = 4};
  TinyTensors tensors = tiny_tensors(shape, 5);
  for (const char* block : {"model.layers.0.", "model.layers.1."}) {
    for (const char* linear :
         {"self_attn.k_proj.weight", "self_attn.v_proj.weight"}) {
      MatrixF& W = tensors[std::string(block) + linear];
      for (std::size_t r = 0; r < W.rows(); ++r) {
        const std::size_t head = r / shape.head_dim;
        if (head % 2 == 0) continue;
        std::ranges::copy(W.row(r - shape.head_dim), W.row(r).begin());
      }
    }
  }
  for (const KvGrouping by : {KvGrouping::kMeanPool, KvGrouping::kCalibrated}) {
    PruneConfig config = cut(config_of(Method::kKvHeads));
    config.kv_grouping = by;
    PrunedModel model(shape, tensors, config);
    EXPECT_EQ(model.arch().kv_heads, 2u);
    EXPECT_LT(model.difference(), 1e-3);
  }
}

TEST(StructuredPruning, MovesWindowsWithTheirLayers) {
  TinyShape shape{.model_type = "qwen2", .layers = 4};
  shape.qkv_bias = true;
  shape.more_json = R"(, "use_sliding_window": true, "sliding_window": 8,)"
                    R"( "max_window_layers": 3)";
  TinyTensors tensors = tiny_tensors(shape, 6);
  for (const char* name : {"model.layers.1.self_attn.o_proj.weight",
                           "model.layers.1.mlp.down_proj.weight"}) {
    std::ranges::fill(tensors[name].data(), 0.0f);
  }
  PrunedModel model(shape, tensors, cut(config_of(Method::kDepth, 0.25)));
  EXPECT_EQ(windows_of(model.arch()), (std::vector<std::size_t>{0, 0, 8}));
  EXPECT_LT(model.difference(), kSame);
}

void expect_refused(const TinyShape& shape, const PruneConfig& config,
                    const std::string& part) {
  try {
    PrunedModel(shape, tiny_tensors(shape, 1), config);
    FAIL() << "no error; expected " << part;
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

// What writes nothing has no gradient: its importance is 0, and it goes first.
TEST(StructuredPruning, LosesNothingWithSilentUnitsThatGradientsFind) {
  for (const Method method : {Method::kFfn, Method::kHeads}) {
    const TinyShape shape = shape_of(method);
    TinyTensors tensors = tiny_tensors(shape, 21);
    for (std::size_t layer = 0; layer < shape.layers; ++layer) {
      const std::string block = formatted("model.layers.{}.", layer);
      MatrixF& reads =
          tensors[block + (method == Method::kFfn ? "mlp.down_proj.weight"
                                                  : "self_attn.o_proj.weight")];
      const std::size_t unit =
          method == Method::kFfn
              ? 1
              : shape.head_dim * shape.heads / shape.kv_heads;
      // Every second unit is silent.
      for (std::size_t r = 0; r < reads.rows(); ++r) {
        for (std::size_t c = 0; c < reads.cols(); ++c) {
          if (c / unit % 2 == 0) reads(r, c) = 0;
        }
      }
    }
    PruneConfig config = cut(config_of(method));
    config.importance = Importance::kGradients;
    PrunedModel model(shape, tensors, config);
    EXPECT_LT(model.difference(), kSame);
  }
}

TEST(StructuredPruning, RanksChannelsOfTheStreamByGradients) {
  const TinyShape shape = shape_of(Method::kHidden);
  PruneConfig config = config_of(Method::kHidden);
  config.importance = Importance::kGradients;
  const TinyTensors tensors = tiny_tensors(shape, 22);
  const PrunedModel by_gradients(shape, tensors, config);
  config.importance = Importance::kWeights;
  const PrunedModel by_weights(shape, tensors, config);
  EXPECT_EQ(by_gradients.arch().hidden, shape.hidden / 2);
  EXPECT_NE(read_file(by_gradients.path() / "model.safetensors"),
            read_file(by_weights.path() / "model.safetensors"));
}

TEST(StructuredPruning, RefusesWhatWouldNotWork) {
  TinyShape qwen3{.model_type = "qwen3"};
  qwen3.head_norms = true;
  PruneConfig calibrated = config_of(Method::kKvHeads);
  calibrated.kv_heads = 1;
  calibrated.kv_grouping = KvGrouping::kCalibrated;
  expect_refused(qwen3, calibrated, "'mean' works");
  PruneConfig uneven = config_of(Method::kKvHeads);
  uneven.kv_heads = 3;
  expect_refused({.kv_heads = 4}, uneven, "divisor");
}

}  // namespace
}  // namespace llmpress
