// A model whose blocks or rows are on several ranks gives the bits of one that
// is whole.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "compress/model/decoder.h"
#include "compress/model/generation.h"
#include "compress/model/non_finite.h"
#include "compress/model/tensor_places.h"
#include "formats/checkpoints/checkpoint.h"
#include "tests/compress/core/thread_ranks.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPrompt = 12, kTokens = 16;

struct Spread {
  std::size_t stages = 1, tensor = 1;
};

Decoder::Options options_on(const Ranks& ranks, const Spread& spread) {
  return {.tensor = ranks.split(ranks.rank() / spread.tensor),
          .stages = ranks.split(ranks.rank() % spread.tensor)};
}

// Logits of a prompt without and with a cache, and of tokens behind it.
std::vector<float> outputs(const Decoder& decoder) {
  ThreadPool pool(1);
  std::vector<float> all;
  const auto add = [&](const MatrixF& hidden) {
    const MatrixF logits = decoder.ends().logits(hidden.view(), pool);
    all.insert(all.end(), logits.data().begin(), logits.data().end());
  };
  const auto tokens =
      random_tokens(kTokens, decoder.architecture().vocabulary, 3);
  const std::span<const TokenId> ids = tokens;
  const Segment alone{kPrompt, 0, nullptr};
  add(decoder.forward(ids.first(kPrompt), {&alone, 1}, pool));
  KvCache cache = decoder.make_cache(kTokens);
  for (std::size_t t = 0; t < kTokens;) {
    const std::size_t rows = t == 0 ? kPrompt : 1;
    const Segment next{rows, t, &cache};
    add(decoder.forward(ids.subspan(t, rows), {&next, 1}, pool));
    t += rows;
  }
  return all;
}

void expect_same_bits(const Checkpoint& checkpoint, const Spread& spread,
                      const std::string& name) {
  const std::vector<float> wanted = outputs(Decoder(checkpoint));
  run_on_ranks(spread.stages * spread.tensor, [&](const Ranks& ranks) {
    const Decoder decoder(checkpoint, options_on(ranks, spread));
    const std::vector<float> found = outputs(decoder);
    ASSERT_EQ(found.size(), wanted.size());
    EXPECT_EQ(std::memcmp(found.data(), wanted.data(), 4 * found.size()), 0)
        << name << ": rank " << ranks.rank() << " of " << spread.stages
        << " stages, " << spread.tensor << " parts";
  });
}

std::vector<fs::path> goldens() {
  std::vector<fs::path> found;
  const fs::path folder =
      fs::path(source_dir()) / "tests/compress/model/goldens";
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (fs::exists(entry.path() / "config.json")) found.push_back(entry.path());
  }
  std::ranges::sort(found);
  return found;
}

class ModelOnRanks : public testing::TestWithParam<fs::path> {};

TEST_P(ModelOnRanks, GivesTheBitsOfTheWhole) {
  const auto checkpoint = open_checkpoint(GetParam());
  const std::size_t layers = read_architecture(*checkpoint).layers;
  const std::string name = GetParam().filename().string();
  expect_same_bits(*checkpoint, {.stages = std::min<std::size_t>(2, layers)},
                   name);
  expect_same_bits(*checkpoint, {.tensor = 2}, name);
}

INSTANTIATE_TEST_SUITE_P(Families, ModelOnRanks, testing::ValuesIn(goldens()),
                         [](const auto& tested) {
                           return tested.param.filename().string();
                         });

TinyShape wide_shape() {
  return {.hidden = 192, .ffn = 320, .layers = 5, .vocabulary = 301};
}

MemoryCheckpoint wide_model() {
  return {tiny_tensors(wide_shape(), 8), config_json(wide_shape())};
}

TEST(ModelOnRanks, IsSpreadBothWaysOverAnyNumber) {
  const MemoryCheckpoint checkpoint = wide_model();
  for (const Spread spread :
       {Spread{3, 1}, Spread{5, 1}, Spread{1, 3}, Spread{2, 2}, Spread{1, 7}}) {
    expect_same_bits(checkpoint, spread, "wide");
  }
}

TEST(ModelOnRanks, HoldsItsPartAlone) {
  const MemoryCheckpoint checkpoint = wide_model();
  const std::size_t whole = Decoder(checkpoint).bytes();
  std::size_t ends = 0;
  {
    const Decoder decoder(checkpoint);
    ends = decoder.ends().bytes();
  }
  run_on_ranks(5, [&](const Ranks& ranks) {
    const Decoder stage(checkpoint, options_on(ranks, {.stages = 5}));
    ASSERT_EQ(stage.blocks().size(), 1u);
    EXPECT_EQ(stage.blocks()[0].layer(), ranks.rank());
    EXPECT_EQ(stage.bytes() - ends, (whole - ends) / 5);
    EXPECT_LT(stage.make_cache(64).bytes(),
              Decoder(checkpoint).make_cache(64).bytes() / 4);
  });
  run_on_ranks(3, [&](const Ranks& ranks) {
    const Decoder part(checkpoint, options_on(ranks, {.tensor = 3}));
    EXPECT_LT(part.bytes(), whole / 2);
  });
}

TEST(ModelOnRanks, GeneratesTheSameText) {
  const MemoryCheckpoint checkpoint = wide_model();
  const auto prompt = random_tokens(9, wide_shape().vocabulary, 2);
  GenerationConfig config{.max_new_tokens = 12, .temperature = 0.9f, .seed = 5};
  ThreadPool own(1);
  const auto wanted =
      generate(Decoder(checkpoint), prompt, config, own, {}).tokens;
  GenerationConfig beams{.max_new_tokens = 6, .beams = 3};
  const auto best =
      generate(Decoder(checkpoint), prompt, beams, own, {}).tokens;
  run_on_ranks(4, [&](const Ranks& ranks) {
    ThreadPool pool(1);
    const Decoder decoder(checkpoint,
                          options_on(ranks, {.stages = 2, .tensor = 2}));
    EXPECT_EQ(generate(decoder, prompt, config, pool, {}).tokens, wanted);
    EXPECT_EQ(generate(decoder, prompt, beams, pool, {}).tokens, best);
  });
}

TEST(ModelOnRanks, RefusesMoreStagesThanBlocks) {
  const MemoryCheckpoint checkpoint = wide_model();
  run_on_ranks(6, [&](const Ranks& ranks) {
    EXPECT_THROW(Decoder(checkpoint, options_on(ranks, {.stages = 6})), Error);
  });
}

TEST(ModelOnRanks, NamesTheBlockThatIsNotFinite) {
  auto tensors = tiny_tensors(wide_shape(), 8);
  // Every weight is finite, their products are not.
  for (const std::string linear : {"gate_proj", "up_proj", "down_proj"}) {
    MatrixF& W = tensors["model.layers.3.mlp." + linear + ".weight"];
    for (float& w : W.data()) w *= 1e25f;
  }
  const MemoryCheckpoint checkpoint(tensors, config_json(wide_shape()));
  const auto tokens = random_tokens(5, wide_shape().vocabulary, 2);
  run_on_ranks(2, [&](const Ranks& ranks) {
    ThreadPool pool(1);
    const Decoder decoder(checkpoint, options_on(ranks, {.stages = 2}));
    const std::string found = find_non_finite(decoder, tokens, pool);
    EXPECT_TRUE(found.starts_with("model.layers.3: ")) << found;
  });
}

}  // namespace
}  // namespace llmpress
