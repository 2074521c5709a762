#include "compress/pipeline/evaluation/inspection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "compress/core/error.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/evaluation/tensor_values.h"
#include "compress/pipeline/run/run.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

// Stacked experts and weights that lie the other way round.
TEST(Inspecting, FindsLinearsWhereverTheyLie) {
  for (const char* name : {"gpt_oss", "granitemoehybrid", "gpt2", "phimoe"}) {
    const auto golden = open_checkpoint(std::filesystem::path(source_dir()) /
                                        "tests/compress/model/goldens" / name);
    const Architecture arch = read_architecture(*golden);
    const Inspection found = inspect(*golden, arch);
    std::size_t linears = 0, bytes = 0;
    for (const InspectedTensor& tensor : found.tensors) {
      linears += tensor.linear ? 1 : 0;
      bytes += tensor.linear ? tensor.bytes : 0;
      EXPECT_EQ(tensor.name.find("gate_up_proj"), std::string::npos)
          << "the stack beside its experts";
    }
    EXPECT_EQ(linears, arch.linear_names().size()) << name;
    EXPECT_EQ(bytes, found.size.linear_bytes) << name;
  }
}

TEST(Inspecting, TellsLayoutsTokenizerAndMetadata) {
  const auto checkpoint = open_checkpoint(shipped("tinystories-3.7m"));
  const Inspection found = inspect(*checkpoint, read_architecture(*checkpoint));
  EXPECT_EQ(found.tokenizer.kind, "bpe metaspace");
  EXPECT_EQ(found.tokenizer.vocabulary, 2048u);
  EXPECT_EQ(found.tokenizer.bos, 1u);
  EXPECT_TRUE(found.tokenizer.adds_bos);
  EXPECT_EQ(found.layers, 4u);
  EXPECT_EQ(found.metadata.at("format"), "pt");
  const auto totals = totals_by_type(found);
  ASSERT_EQ(totals.size(), 2u);
  EXPECT_EQ(totals[0].tensors, 28u);
  EXPECT_EQ(totals[0].weights, 3145728u);
  EXPECT_EQ(totals[1].tensors, 10u);
}

TEST(Inspecting, MeasuresTheValuesOfATensorAndOfALinear) {
  TemporaryDirectory directory;
  ThreadPool pool{2};
  const auto out = directory.path() / "w3";
  run_recipe(small_recipe("[{quantize: {method: rtn, weights: {bits: 3, "
                          "group_size: 64}}}]",
                          out),
             {}, pool);
  const auto artifact = open_checkpoint(out);
  const Architecture arch = read_architecture(*artifact);
  const std::string name = "model.layers.1.mlp.down_proj";
  const TensorValues linear = measure_values(*artifact, arch, name);
  const MatrixF W = dequantize(artifact->read_linear(name).weight);
  EXPECT_EQ(linear.count, W.size());
  EXPECT_EQ(linear.lowest, std::ranges::min(W.data()));
  EXPECT_EQ(linear.highest, std::ranges::max(W.data()));
  const double sum = std::accumulate(W.data().begin(), W.data().end(), 0.0);
  EXPECT_NEAR(linear.mean, sum / static_cast<double>(W.size()), 1e-12);
  EXPECT_EQ(std::accumulate(linear.histogram.begin(), linear.histogram.end(),
                            std::size_t{0}),
            W.size());
  ASSERT_EQ(linear.codes.size(), 8u);
  EXPECT_EQ(
      std::accumulate(linear.codes.begin(), linear.codes.end(), std::size_t{0}),
      W.size());
  const TensorValues norm =
      measure_values(*artifact, arch, "model.norm.weight");
  EXPECT_EQ(norm.count, 256u);
  EXPECT_TRUE(norm.codes.empty());
  EXPECT_THROW(measure_values(*artifact, arch, "model.norms"), Error);
}

}  // namespace
}  // namespace llmpress
