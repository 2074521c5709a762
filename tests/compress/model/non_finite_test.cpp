#include "compress/model/non_finite.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/model/generation.h"
#include "tests/compress/model/tiny_model.h"

namespace llmpress {
namespace {

// Block 1 overflows: every weight is finite, its products are not.
TinyTensors overflowing(const TinyShape& shape) {
  TinyTensors tensors = tiny_tensors(shape, 1);
  for (const char* linear : {"gate_proj", "up_proj", "down_proj"}) {
    const std::string name =
        "model.layers.1.mlp." + std::string(linear) + ".weight";
    for (float& w : tensors[name].data()) w *= 1e25f;
  }
  return tensors;
}

TEST(NonFinite, NamesTheFirstBlockWhoseOutputIsNotFinite) {
  const TinyShape shape;
  const Decoder decoder(
      MemoryCheckpoint(overflowing(shape), config_json(shape)));
  const auto tokens = random_tokens(5, shape.vocabulary, 1);
  ThreadPool pool(1);
  EXPECT_EQ(find_non_finite(decoder, tokens, pool),
            "model.layers.1: its output is not finite at token 0 (counted from "
            "0)");
}

TEST(NonFinite, GenerationStopsAtLogitsThatAreNotFinite) {
  const TinyShape shape;
  const Decoder decoder(
      MemoryCheckpoint(overflowing(shape), config_json(shape)));
  const auto prompt = random_tokens(5, shape.vocabulary, 1);
  ThreadPool pool(1);
  for (const GenerationConfig& config :
       {GenerationConfig{}, GenerationConfig{.temperature = 1},
        GenerationConfig{.beams = 2}}) {
    try {
      generate(decoder, prompt, config, pool);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kNumeric);
      EXPECT_NE(std::string(error.what()).find("model.layers.1"),
                std::string::npos);
    }
  }
}

}  // namespace
}  // namespace llmpress
