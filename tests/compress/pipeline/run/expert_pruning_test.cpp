// Experts removed from the goldens of every family that has some.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "compress/calibration/dense_block.h"
#include "compress/core/error.h"
#include "compress/model/facts.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/run/run.h"
#include "compress/surgery/structured_shape.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/hdf5_tables.h"
#include "formats/containers/typed_tensors.h"
#include "recipes/recipe_parser.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/compress/pipeline/structured_model.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

fs::path golden(const std::string& name) {
  return fs::path(source_dir()) / "tests/compress/model/goldens" / name;
}

std::string config_of(const std::string& name) {
  return open_checkpoint(golden(name))->config_json();
}

void replace(std::string& text, const std::string& from,
             const std::string& to) {
  const std::size_t at = text.find(from);
  if (at != std::string::npos) text.replace(at, from.size(), to);
}

// config.json of a golden whose router has no groups.
std::string without_groups(std::string config) {
  replace(config, "\"n_group\": 3", "\"n_group\": 1");
  replace(config, "\"topk_group\": 2", "\"topk_group\": 1");
  return config;
}

using Change = std::function<void(const std::string& name, MatrixF& values)>;

// A copy of a golden, vectors and stacks as one row.
void copy_golden(const std::string& name, const fs::path& to,
                 const Change& change = {}) {
  const auto source = open_checkpoint(golden(name));
  const auto writer =
      make_artifact_writer({.output = to, .format = "safetensors"});
  for (const TensorInfo& info : source->tensors().tensors()) {
    const TensorBytes data = source->tensors().read(info);
    const std::size_t count = data.bytes.size() / bytes_of(info.dtype, 1);
    const std::size_t rows = info.shape.size() == 2 ? info.shape[0] : 1;
    MatrixF values(rows, count / rows);
    decode_floats(info.dtype, data.bytes, values.data());
    if (change) change(info.name, values);
    writer->add_tensor(
        rounded_tensor(info.name, info.dtype, info.shape, values.data()));
  }
  writer->finish(without_groups(source->config_json()));
}

// A checkpoint on disk, pruned into another folder.
class PrunedExperts {
 public:
  PrunedExperts(const fs::path& model, const PruneConfig& config,
                std::size_t threads = 2)
      : pool_(threads),
        base_(open_checkpoint(model)),
        arch_(read_architecture(*base_)),
        calibration_(random_calibration(arch_.vocabulary)) {
    const PruneStage stage{.config = config};
    prune_structure({.checkpoint = base_.get(),
                     .arch = &arch_,
                     .stage = &stage,
                     .calibration = &calibration_,
                     .output = path(),
                     .pool = &pool_});
    reduced_ = open_checkpoint(path());
    reduced_arch_ = read_architecture(*reduced_);
    check_model(*reduced_, reduced_arch_);
  }

  fs::path path() const { return directory_.path() / "reduced"; }
  const Checkpoint& base() const { return *base_; }
  const Architecture& base_arch() const { return arch_; }
  const Checkpoint& checkpoint() const { return *reduced_; }
  const Architecture& arch() const { return reduced_arch_; }
  std::vector<LayerReport> report() const {
    return read_structured_report(path());
  }
  // Largest change of a logit, over the largest logit.
  double change() {
    const MatrixF a = logits_of(*base_, pool_), b = logits_of(*reduced_, pool_);
    double largest = 0, worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      const auto x = static_cast<double>(a.data()[i]);
      EXPECT_TRUE(std::isfinite(b.data()[i]));
      largest = std::max(largest, std::abs(x));
      worst = std::max(worst, std::abs(x - static_cast<double>(b.data()[i])));
    }
    return worst / largest;
  }

 private:
  TemporaryDirectory directory_;
  ThreadPool pool_;
  std::unique_ptr<Checkpoint> base_;
  Architecture arch_;
  CalibrationSet calibration_;
  std::unique_ptr<Checkpoint> reduced_;
  Architecture reduced_arch_;
};

PruneConfig removing(double sparsity,
                     ExpertImportance importance = ExpertImportance::kReap) {
  return {.method = PruneMethod::kExperts,
          .sparsity = sparsity,
          .expert_importance = importance};
}

constexpr ExpertImportance kImportances[] = {ExpertImportance::kMass,
                                             ExpertImportance::kReap,
                                             ExpertImportance::kOutputError};

struct Case {
  const char* golden;
  const char* key;  // of config.json
  std::size_t left;
};

class ExpertsOf : public testing::TestWithParam<Case> {
 protected:
  // DeepSeek-V2 keeps its groups; two of each would be all that the tiny routers
  // of DeepSeek-V3 and its like have.
  fs::path model() {
    const std::string name = GetParam().golden;
    const bool grouped =
        config_of(name).find("\"n_group\": 3") != std::string::npos;
    if (name == "deepseek_v2" || !grouped) return golden(name);
    copy_golden(name, directory_.path() / "model");
    return directory_.path() / "model";
  }
  PruneConfig config(
      ExpertImportance importance = ExpertImportance::kReap) const {
    const Architecture arch =
        parse_architecture(config_of(GetParam().golden), "golden");
    return removing(1 - static_cast<double>(GetParam().left) /
                            static_cast<double>(first_route(arch)->experts),
                    importance);
  }
  TemporaryDirectory directory_;
};

INSTANTIATE_TEST_SUITE_P(
    Families, ExpertsOf,
    testing::Values(Case{"deepseek_v2", "n_routed_experts", 3},
                    Case{"deepseek_v3", "n_routed_experts", 3},
                    Case{"dots1", "n_routed_experts", 3},
                    Case{"ernie4_5_moe", "moe_num_experts", 2},
                    Case{"exaone_moe", "num_experts", 3},
                    Case{"flex_olmo", "num_experts", 2},
                    Case{"glm4_moe", "n_routed_experts", 3},
                    Case{"glm4_moe_lite", "n_routed_experts", 3},
                    Case{"gpt_oss", "num_local_experts", 2},
                    Case{"gpt_oss_mxfp4", "num_local_experts", 2},
                    Case{"granitemoe", "num_local_experts", 3},
                    Case{"granitemoehybrid", "num_local_experts", 2},
                    Case{"granitemoeshared", "num_local_experts", 2},
                    Case{"hunyuan_v1_moe", "num_experts", 3},
                    Case{"jamba", "num_experts", 2},
                    Case{"lfm2_moe", "num_experts", 2},
                    Case{"llama4_text", "num_local_experts", 2},
                    Case{"minimax", "num_local_experts", 2},
                    Case{"minimax_m2", "num_local_experts", 2},
                    Case{"mixtral", "num_local_experts", 2},
                    Case{"nemotron_h_2", "n_routed_experts", 2},
                    Case{"olmoe", "num_experts", 2},
                    Case{"phimoe", "num_local_experts", 2},
                    Case{"qwen2_moe", "num_experts", 2},
                    Case{"qwen3_5_moe_text", "num_experts", 2},
                    Case{"qwen3_moe", "num_experts", 2},
                    Case{"qwen3_moe_2", "num_local_experts", 3},
                    Case{"qwen3_next", "num_experts", 2},
                    Case{"solar_open", "n_routed_experts", 3}),
    [](const auto& row) { return std::string(row.param.golden); });

// Which of a block's experts the smaller one has: those with its last Linears.
std::vector<std::size_t> experts_left(const ExpertUnits& was,
                                      const DenseBlock& dense,
                                      const ExpertUnits& is,
                                      const DenseBlock& reduced) {
  std::vector<std::size_t> left;
  for (const auto& linears : is.linears) {
    const auto W = reduced.linears[linears.back()].W.data();
    for (std::size_t e = 0; e < was.linears.size(); ++e) {
      if (std::ranges::equal(W,
                             dense.linears[was.linears[e].back()].W.data())) {
        left.push_back(e);
      }
    }
  }
  return left;
}

TEST_P(ExpertsOf, StayWholeUnderNewNumbers) {
  PrunedExperts pruned(model(), config());
  EXPECT_NE(pruned.checkpoint().config_json().find(
                "\"" + std::string(GetParam().key) +
                "\": " + std::to_string(GetParam().left)),
            std::string::npos)
      << pruned.checkpoint().config_json();
  ThreadPool pool(2);
  std::size_t mixtures = 0;
  for (std::size_t layer = 0; layer < pruned.arch().layers; ++layer) {
    const auto was = expert_units(pruned.base_arch().block(layer));
    const auto is = expert_units(pruned.arch().block(layer));
    ASSERT_EQ(was.has_value(), is.has_value());
    if (!is) continue;
    ++mixtures;
    ASSERT_EQ(is->linears.size(), GetParam().left);
    const DenseBlock dense =
        load_dense_block(pruned.base(), pruned.base_arch(), layer, pool);
    const DenseBlock reduced =
        load_dense_block(pruned.checkpoint(), pruned.arch(), layer, pool);
    const auto left = experts_left(*was, dense, *is, reduced);
    ASSERT_EQ(left.size(), GetParam().left);
    EXPECT_TRUE(std::ranges::is_sorted(left));
    const std::size_t of_group = was->route->experts / was->route->groups;
    for (std::size_t k = 0; k < left.size(); ++k) {
      EXPECT_EQ(left[k] / of_group,
                k / (is->route->experts / is->route->groups));
      EXPECT_TRUE(
          std::ranges::equal(reduced.linears[is->router].W.row(k),
                             dense.linears[was->router].W.row(left[k])));
      for (std::size_t i = 0; i < is->linears[k].size(); ++i) {
        const DenseLinear& now = reduced.linears[is->linears[k][i]];
        const DenseLinear& then = dense.linears[was->linears[left[k]][i]];
        EXPECT_TRUE(std::ranges::equal(now.W.data(), then.W.data()));
        EXPECT_EQ(now.stored.bias, then.stored.bias);
        if (then.dtype) {
          EXPECT_EQ(now.dtype, then.dtype);
        }
      }
      if (is->route->bias) {
        EXPECT_EQ(reduced.parameters[*is->route->bias][k],
                  dense.parameters[*was->route->bias][left[k]]);
      }
    }
  }
  EXPECT_EQ(pruned.report().size(), mixtures);
  EXPECT_GT(pruned.change(), 0);
}

TEST_P(ExpertsOf, ChangeNothingWhereAllStay) {
  PrunedExperts pruned(model(), removing(0));
  // FP4 is multiplied as whole numbers; the experts that stay are stored as
  // floats, whose sums are rounded elsewhere.
  const bool fp4 = std::string_view(GetParam().golden).ends_with("mxfp4");
  EXPECT_LE(pruned.change(), fp4 ? 1e-5 : 0);
  for (const LayerReport& row : pruned.report()) {
    EXPECT_EQ(row.relative_error, 0) << row.name;
  }
}

TEST_P(ExpertsOf, AreTheSameBytesAtAnyThreadCount) {
  const fs::path from = model();
  for (const ExpertImportance importance : kImportances) {
    const PrunedExperts one(from, config(importance), 1);
    const PrunedExperts three(from, config(importance), 3);
    for (const char* file :
         {"model.safetensors", "config.json", "structured.json"}) {
      EXPECT_EQ(read_file(one.path() / file), read_file(three.path() / file));
    }
  }
}

// Expert 1 is never chosen: in GPT-OSS, whose experts are stacked, by a bias; in
// Mixtral, whose experts are stored one by one, by a channel of the stream that
// is large for every token.
constexpr float kFar = 1024;
void shun_in_gpt_oss(const std::string& name, MatrixF& values) {
  if (name.ends_with("router.bias")) values(0, 1) = -kFar;
}
void shun_in_mixtral(const std::string& name, MatrixF& values) {
  if (name.ends_with("embed_tokens.weight")) {
    for (std::size_t t = 0; t < values.rows(); ++t) values(t, 0) = kFar;
  }
  if (name.ends_with("post_attention_layernorm.weight")) values(0, 0) = 1;
  if (name.ends_with("block_sparse_moe.gate.weight")) {
    std::ranges::fill(values.row(1), 0.0f);
    values(1, 0) = -kFar;
  }
}

TEST(ExpertPruning, LosesNothingWithAnExpertThatNoTokenIsRoutedTo) {
  struct Golden {
    const char* name;
    Change change;
  };
  for (const auto& [name, change] : {Golden{"gpt_oss", shun_in_gpt_oss},
                                     Golden{"mixtral", shun_in_mixtral}}) {
    const TemporaryDirectory directory;
    copy_golden(name, directory.path() / "model", change);
    for (const ExpertImportance importance : kImportances) {
      PrunedExperts pruned(directory.path() / "model",
                           removing(0.34, importance));
      EXPECT_LT(pruned.change(), 1e-6) << name;
      for (const LayerReport& row : pruned.report()) {
        ASSERT_EQ(row.notes.size(), 1u);
        EXPECT_TRUE(row.notes[0].starts_with("without expert 1: "))
            << row.notes[0];
        EXPECT_TRUE(row.notes[0].ends_with(", 0.00% of the mass"))
            << row.notes[0];
        EXPECT_LT(row.relative_error, 1e-10);
      }
    }
  }
}

std::string refusal(const std::string& config, double sparsity) {
  const PruneStage stage{
      .config = removing(sparsity),
      .position = {.file = "r.yaml", .line = 7, .column = 3}};
  try {
    check_structured(parse_architecture(config, "model"), stage);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(ExpertPruning, SaysWhyExpertsCannotGo) {
  const auto expect = [](const std::string& message, const std::string& why) {
    EXPECT_TRUE(message.starts_with("r.yaml:7:3: ")) << message;
    EXPECT_NE(message.find(why), std::string::npos) << message;
  };
  expect(refusal(config_of("llama"), 0.5), "llama: has no experts");
  expect(refusal(config_of("granitemoehybrid_2"), 0.5), "has no experts");
  expect(refusal(config_of("jamba_2"), 0.5), "has no experts");
  expect(refusal(config_of("llama4_text_2"), 0.5),
         "of its 2 experts 1 would stay: a mixture of one is a dense model");
  expect(refusal(config_of("qwen3_moe_2"), 0.6),
         "of its 5 experts 2 would stay: fewer than the 3");
  for (const char* name : {"deepseek_v3", "glm4_moe"}) {
    expect(refusal(config_of(name), 0.5), "ranked by their two best");
  }
  std::string config = config_of("deepseek_v2");
  replace(config, "\"topk_group\": 2", "\"topk_group\": 1");
  expect(refusal(config, 0.5), "each token goes to 1 of 3 groups");
  EXPECT_EQ(refusal(config_of("deepseek_v2"), 0.5), "");
  EXPECT_EQ(refusal(config_of("deepseek_v3"), 0.4), "");  // all stay
}

// As a stage of a run on token ids.
class ExpertRun : public testing::Test {
 protected:
  Recipe recipe(const std::string& model, const std::string& stages) {
    const std::size_t vocabulary =
        parse_architecture(config_of(model), "golden").vocabulary;
    write_token_table(directory_.path() / "ids.h5",
                      {.samples = 8,
                       .length = 24,
                       .ids = random_tokens(8 * 24, vocabulary, 3)});
    return parse_recipe(
        "model: " + golden(model).string() +
            "\ncalibration: {text: " + (directory_.path() / "ids.h5").string() +
            ", samples: 8, sequence_length: 24}\nstages: [" + stages +
            "]\noutput: {path: " + out().string() + "}\n",
        "test.yaml");
  }
  fs::path out() const { return directory_.path() / "out"; }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

const std::string kRemoveAndRound =
    "{prune: {method: experts, sparsity: 0.5}}, {quantize: {method: gptq, "
    "weights: {bits: 4, group_size: 2}}}";

TEST_F(ExpertRun, IsPlannedInItsNewShapeAndRoundedAfterwards) {
  for (const char* model : {"qwen3_moe", "gpt_oss"}) {
    const Recipe of_model = recipe(model, kRemoveAndRound);
    const RunPlan plan = plan_recipe(of_model, {}, pool_);
    const RunReport report = run_recipe(of_model, {}, pool_);
    const VariantReport& variant = report.variants[0];
    ASSERT_EQ(plan.variants[0].layers.size(), variant.layers.size());
    for (std::size_t l = 0; l < variant.layers.size(); ++l) {
      const PlannedLayer& planned = plan.variants[0].layers[l];
      EXPECT_EQ(planned.name, variant.layers[l].name);
      EXPECT_EQ(planned.out, variant.layers[l].out);
      EXPECT_EQ(planned.bytes_after, variant.layers[l].bytes) << planned.name;
    }
    const auto artifact = open_checkpoint(out());
    const Architecture arch = read_architecture(*artifact);
    EXPECT_EQ(first_route(arch)->experts, 2u);
    EXPECT_EQ(variant.structured.size(), arch.layers);
    EXPECT_TRUE(std::ranges::any_of(variant.notes, [](const auto& note) {
      return note == "kept 2 of 4 experts";
    }));
    logits_of(*artifact, pool_);
    fs::remove_all(out());
  }
}

TEST_F(ExpertRun, EndsInTheSameBytesAfterInterruptions) {
  const Recipe of_model = recipe("qwen3_moe", kRemoveAndRound);
  run_recipe(of_model, {}, pool_);
  const auto whole = files_of(out());
  fs::remove_all(out());
  const auto interrupt = [&](const std::string& phase) {
    const RunOptions options{.progress = [&](const ProgressEvent& event) {
      if (event.phase.starts_with(phase) && event.done == 1) {
        throw Error(ErrorCode::kCancelled, "stop");
      }
    }};
    EXPECT_THROW(run_recipe(of_model, options, pool_), Error);
  };
  interrupt("prune experts");
  EXPECT_FALSE(fs::exists(directory_.path() / "out.resume" / "reduced-0"));
  interrupt("compress");
  EXPECT_TRUE(fs::exists(directory_.path() / "out.resume" / "reduced-0"));
  run_recipe(of_model, {}, pool_);
  EXPECT_EQ(files_of(out()), whole);
}

}  // namespace
}  // namespace llmpress
