// Rows of one Linear that are solved some at a time or by several ranks.
#include <gtest/gtest.h>

#include "compress/core/damping.h"
#include "compress/core/linear_bytes.h"
#include "quantizers/gptq.h"
#include "tests/compress/core/thread_ranks.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::correlated_layer;
using testing_support::gptq_config;
using testing_support::Layer;

QuantizeResult on_ranks(const Layer& layer, const QuantizeConfig& config,
                        MatrixView<const std::uint8_t> mask, const Ranks& ranks,
                        std::size_t solved_bytes = kSolvedBytes) {
  ThreadPool pool(1);
  SharedInverse inverse(ranks);
  return quantize_gptq({.W = layer.W.view(),
                        .mask = mask,
                        .stats = &layer.stats,
                        .config = &config,
                        .pool = &pool,
                        .name = "layer",
                        .inverse = &inverse,
                        .solved_bytes = solved_bytes});
}

TEST(GptqRows, RanksAndSlicesSolveRowsAsOneRankSolvesAll) {
  const Layer layer = correlated_layer(600, 256, 9);
  Matrix<std::uint8_t> mask(600, 256);
  for (std::size_t i = 0; i < mask.size(); ++i) mask.data()[i] = i % 3 != 0;
  QuantizeConfig plain = gptq_config(4, 32), ordered = plain, fixed = plain;
  ordered.gptq.act_order = true;
  fixed.gptq.act_order = true;
  fixed.gptq.static_groups = true;
  QuantizeConfig whole = gptq_config(8, -1), tensor = gptq_config(4, 0);
  QuantizeConfig blocks = plain;
  blocks.weights.type = WeightType::kGgml;
  blocks.weights.ggml_type = GgmlType::kQ4_K;
  for (const QuantizeConfig& config :
       {plain, ordered, fixed, whole, tensor, blocks}) {
    const auto m = config.weights.type == WeightType::kGgml
                       ? MatrixView<const std::uint8_t>{}
                       : mask.view();
    const QuantizeResult alone = on_ranks(layer, config, m, {});
    EXPECT_GT(alone.output_error, 0);
    const auto expect_same = [&](const QuantizeResult& found) {
      EXPECT_EQ(to_bytes(LinearWeights{.weight = found.weight}),
                to_bytes(LinearWeights{.weight = alone.weight}))
          << describe(alone.weight);
      EXPECT_EQ(found.output_error, alone.output_error);
      EXPECT_EQ(found.notes, alone.notes);
    };
    // In three slices, and in two.
    expect_same(on_ranks(layer, config, m, {}, 1));
    expect_same(on_ranks(layer, config, m, {}, 512 * 256 * sizeof(float)));
    for (const std::size_t size : {2u, 4u}) {  // the last of 4 has no rows
      run_on_ranks(size, [&](const Ranks& ranks) {
        expect_same(on_ranks(layer, config, m, ranks));
        expect_same(on_ranks(layer, config, m, ranks, 1));
      });
    }
  }
}

}  // namespace
}  // namespace llmpress
