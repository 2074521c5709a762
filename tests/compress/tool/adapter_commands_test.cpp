// merge, unmerge, extract, eval --adapter and generate --adapter as a user runs
// them.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "formats/adapters/peft_adapter.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/checkpoint.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/compress/pipeline/adapters/adapter_files.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

const std::string kQ0 = "model.layers.0.self_attn.q_proj";

struct Outcome {
  int code = -1;
  std::string out{}, err{};
};

class AdapterCommands : public testing::Test {
 protected:
  AdapterCommands() : tensors_(tiny_tensors(shape_, 7)) {
    write_model(path("base"), tensors_);
  }

  void write_model(const fs::path& folder, const TinyTensors& tensors) const {
    fs::create_directories(folder);
    write_file_atomically(folder / "config.json", config_json(shape_));
    write_file_atomically(folder / "model.safetensors",
                          write_safetensors(named_tensors(tensors), {}));
  }

  Outcome run(const std::string& arguments) {
    const fs::path out = path("stdout"), err = path("stderr");
    const std::string command = program() + " " + arguments + " >" +
                                out.string() + " 2>" + err.string();
    const int status = std::system(command.c_str());
    return {WEXITSTATUS(status), read_file(out), read_file(err)};
  }
  std::string path(const std::string& name) const {
    return (directory_.path() / name).string();
  }

  // An adapter of q_proj in layer 0 with scaling alpha / 4.
  LoraDelta write_adapter(const std::string& name, std::uint64_t seed,
                          bool dora = false) {
    Rng rng(seed);
    const LoraDelta delta = sized_lora(shape_.heads * shape_.head_dim,
                                       shape_.hidden, 4, 2, dora, rng);
    AdapterFiles(dora ? R"("r": 4, "lora_alpha": 8, "use_dora": true)"
                      : R"("r": 4, "lora_alpha": 8)")
        .linear(kQ0, delta)
        .write(path(name));
    return delta;
  }

  const MatrixF& base(const std::string& module) const {
    return tensors_.at(module + ".weight");
  }
  MatrixF written(const std::string& model, const std::string& module) const {
    return dequantize(open_checkpoint(path(model))->read_linear(module).weight);
  }

  TemporaryDirectory directory_;
  TinyShape shape_{};
  TinyTensors tensors_;
  const std::string shipped_ = source_dir() + "/models/tinystories-3.7m";
  const std::string text_ = source_dir() + "/models/text/evaluation.txt";
};

TEST_F(AdapterCommands, MergeWritesTheSumOfBaseAndAdapters) {
  const LoraDelta a = write_adapter("a", 1), b = write_adapter("b", 2);
  const Outcome outcome =
      run("merge " + path("base") + " " + path("a") + " " + path("b") +
          " --scale 0.5 --scale -2 --output " + path("merged"));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("merged 1 modules"), std::string::npos);
  const MatrixF& W = base(kQ0);
  const MatrixF found = written("merged", kQ0);
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (std::size_t i = 0; i < W.cols(); ++i) {
      double wanted = W(o, i), magnitude = std::fabs(W(o, i));
      for (const auto& [delta, scale] : {std::pair{&a, 1.0}, {&b, -4.0}}) {
        for (std::size_t k = 0; k < 4; ++k) {
          const double term =
              scale * static_cast<double>(delta->B(o, k)) * delta->A(k, i);
          wanted += term;
          magnitude += std::fabs(term);
        }
      }
      ASSERT_NEAR(found(o, i), wanted, 12 * kUnit * magnitude);
    }
  }
  const std::string untouched = "model.layers.1.mlp.up_proj";
  EXPECT_TRUE(std::ranges::equal(written("merged", untouched).data(),
                                 base(untouched).data()));
}

TEST_F(AdapterCommands, MergeRoundsToTheTypeAsked) {
  const LoraDelta a = write_adapter("a", 1);
  ASSERT_EQ(run("merge " + path("base") + " " + path("a") + " --dtype bf16" +
                " --output " + path("merged"))
                .code,
            0);
  const auto merged = open_checkpoint(path("merged"));
  const TensorInfo& info = merged->tensors().require(kQ0 + ".weight");
  EXPECT_EQ(info.dtype, DType::kBF16);
  const Reference wanted = naive_merge(a, base(kQ0));
  const MatrixF found = written("merged", kQ0);
  for (std::size_t i = 0; i < found.size(); ++i) {
    // Half a step of bf16's 8 bits, and the float32 sum before it.
    const double w = wanted.value.data()[i];
    ASSERT_NEAR(found.data()[i], w,
                std::fabs(w) * 0x1p-8 + 2 * wanted.bound.data()[i]);
  }
  const auto config = nlohmann::json::parse(merged->config_json());
  EXPECT_EQ(config["torch_dtype"], "bfloat16");
}

TEST_F(AdapterCommands, MergeCombinesByTiesAndDare) {
  write_adapter("a", 1);
  write_adapter("b", 2);
  for (const std::string method :
       {"ties_svd", "dare_linear_svd", "dare_ties_svd"}) {
    const std::string out = path("merged_" + method);
    const Outcome outcome =
        run("merge " + path("base") + " " + path("a") + " " + path("b") +
            " --combine " + method +
            " --density 0.25 --svd-rank 1000 --seed 3 --output " + out);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const MatrixF found = written("merged_" + method, kQ0);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (found.data()[i] != base(kQ0).data()[i]) ++kept;
    }
    // At most a quarter of each adapter's places, give or take chance (five
    // deviations of a binomial), and at least a quarter of one's.
    EXPECT_LT(kept, found.size() / 2 + 60) << method;
    EXPECT_GT(kept, found.size() / 4 - 60) << method;
  }
  EXPECT_EQ(run("merge " + path("base") + " " + path("a") +
                " --combine ties --density 0 --output " + path("none"))
                .code,
            2);
}

TEST_F(AdapterCommands, MergeRefusesWithExitCodesAndWritesNothing) {
  const std::string out = " --output " + path("none");
  write_adapter("a", 1);
  EXPECT_EQ(run("merge " + path("base") + " " + path("a") + " --scale 1" +
                " --scale 2" + out)
                .code,
            2);
  Outcome outcome = run("merge " + path("base") + " " + path("nowhere") + out);
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.err.find("nowhere"), std::string::npos) << outcome.err;
  Rng rng(1);
  AdapterFiles(R"("r": 4)")
      .linear("model.layers.7.mlp.up_proj", random_lora(40, 24, 4, false, rng))
      .write(path("unknown"));
  outcome = run("merge " + path("base") + " " + path("unknown") + out);
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.err.find("layers.7"), std::string::npos) << outcome.err;
  outcome =
      run("merge " + path("base") + " " + path("a") + " --text " + text_ + out);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_NE(outcome.err.find("not quantized"), std::string::npos)
      << outcome.err;
  EXPECT_FALSE(fs::exists(path("none")));
}

TEST_F(AdapterCommands, UnmergeGivesTheBaseBack) {
  write_adapter("a", 1);
  ASSERT_EQ(run("merge " + path("base") + " " + path("a") +
                " --scale 0.5 --output " + path("merged"))
                .code,
            0);
  const Outcome outcome = run("unmerge " + path("merged") + " " + path("a") +
                              " --scale 0.5 --output " + path("back"));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_LT(relative_difference(written("back", kQ0), base(kQ0)), 1e-6);
  EXPECT_GT(relative_difference(written("merged", kQ0), base(kQ0)), 0.01);
}

TEST_F(AdapterCommands, UnmergeRefusesDora) {
  write_adapter("dora", 1, true);
  const Outcome outcome = run("unmerge " + path("base") + " " + path("dora") +
                              " --output " + path("none"));
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.err.find("DoRA"), std::string::npos) << outcome.err;
  EXPECT_FALSE(fs::exists(path("none")));
}

TEST_F(AdapterCommands, ExtractFindsTheAdapterThatWasMerged) {
  const LoraDelta a = write_adapter("a", 1);
  ASSERT_EQ(run("merge " + path("base") + " " + path("a") + " --output " +
                path("tuned"))
                .code,
            0);
  const Outcome outcome =
      run("extract " + path("base") + " " + path("tuned") + " --rank 6" +
          " --output " + path("found") + " --json " + path("report.json"));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto report = nlohmann::json::parse(read_file(path("report.json")));
  EXPECT_GT(report["captured_energy"].get<double>(), 1 - 1e-6);
  EXPECT_EQ(report["layers"].size(), 14u);
  // Extracted, it is as good as the one that was merged.
  ASSERT_EQ(run("merge " + path("base") + " " + path("found") + " --output " +
                path("again"))
                .code,
            0);
  EXPECT_LT(relative_difference(written("again", kQ0), written("tuned", kQ0)),
            1e-6);
  const PeftAdapter found = read_peft_adapter(path("found"));
  ASSERT_EQ(found.modules.size(), 1u);
  // The float32 rounding of the tuned weight counts as a direction of its own
  // only if it is above the noise.
  EXPECT_EQ(found.modules.at(kQ0).A.rows(), 4u);
}

TEST_F(AdapterCommands, ExtractSaysWhatItLeavesOutOrSavesIt) {
  TinyTensors tuned = tensors_;
  for (float& v : tuned.at("model.norm.weight").data()) v *= 1.25f;
  for (float& v : tuned.at(kQ0 + ".weight").data()) v *= 1.5f;
  write_model(path("tuned"), tuned);
  const std::string command = "extract " + path("base") + " " + path("tuned") +
                              " --energy 0.6 --output " + path("found");
  Outcome outcome = run(command);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("not in the adapter: model.norm"),
            std::string::npos)
      << outcome.out;
  outcome = run(command + " --save-others");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const PeftAdapter found = read_peft_adapter(path("found"));
  ASSERT_TRUE(found.modules.at("model.norm").weight);
  EXPECT_TRUE(std::ranges::equal(found.modules.at("model.norm").weight->values,
                                 tuned.at("model.norm.weight").data()));
  const std::size_t rank = found.modules.at(kQ0).A.rows();
  EXPECT_GT(rank, 1u);
  EXPECT_LT(rank, 20u);
  EXPECT_EQ(run("extract " + path("base") + " " + path("base") +
                " --rank 2 --output " + path("none"))
                .code,
            3);
  EXPECT_EQ(run("extract " + path("base") + " " + path("tuned") + " --output " +
                path("none"))
                .code,
            2);
}

// Beside a tied base an adapter changes the embedding or the head alone.
TEST_F(AdapterCommands, ExtractKeepsBothEndsOfATiedModel) {
  shape_.tied = true;
  tensors_ = tiny_tensors(shape_, 7);
  write_model(path("base"), tensors_);
  TinyTensors tuned = tensors_;
  MatrixF& embedding = tuned.at("model.embed_tokens.weight");
  for (float& v : embedding.row(3)) v += 0.5f;
  for (float& v : tuned.at(kQ0 + ".weight").data()) v *= 1.5f;
  write_model(path("tuned"), tuned);
  const Outcome outcome =
      run("extract " + path("base") + " " + path("tuned") +
          " --rank 99 --save-others --output " + path("found"));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  ASSERT_EQ(run("merge " + path("base") + " " + path("found") + " --output " +
                path("merged"))
                .code,
            0);
  for (const char* const end : {"model.embed_tokens", "lm_head"}) {
    EXPECT_TRUE(
        std::ranges::equal(written("merged", end).data(), embedding.data()))
        << end;
  }
}

// On the shipped model, which has a tokenizer.
class AdapterOnShippedModel : public AdapterCommands {
 protected:
  // A random rank-2 adapter of the size of a fine-tune on every q and v.
  void write_shipped_adapter(float size) {
    Rng rng(5);
    AdapterFiles files(R"("r": 2, "lora_alpha": 2)");
    for (int layer = 0; layer < 4; ++layer) {
      for (const char* name : {"q_proj", "v_proj"}) {
        const std::size_t out = name[0] == 'q' ? 256 : 128;
        LoraDelta delta = random_lora(out, 256, 2, false, rng);
        for (float& b : delta.B.data()) b *= size;
        files.linear(
            "model.layers." + std::to_string(layer) + ".self_attn." + name,
            delta);
      }
    }
    files.write(path("adapter"));
  }
  double perplexity(const std::string& arguments) {
    const Outcome outcome = run("eval " + arguments + " --text " + text_ +
                                " --context 64 --max-windows 4 --json -");
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out)["perplexity"].get<double>();
  }
  void quantize(const std::string& quantize) {
    write_file_atomically(path("r.yaml"),
                          "stages:\n  - quantize: " + quantize + "\n");
    const Outcome outcome =
        run("run " + path("r.yaml") + " --model " + shipped_ + " --output " +
            path("packed") + " --quiet");
    ASSERT_EQ(outcome.code, 0) << outcome.err;
  }
};

TEST_F(AdapterOnShippedModel, EvalBesideEqualsEvalMerged) {
  write_shipped_adapter(0.02f);
  ASSERT_EQ(run("merge " + shipped_ + " " + path("adapter") +
                " --scale 0.5 --output " + path("merged"))
                .code,
            0);
  const double merged = perplexity(path("merged"));
  const double beside = perplexity(shipped_ + " --adapter " + path("adapter") +
                                   " --adapter-scale 0.5");
  EXPECT_NEAR(beside / merged, 1, 1e-5);
  EXPECT_GT(std::fabs(perplexity(shipped_) / merged - 1), 1e-3);
}

TEST_F(AdapterOnShippedModel, GeneratesWithTheAdapterBeside) {
  write_shipped_adapter(0.05f);
  ASSERT_EQ(run("merge " + shipped_ + " " + path("adapter") + " --output " +
                path("merged"))
                .code,
            0);
  const std::string prompt = " --prompt \"Once upon a time\" -n 12 --quiet";
  const Outcome merged = run("generate " + path("merged") + prompt);
  const Outcome beside =
      run("generate " + shipped_ + " --adapter " + path("adapter") + prompt);
  ASSERT_EQ(beside.code, 0) << beside.err;
  EXPECT_EQ(beside.out, merged.out);
  EXPECT_NE(beside.out, run("generate " + shipped_ + prompt).out);
}

TEST_F(AdapterOnShippedModel, MergesIntoPackedBasesAndSaysWhatSurvives) {
  write_shipped_adapter(0.02f);
  for (const char* const stage :
       {"{method: rtn, weights: {bits: 4, group_size: 32}}",
        "{method: llm_int8, llm_int8: {outliers: batch}}",
        "{method: nf4, weights: {type: nf4, block_size: 64}}"}) {
    quantize(stage);
    const Outcome outcome =
        run("merge " + path("packed") + " " + path("adapter") + " --output " +
            path("merged") + " --text " + text_ +
            " --context 64 --max-windows 4 --json -");
    ASSERT_EQ(outcome.code, 0) << stage << "\n" << outcome.err;
    const auto report = nlohmann::json::parse(outcome.out);
    EXPECT_EQ(report["layers"].size(), 8u);
    EXPECT_EQ(report["modules"], 8);
    const auto base = open_checkpoint(path("packed"));
    const auto merged = open_checkpoint(path("merged"));
    EXPECT_EQ(base->format(), merged->format());
    // The report's figures, from the files.
    const auto& layer = report["layers"][0];
    const std::string name = layer["name"];
    const LinearWeights from = base->read_linear(name);
    const LinearWeights to = merged->read_linear(name);
    EXPECT_EQ(describe(from.weight), describe(to.weight));
    EXPECT_EQ(from.input, to.input);
    const MatrixF W = dequantize(from.weight), Q = dequantize(to.weight);
    double surviving = 0;
    for (std::size_t i = 0; i < W.size(); ++i) {
      const double c = static_cast<double>(Q.data()[i]) - W.data()[i];
      surviving += c * c;
    }
    const double change = layer["change_norm"];
    EXPECT_NEAR(layer["kept"].get<double>(), std::sqrt(surviving) / change,
                1e-6);
    EXPECT_GT(layer["cosine"].get<double>(), 0.1);
    // A Linear that the adapter leaves alone keeps its codes.
    const std::string untouched = "model.layers.1.mlp.up_proj";
    EXPECT_TRUE(std::ranges::equal(
        dequantize(base->read_linear(untouched).weight).data(),
        dequantize(merged->read_linear(untouched).weight).data()));
    EXPECT_NEAR(report["evaluation"]["merged"]["perplexity"].get<double>(),
                perplexity(path("merged")), 1e-6);
    // Rounded inputs reach the change where it is merged, not where it is
    // beside.
    const bool rounds_inputs = from.input.kind != ActivationQuant::Kind::kNone;
    EXPECT_NEAR(
        report["evaluation"]["exact"]["perplexity"].get<double>() /
            perplexity(path("packed") + " --adapter " + path("adapter")),
        1, rounds_inputs ? 1e-2 : 1e-5);
  }
}

// Each kind of packed base, with the rounding error that its own grid leaves.
TEST_F(AdapterOnShippedModel, MergesIntoEveryKindOfPackedBase) {
  write_shipped_adapter(0.02f);
  const std::vector<std::pair<std::string, double>> kinds{
      {"{method: rtn, weights: {bits: 4, group_size: 32}}", 0.1},
      {"{method: rtn, scheme: W8A16}", 0.02},
      {"{method: rtn, scheme: W8A8}", 0.02},
      {"{method: hqq}", 0.1},
      {"{method: rtn, weights: {type: fp8, group_size: 0}}", 0.04},
      {"{method: rtn, scheme: FP8_DYNAMIC}", 0.04},
      {"{method: rtn, scheme: FP8_BLOCK}", 0.04},
      {"{method: rtn, scheme: FP8_DYNAMIC, targets: [Linear, lm_head]}", 0.04},
      {"{method: nf4}", 0.1},
      {"{method: nf4, weights: {type: fp4}}", 0.2},
      {"{method: rtn, scheme: MXFP4A16}", 0.2},
      {"{method: rtn, scheme: NVFP4A16}", 0.15}};
  const std::string q1 = "model.layers.1.self_attn.q_proj";
  ASSERT_EQ(run("merge " + shipped_ + " " + path("adapter") + " --output " +
                path("dense"))
                .code,
            0);
  const MatrixF wanted = written("dense", q1);
  for (const auto& [stage, bound] : kinds) {
    quantize(stage);
    const std::string command =
        path("packed") + " " + path("adapter") + " --output " + path("merged");
    const Outcome outcome = run("merge " + command);
    // Real zeros have no place outside HDF5.
    ASSERT_EQ(outcome.code, 0) << stage << "\n" << outcome.err;
    const MatrixF found = written("merged", q1);
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const double d = found.data()[i] - wanted.data()[i];
      error += d * d;
      norm += static_cast<double>(wanted.data()[i]) * wanted.data()[i];
    }
    EXPECT_LT(std::sqrt(error / norm), 2 * bound) << stage;
    const Outcome unmerged = run("unmerge " + path("merged") + " " +
                                 path("adapter") + " --output " + path("no"));
    EXPECT_EQ(unmerged.code, 3) << stage;
    EXPECT_NE(unmerged.err.find("is quantized"), std::string::npos) << stage;
    EXPECT_FALSE(fs::exists(path("no")));
  }
}

TEST_F(AdapterCommands, MergeRefusesValuesThatTheTypeDoesNotHold) {
  LoraDelta delta = write_adapter("a", 1);
  for (float& b : delta.B.data()) b *= 1e6f;
  AdapterFiles(R"("r": 4, "lora_alpha": 8)")
      .linear(kQ0, delta)
      .write(path("a"));
  const Outcome outcome = run("merge " + path("base") + " " + path("a") +
                              " --dtype f16 --output " + path("none"));
  EXPECT_EQ(outcome.code, 4);
  EXPECT_NE(outcome.err.find("tensor '" + kQ0 + ".weight': the value"),
            std::string::npos)
      << outcome.err;
  EXPECT_NE(outcome.err.find("does not fit F16"), std::string::npos);
  EXPECT_FALSE(fs::exists(path("none")));
  EXPECT_EQ(run("merge " + path("base") + " " + path("a") +
                " --dtype bf16 --output " + path("wide"))
                .code,
            0);
}

TEST_F(AdapterCommands, NamesWhatOfAnAdapterDoesNothing) {
  LoraDelta delta = write_adapter("a", 1);
  std::ranges::fill(delta.B.data(), 0.0f);
  AdapterFiles(R"("r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "wo"],
      "rank_pattern": {"w1": 3, "q_proj": 4}, "alpha_pattern": {"e.*t": 2})")
      .linear(kQ0, delta)
      .write(path("a"));
  const Outcome outcome = run("merge " + path("base") + " " + path("a") +
                              " --output " + path("merged"));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const char* const wanted :
       {"target_modules names 'wo', which no module of the model is",
        "rank_pattern has 'w1', which matches no module",
        "alpha_pattern has 'e.*t', which matches no module",
        "changes nothing: all of its numbers are zero"}) {
    EXPECT_NE(outcome.err.find(wanted), std::string::npos) << wanted << "\n"
                                                           << outcome.err;
  }
}

TEST_F(AdapterCommands, SaysThatAnAdapterHasAnotherVocabulary) {
  const std::size_t rows = shape_.vocabulary + 4;
  const MatrixF head(rows, shape_.hidden);
  AdapterFiles(R"("r": 4, "modules_to_save": ["lm_head"])")
      .matrix("lm_head.weight", head)
      .write(path("a"));
  const Outcome outcome = run("merge " + path("base") + " " + path("a") +
                              " --output " + path("none"));
  EXPECT_EQ(outcome.code, 3);
  const std::string found = "[" + std::to_string(rows) + ", ";
  EXPECT_NE(outcome.err.find("a weight of " + found), std::string::npos)
      << outcome.err;
  EXPECT_NE(outcome.err.find("resize_token_embeddings"), std::string::npos);
}

TEST_F(AdapterOnShippedModel, CalibratedMergesGoThroughGptq) {
  write_shipped_adapter(0.02f);
  quantize("{method: rtn, weights: {bits: 4, group_size: 32}}");
  const std::string command = "merge " + path("packed") + " " +
                              path("adapter") + " --calibration " +
                              source_dir() +
                              "/models/text/calibration.txt --samples 8 "
                              "--sequence-length 64 --json - --output ";
  const Outcome outcome = run(command + path("gptq"));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(nlohmann::json::parse(outcome.out)["method"], "gptq");
  const auto base = open_checkpoint(path("packed"));
  const auto merged = open_checkpoint(path("gptq"));
  const std::string q1 = "model.layers.1.self_attn.q_proj";
  EXPECT_EQ(describe(merged->read_linear(q1).weight),
            describe(base->read_linear(q1).weight));
  ASSERT_EQ(run("merge " + path("packed") + " " + path("adapter") +
                " --output " + path("rtn"))
                .code,
            0);
  EXPECT_FALSE(std::ranges::equal(written("gptq", q1).data(),
                                  written("rtn", q1).data()));
  const std::string untouched = "model.layers.1.mlp.up_proj";
  EXPECT_TRUE(std::ranges::equal(written("gptq", untouched).data(),
                                 written("packed", untouched).data()));
}

TEST_F(AdapterOnShippedModel, ScalesWithoutAnAdapterAreWrongUsage) {
  EXPECT_EQ(
      run("eval " + shipped_ + " --text " + text_ + " --adapter-scale 0.5")
          .code,
      2);
}

}  // namespace
}  // namespace llmpress
