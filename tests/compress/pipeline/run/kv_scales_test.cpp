#include "compress/pipeline/run/kv_scales.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compress/calibration/calibration_text.h"
#include "compress/core/error.h"
#include "compress/model/decoder.h"
#include "compress/model/facts.h"
#include "compress/model/model_source.h"
#include "compress/pipeline/run/run.h"
#include "formats/containers/typed_tensors.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

float largest(ConstMatrixView rows) {
  float found = 0;
  for (std::size_t r = 0; r < rows.rows(); ++r) {
    for (const float x : rows.row(r)) found = std::max(found, std::abs(x));
  }
  return found;
}

class KvScalesRun : public testing::Test {
 protected:
  Recipe recipe(const std::string& stages, const std::string& more = "") {
    return small_recipe(stages, output(), more);
  }
  std::filesystem::path output() const { return directory_.path() / "out"; }

  float scale(const Checkpoint& artifact, const std::string& name) {
    return read_vector(artifact.tensors(), name, 1).front();
  }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

TEST_F(KvScalesRun, AreTheLargestMagnitudesThatTheCacheSees) {
  const Recipe r = recipe("[{quantize_kv_cache: {type: fp8}}]");
  run_recipe(r, {}, pool_);

  const ModelSource base = open_model(r.model);
  const Decoder decoder(*base.checkpoint);
  const CalibrationSet set = load_calibration(*r.calibration, *base.tokenizer);
  const std::size_t layers = base.arch->layers;
  std::vector<KvRange> expected(layers);
  for (const auto& sequence : set.sequences) {
    KvCache cache = decoder.make_cache(sequence.size());
    const Segment segment{sequence.size(), 0, &cache};
    decoder.forward(sequence, {&segment, 1}, pool_);
    for (std::size_t layer = 0; layer < layers; ++layer) {
      const AttentionOp* attention =
          attention_linears(base.arch->block(layer)).attention;
      const std::size_t width = attention->kv_heads * attention->head_dim;
      MatrixF keys(sequence.size(), width), values(sequence.size(), width);
      cache.read({layer, attention->slot}, 0, keys.view(), values.view());
      expected[layer].keys =
          std::max(expected[layer].keys, largest(std::as_const(keys).view()));
      expected[layer].values = std::max(expected[layer].values,
                                        largest(std::as_const(values).view()));
    }
  }

  const auto artifact = open_checkpoint(output());
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const std::string attention = base.arch->block_name(layer) + ".self_attn";
    EXPECT_NEAR(scale(*artifact, attention + ".k_scale"),
                expected[layer].keys / 448, 1e-5 * expected[layer].keys);
    EXPECT_NEAR(scale(*artifact, attention + ".v_scale"),
                expected[layer].values / 448, 1e-5 * expected[layer].values);
  }
}

TEST_F(KvScalesRun, AreAppliedWhenTheArtifactRunsBesidePackedWeights) {
  const std::string evaluate =
      "evaluate: {text: " + shipped("text/evaluation.txt").string() +
      ", context: 64, max_windows: 8}\n";
  const std::string quantize =
      "{quantize: {method: rtn, weights: {bits: 8, group_size: -1}}}";
  const RunReport plain =
      run_recipe(recipe("[" + quantize + "]", evaluate), {}, pool_);
  const RunReport rounded = run_recipe(
      recipe("[" + quantize + ", {quantize_kv_cache: {type: int8}}]", evaluate),
      {}, pool_);

  const EvaluationResult& result = *rounded.variants[0].evaluation;
  EXPECT_NE(result.kv_cache.find("int8 with static scales"), std::string::npos)
      << result.kv_cache;
  const double before = plain.variants[0].evaluation->perplexity;
  EXPECT_NE(result.perplexity, before);
  EXPECT_NEAR(result.perplexity, before, 0.01 * before);
}

TEST_F(KvScalesRun, SurviveAnInterruption) {
  const Recipe r = recipe("[{quantize_kv_cache: {}}]");
  EXPECT_EQ(plan_recipe(r, {}, pool_).variants[0].notes,
            std::vector<std::string>{"keys and values in fp8, calibrated "
                                     "scales in 4 attention modules"});
  run_recipe(r, {}, pool_);
  const auto whole = files_of(output());
  std::size_t blocks = 0;
  const auto interrupt = [&](const ProgressEvent& event) {
    if (event.phase.starts_with("compress") && ++blocks == 3) {
      throw Error(ErrorCode::kCancelled, "interrupted");
    }
  };
  std::filesystem::remove_all(output());
  EXPECT_THROW(run_recipe(r, {.progress = interrupt}, pool_), Error);
  run_recipe(r, {}, pool_);
  EXPECT_EQ(files_of(output()).at("model.safetensors"),
            whole.at("model.safetensors"));
}

TEST_F(KvScalesRun, RefuseWhatCannotBeSaid) {
  const auto refusal = [&](const Recipe& r) {
    try {
      run_recipe(r, {}, pool_);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      return std::string(e.what());
    }
    return std::string("not refused");
  };
  Recipe bitsandbytes = recipe("[{quantize_kv_cache: {}}]");
  bitsandbytes.output->format = "bitsandbytes";
  EXPECT_NE(refusal(bitsandbytes).find("cannot hold the scales"),
            std::string::npos);

  run_recipe(recipe("[{quantize_kv_cache: {}}]"), {}, pool_);
  Recipe again = recipe("[{quantize_kv_cache: {}}]");
  again.model = output();
  again.output->path = directory_.path() / "again";
  EXPECT_NE(refusal(again).find("has a kv_cache_scheme already"),
            std::string::npos);

  Recipe without = recipe("[{quantize_kv_cache: {}}]");
  without.calibration.reset();
  EXPECT_NE(refusal(without).find("needs calibration"), std::string::npos);

  EXPECT_THROW(recipe("[{quantize_kv_cache: {type: int4}}]"), Error);
  EXPECT_NE(refusal(recipe("[{quantize_kv_cache: {}}, {quantize: {method: "
                           "rtn, weights: {bits: 8}}}]"))
                .find("it acts before that stage"),
            std::string::npos);
}

}  // namespace
}  // namespace llmpress
