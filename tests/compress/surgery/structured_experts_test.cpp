#include "compress/surgery/structured_experts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "compress/surgery/structured_reduction.h"
#include "compress/surgery/structured_shape.h"
#include "pruning/unit_selection.h"
#include "tests/compress/model/tiny_model.h"

namespace llmpress {
namespace {

using Indices = std::vector<std::size_t>;

std::vector<bool> flags_of(const Indices& kept, std::size_t count) {
  std::vector<bool> stays(count, false);
  for (const std::size_t e : kept) stays[e] = true;
  return stays;
}

// A Mixtral whose experts differ in size, as trained ones do: those of a block
// by powers of two around 1, spread normally.
struct TinyMixture {
  explicit TinyMixture(std::uint64_t seed)
      : checkpoint(tensors(seed), config_json(shape())),
        arch(parse_architecture(checkpoint.config_json(), "tiny")) {
    for (std::size_t s = 0; s < 16; ++s) {
      set.sequences.push_back(
          random_tokens(32, shape().vocabulary, 1000 * seed + s));
    }
  }

  static TinyShape shape() {
    return {
        .model_type = "mixtral",
        .ffn = 12,
        .vocabulary = 211,
        .more_json = R"(, "num_local_experts": 8, "num_experts_per_tok": 2)"};
  }

  static TinyTensors tensors(std::uint64_t seed) {
    TinyTensors tensors = tiny_tensors(shape(), seed);
    Rng rng(seed + 100);
    const auto add = [&](const std::string& name, std::size_t rows,
                         std::size_t cols, double deviation) {
      MatrixF W(rows, cols);
      for (float& w : W.data())
        w = static_cast<float>(deviation * rng.normal());
      tensors[name + ".weight"] = std::move(W);
    };
    for (std::size_t layer = 0; layer < shape().layers; ++layer) {
      const std::string at = "model.layers." + std::to_string(layer) + ".";
      for (const char* name : {"gate_proj", "up_proj", "down_proj"}) {
        tensors.erase(at + "mlp." + name + ".weight");
      }
      add(at + "block_sparse_moe.gate", 8, shape().hidden, 0.3);
      for (std::size_t e = 0; e < 8; ++e) {
        const std::string expert =
            at + "block_sparse_moe.experts." + std::to_string(e);
        add(expert + ".w1", shape().ffn, shape().hidden, 0.3);
        add(expert + ".w3", shape().ffn, shape().hidden, 0.3);
        add(expert + ".w2", shape().hidden, shape().ffn,
            0.3 * std::exp2(rng.normal()));
      }
    }
    return tensors;
  }

  CalibrationStates states(ThreadPool& pool) const {
    return CalibrationStates(set, ModelEnds(checkpoint, arch, best_isa()),
                             pool);
  }

  MemoryCheckpoint checkpoint;
  Architecture arch;
  CalibrationSet set{};
};

// Every way to route, with the parts that matter to it.
std::vector<RouteOp> routings() {
  const RouteOp plain{.experts = 12, .top = 3};
  std::vector<RouteOp> all;
  for (const RouteScore score :
       {RouteScore::kSoftmax, RouteScore::kTopKSoftmax, RouteScore::kSigmoid,
        RouteScore::kTopKSigmoid, RouteScore::kSparseMixer}) {
    RouteOp op = plain;
    op.score = score;
    op.jitter = 0.1f;
    all.push_back(op);
    op.normalize = true;
    op.scale = 2.5f;
    all.push_back(op);
  }
  for (const GroupRank rank : {GroupRank::kMax, GroupRank::kTopTwoSum}) {
    RouteOp op = plain;
    op.score =
        rank == GroupRank::kMax ? RouteScore::kSoftmax : RouteScore::kSigmoid;
    op.group_rank = rank;
    op.groups = 3;
    op.kept_groups = 2;
    all.push_back(op);
    op.bias = 0;
    all.push_back(op);
  }
  return all;
}

// What the router of the smaller model gives.
MatrixF route_of_cut_model(const RouteOp& op, const std::vector<float>& bias,
                           const MatrixF& logits, const Indices& kept,
                           ThreadPool& pool) {
  RouteOp cut = op;
  cut.experts = kept.size();
  Activations in{.rows = select_columns(logits.view(), kept)}, out;
  const std::vector<std::vector<float>> parameters{
      bias.empty() ? bias : select_values(bias, kept)};
  run(cut, {.parameters = parameters, .pool = &pool},
      {.in = {&in}, .last_use = {true}, .out = {&out}});
  MatrixF weights(logits.rows(), logits.cols());
  for (std::size_t e = 0; e < kept.size(); ++e) {
    for (std::size_t r = out.routing->offsets[e];
         r < out.routing->offsets[e + 1]; ++r) {
      weights(out.routing->token[r], kept[e]) = out.routing->weight[r];
    }
  }
  return weights;
}

TEST(StructuredExperts, RouteAsTheModelWithoutTheOthersDoes) {
  ThreadPool pool(2);
  Rng rng(5);
  MatrixF logits(40, 12);
  for (float& z : logits.data()) z = static_cast<float>(rng.normal());
  const Indices kept{1, 2, 4, 7, 8, 10};  // two of each group
  for (const RouteOp& op : routings()) {
    std::vector<float> bias;
    for (std::size_t e = 0; op.bias && e < op.experts; ++e) {
      bias.push_back(static_cast<float>(rng.normal()));
    }
    const ExpertUnits units{.route = &op};
    const MatrixF found =
        route_among(units, bias, logits, flags_of(kept, 12), pool);
    const MatrixF wanted = route_of_cut_model(op, bias, logits, kept, pool);
    for (std::size_t i = 0; i < found.size(); ++i) {
      ASSERT_NEAR(found.data()[i], wanted.data()[i], 1e-6)
          << static_cast<int>(op.score) << " groups " << op.groups << " at "
          << i;
    }
  }
}

// What the cut block adds, against what it added: the same in MixtureError,
// which knows neither the attention nor the stream.
TEST(StructuredExperts, MeasureTheErrorThatTheBlockThenHas) {
  ThreadPool pool(2);
  const TinyMixture model(1);
  const CalibrationStates states = model.states(pool);
  const DenseBlock dense = ready_to_cut(
      load_dense_block(model.checkpoint, model.arch, 0, pool), model.arch, 0);
  const ExpertChoiceJob job{.arch = &model.arch, .kept = 4, .pool = &pool};
  const MixtureOutputs outputs = probe_mixture(job, dense, states);
  const MixtureError error(outputs, pool);
  const auto distance = [&](const Indices& kept) {
    const std::string config =
        pruned_config(model.checkpoint.config_json(), model.arch,
                      {.method = PruneMethod::kExperts,
                       .sparsity = 1 - static_cast<double>(kept.size()) / 8});
    const Architecture cut = parse_architecture(config, "cut");
    DenseBlock reduced = dense;
    keep_experts(*expert_units(model.arch.block(0)), kept, reduced);
    const Block was = runner_of(model.arch, 0, dense, {.isa = best_isa()});
    const Block is = runner_of(cut, 0, reduced, {.isa = best_isa()});
    double squared = 0;
    for (const CalibrationBatch& batch : states.batches()) {
      BlockState a = batch.state, b = batch.state;
      was.run(batch.segments, a, pool);
      is.run(batch.segments, b, pool);
      for (std::size_t i = 0; i < a.hidden.size(); ++i) {
        squared += std::pow(static_cast<double>(a.hidden.data()[i]) -
                                static_cast<double>(b.hidden.data()[i]),
                            2);
      }
    }
    return squared;
  };
  const Indices few{0, 3, 6}, some{1, 2, 5, 7}, most{0, 1, 2, 4, 5, 6, 7};
  EXPECT_EQ(error.of(std::vector<bool>(8, true)), 0);
  const double unit = distance(few) / error.of(flags_of(few, 8));
  for (const Indices& kept : {some, most}) {
    EXPECT_NEAR(distance(kept) / (unit * error.of(flags_of(kept, 8))), 1, 1e-3);
  }
}

TEST(StructuredExperts, ProbeAsManyTokensAsFit) {
  EXPECT_EQ(expert_probe_tokens(8), 4096u);
  EXPECT_EQ(expert_probe_tokens(128), 4096u);
  EXPECT_EQ(expert_probe_tokens(512), 512u);
  EXPECT_EQ(expert_probe_tokens(65536), 1u);
}

// Half of eight experts, in both blocks of twelve models; chance: the mean over
// all ways to keep four. Loads are uneven in untrained models, which REAP, a
// mean over an expert's tokens, does not count.
TEST(StructuredExperts, LoseLeastByOutputErrorAndMostByChance) {
  ThreadPool pool(2);
  std::map<std::string, double> error;
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    const TinyMixture model(seed);
    CalibrationStates states = model.states(pool);
    for (std::size_t layer = 0; layer < model.arch.layers; ++layer) {
      const DenseBlock dense =
          load_dense_block(model.checkpoint, model.arch, layer, pool);
      ExpertChoiceJob job{
          .arch = &model.arch, .layer = layer, .kept = 4, .pool = &pool};
      const MixtureOutputs outputs = probe_mixture(job, dense, states);
      const MixtureError of_mixture(outputs, pool);
      const auto choose = [&](const char* name, ExpertImportance importance) {
        job.importance = importance;
        const ExpertChoice choice = choose_experts(job, dense, states);
        ASSERT_EQ(choice.kept.size(), 4u);
        error[name] += of_mixture.of(flags_of(choice.kept, 8)) / 24;
      };
      choose("mass", ExpertImportance::kMass);
      choose("reap", ExpertImportance::kReap);
      choose("output_error", ExpertImportance::kOutputError);
      for (unsigned set = 0; set < 256; ++set) {
        std::vector<bool> stays;
        for (unsigned e = 0; e < 8; ++e) stays.push_back((set >> e & 1) != 0);
        if (std::ranges::count(stays, true) != 4) continue;
        error["chance"] += of_mixture.of(stays) / (24 * 70);
      }
      states.run(runner_of(model.arch, layer, dense, {.isa = best_isa()}),
                 pool);
    }
  }
  for (const auto& [name, mean] : error) {
    RecordProperty(name, std::to_string(mean));
  }
  EXPECT_LT(error["output_error"], 0.9 * error["mass"]);
  EXPECT_LT(error["output_error"], 0.9 * error["reap"]);
  EXPECT_LT(error["mass"], 0.9 * error["chance"]);
  EXPECT_LT(error["reap"], 0.9 * error["chance"]);
}

}  // namespace
}  // namespace llmpress
