#include "compress/model/live_widths.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "compress/model/architecture.h"

namespace llmpress {
namespace {

// Hidden 64, 4 query and 2 key heads of 16, an MLP of 160.
constexpr const char* kLlama = R"({
  "model_type": "llama", "vocab_size": 512, "hidden_size": 64,
  "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "hidden_act": "silu", "rms_norm_eps": 1e-05,
  "max_position_embeddings": 128, "tie_word_embeddings": false})";

TEST(LiveWidths, OfALlamaBlockAreThoseOfItsProgram) {
  const Architecture arch = parse_architecture(kLlama, "config.json");
  const LiveWidths widths = live_widths(arch.block(0));
  // q, k and v; o; gate and up; down; behind the block.
  ASSERT_EQ(widths.at_stage.size(), 5u);
  EXPECT_EQ(widths.at_stage[0], 64u + 64u);  // the stream and its norm
  EXPECT_EQ(widths.at_stage[1], 64u + 64u);  // and what attention gives
  EXPECT_EQ(widths.at_stage[2], 64u + 64u);
  EXPECT_EQ(widths.at_stage[3], 64u + 160u);  // the MLP's inner values
  EXPECT_EQ(widths.at_stage[4], 64u);
  ASSERT_EQ(widths.towards.size(), 5u);
  EXPECT_EQ(widths.towards[0], 128u);
  // gate, up and their product, or the product's activation in its place.
  EXPECT_GE(widths.towards[3], 64u + 2 * 160u);
  EXPECT_LE(widths.towards[3], 64u + 3 * 160u);
  for (std::size_t s = 0; s < widths.at_stage.size(); ++s) {
    EXPECT_GE(widths.towards[s], widths.at_stage[s]);
  }
}

// A token of a mixture counts once for each of its experts.
TEST(LiveWidths, CountATokenOnceForEachExpertThatSeesIt) {
  const auto widest = [](int top) {
    const Architecture arch = parse_architecture(
        R"({"model_type": "mixtral", "vocab_size": 512, "hidden_size": 64,
        "intermediate_size": 160, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_local_experts": 8, "num_experts_per_tok": )" +
            std::to_string(top) + R"(, "hidden_act": "silu",
        "rms_norm_eps": 1e-05, "max_position_embeddings": 128,
        "tie_word_embeddings": false})",
        "config.json");
    return std::ranges::max(live_widths(arch.block(0)).towards);
  };
  EXPECT_GE(widest(4) - widest(2), 2 * 2 * 160u);
}

}  // namespace
}  // namespace llmpress
