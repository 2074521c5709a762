#include "compress/model/block.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "compress/core/error.h"
#include "tests/compress/model/tiny_model.h"

namespace llmpress {
namespace {

struct Bench {
  TinyShape shape{};
  TinyTensors tensors = tiny_tensors(shape, 1);
  MemoryCheckpoint checkpoint{tensors, config_json(shape)};
  Architecture arch = parse_architecture(config_json(shape), "tiny");
  ThreadPool pool{2};
  std::vector<Segment> segments = {{5, 0, nullptr}, {3, 0, nullptr}};

  BlockState state() const {
    BlockState state{.hidden = MatrixF(8, arch.hidden)};
    Rng rng(2);
    for (float& x : state.hidden.data()) x = static_cast<float>(rng.normal());
    return state;
  }
  Block block() const {
    return {arch, 1, read_block(checkpoint, arch, 1), Isa::kScalar};
  }
};

TEST(Block, RunsStageByStageAsInOneGo) {
  Bench bench;
  const Block block = bench.block();
  BlockState whole = bench.state(), staged = bench.state();
  block.run(bench.segments, whole, bench.pool);
  block.begin(staged, bench.segments, bench.pool);
  for (std::size_t s = 0; s < bench.arch.block(1).stages.size(); ++s) {
    EXPECT_EQ(staged.stage_input.rows(), 8u);
    EXPECT_EQ(staged.stage_input.cols(), bench.arch.block(1).stages[s].in);
    block.run_stage(s, bench.segments, staged, bench.pool);
  }
  EXPECT_TRUE(staged.stage_input.empty());
  EXPECT_TRUE(std::ranges::equal(whole.hidden.data(), staged.hidden.data()));
}

TEST(Block, ShowsEveryStageTheInputOfItsLinears) {
  Bench bench;
  const Block block = bench.block();
  BlockState state = bench.state();
  const MatrixF before = state.hidden;
  block.begin(state, bench.segments, bench.pool);
  block.run_stage(0, bench.segments, state, bench.pool);
  const MatrixF mixed = state.stage_input;
  block.run_stage(1, bench.segments, state, bench.pool);
  // What stage 1 added to the residual is o of the input that it showed.
  MatrixF added(8, bench.arch.hidden);
  block.linear(3).run(mixed.view(), added.view(), bench.pool);
  for (std::size_t i = 0; i < added.size(); ++i) {
    EXPECT_EQ(state.hidden.data()[i], before.data()[i] + added.data()[i]);
  }
}

TEST(Block, UsesAReplacedLinearFromTheNextRunOn) {
  Bench bench;
  Block block = bench.block();
  BlockState before = bench.state(), after = bench.state();
  block.run(bench.segments, before, bench.pool);
  // Without o and down a block adds nothing.
  for (const std::size_t index : {3u, 6u}) {
    const LinearSpec& spec = bench.arch.block(1).linears[index];
    const MatrixF zeros(spec.out, spec.in);
    block.replace_linear(index,
                         {.weight = make_dense(zeros.view(), DType::kF32)});
  }
  block.run(bench.segments, after, bench.pool);
  EXPECT_FALSE(std::ranges::equal(before.hidden.data(), after.hidden.data()));
  EXPECT_TRUE(
      std::ranges::equal(after.hidden.data(), bench.state().hidden.data()));
}

TEST(Block, RotatedKeysLeaveTheFunctionAloneAndSpreadOutlyingChannels) {
  Bench bench{.shape = {.head_dim = 8}};
  BlockWeights weights = read_block(bench.checkpoint, bench.arch, 1);
  const std::size_t head_dim = bench.arch.head_dim;
  // Channels that RoPE turns into one another: products stay the same.
  const auto scale_channels = [&](std::size_t linear, float factor) {
    MatrixF W = dequantize(weights.linears[linear].weight);
    for (std::size_t o = 0; o < W.rows(); ++o) {
      if (o % (head_dim / 2) != 0) continue;
      for (float& w : W.row(o)) w *= factor;
    }
    weights.linears[linear].weight = make_dense(W.view(), DType::kF32);
  };
  scale_channels(0, 1.0f / 32);
  scale_channels(1, 32.0f);
  const auto output = [&](KvFormat kv) {
    const Block block(bench.arch, 1, weights, Isa::kScalar, kv);
    BlockState state = bench.state();
    block.run(bench.segments, state, bench.pool);
    return std::move(state.hidden);
  };
  const auto distance = [](const MatrixF& a, const MatrixF& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double d = a.data()[i] - b.data()[i];
      sum += d * d;
    }
    return std::sqrt(sum / static_cast<double>(a.size()));
  };
  const MatrixF exact = output({});
  EXPECT_LT(distance(output({.rotate_keys = true}), exact), 1e-5);
  const double plain = distance(output({.type = KvType::kInt4}), exact);
  const double rotated =
      distance(output({.type = KvType::kInt4, .rotate_keys = true}), exact);
  EXPECT_LT(rotated, plain);
}

TEST(Block, RefusesToRotateKeysOfAHeadThatHasNoHadamardTransform) {
  Bench bench;  // head_dim 6
  EXPECT_THROW(Block(bench.arch, 1, read_block(bench.checkpoint, bench.arch, 1),
                     Isa::kScalar, {.rotate_keys = true}),
               Error);
}

TEST(Block, KeepsItsFunctionWhenScalesMoveFromANormIntoItsConsumers) {
  Bench bench;
  BlockWeights weights = read_block(bench.checkpoint, bench.arch, 1);
  const Block plain(bench.arch, 1, weights, Isa::kScalar);
  for (const ScaleGroup& group : bench.arch.block(1).scale_groups) {
    // Powers of two move exactly.
    std::vector<float> scales;
    for (std::size_t i = 0;
         i < bench.arch.block(1).linears[group.consumers[0]].in; ++i) {
      scales.push_back(i % 3 == 0 ? 4.0f : 0.5f);
    }
    const auto edit = [&](std::size_t index, bool rows, bool divide) {
      LinearWeights& linear = weights.linears[index];
      MatrixF W = dequantize(linear.weight);
      for (std::size_t o = 0; o < W.rows(); ++o) {
        for (std::size_t i = 0; i < W.cols(); ++i) {
          const float s = scales[rows ? o : i];
          W(o, i) = divide ? W(o, i) / s : W(o, i) * s;
        }
      }
      linear.weight = make_dense(W.view(), DType::kF32);
    };
    if (group.source_linear) {
      edit(*group.source_linear, true, true);
    } else {
      auto& gain = weights.norms[group.source_norm].gain;
      for (std::size_t i = 0; i < gain.size(); ++i) gain[i] /= scales[i];
    }
    for (const std::size_t consumer : group.consumers) {
      edit(consumer, false, false);
    }
  }
  const Block moved(bench.arch, 1, weights, Isa::kScalar);
  BlockState a = bench.state(), b = bench.state();
  plain.run(bench.segments, a, bench.pool);
  moved.run(bench.segments, b, bench.pool);
  EXPECT_TRUE(std::ranges::equal(a.hidden.data(), b.hidden.data()));
}

void expect_refused(const MemoryCheckpoint& checkpoint,
                    const Architecture& arch, const std::string& part) {
  try {
    read_block(checkpoint, arch, 1);
    ADD_FAILURE() << "accepted; expected a word of " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
        << error.what();
  }
}

TEST(Block, NamesTheTensorThatCannotBeUsed) {
  const Bench bench;
  const auto with = [&](const auto& edit) {
    TinyTensors tensors = bench.tensors;
    edit(tensors);
    return MemoryCheckpoint(tensors, config_json(bench.shape));
  };
  const std::string norm = "model.layers.1.input_layernorm.weight";
  const std::string up = "model.layers.1.mlp.up_proj.weight";
  expect_refused(with([&](auto& t) { t.erase(norm); }), bench.arch, norm);
  expect_refused(with([&](auto& t) { t[norm] = MatrixF(1, 3); }), bench.arch,
                 norm);
  expect_refused(with([&](auto& t) { t[norm](0, 2) = std::nanf(""); }),
                 bench.arch, norm);
  expect_refused(with([&](auto& t) { t[up] = MatrixF(40, 23); }), bench.arch,
                 "[40, 23], wanted [40, 24]");
  expect_refused(with([&](auto& t) {
                   t["model.layers.1.mlp.up_proj.bias"] = MatrixF(1, 40);
                   t["model.layers.1.mlp.up_proj.bias"](0, 1) = 1;
                 }),
                 bench.arch, "has a bias, but config.json");
}

TEST(Block, TakesABiasOfZerosForNone) {
  Bench bench;
  bench.tensors["model.layers.1.mlp.up_proj.bias"] = MatrixF(1, 40);
  const MemoryCheckpoint checkpoint(bench.tensors, config_json(bench.shape));
  EXPECT_TRUE(read_block(checkpoint, bench.arch, 1).linears[5].bias.empty());
}

TEST(Block, RefusesWeightsOfOtherShapes) {
  const Bench bench;
  BlockWeights weights = read_block(bench.checkpoint, bench.arch, 1);
  std::swap(weights.linears[0], weights.linears[1]);
  EXPECT_THROW(Block(bench.arch, 1, weights, Isa::kScalar), Error);
  EXPECT_THROW(Block(bench.arch, 1, BlockWeights{}, Isa::kScalar), Error);
  weights = read_block(bench.checkpoint, bench.arch, 1);
  weights.norms.erase("input_layernorm");
  EXPECT_THROW(Block(bench.arch, 1, weights, Isa::kScalar), Error);
}

}  // namespace
}  // namespace llmpress
