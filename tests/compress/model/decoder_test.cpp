#include "compress/model/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/safetensors.h"
#include "tests/compress/model/naive_decoder.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

MatrixF logits_of(const Decoder& decoder, std::span<const TokenId> tokens,
                  ThreadPool& pool) {
  const Segment all{tokens.size(), 0, nullptr};
  const MatrixF hidden = decoder.forward(tokens, {&all, 1}, pool);
  return decoder.ends().logits(hidden.view(), pool);
}

float largest(const MatrixF& X) {
  float max = 0;
  for (const float x : X.data()) max = std::max(max, std::abs(x));
  return max;
}

// Every value within `tolerance` of the largest magnitude. A forward pass is a
// few dozen roundings of 2^-24 deep, on sums of at most 40 terms: 1e-5 leaves
// room, and the smallest mistake of a formula is a thousand times that.
void expect_near(const MatrixF& found, const MatrixF& expected,
                 float tolerance = 1e-5f) {
  ASSERT_EQ(found.rows(), expected.rows());
  ASSERT_EQ(found.cols(), expected.cols());
  const float bound = tolerance * largest(expected);
  for (std::size_t r = 0; r < found.rows(); ++r) {
    for (std::size_t c = 0; c < found.cols(); ++c) {
      ASSERT_NEAR(found(r, c), expected(r, c), bound) << r << ", " << c;
    }
  }
}

MatrixF to_matrix(const Rows& rows) {
  MatrixF X(rows.size(), rows[0].size());
  for (std::size_t r = 0; r < X.rows(); ++r) {
    for (std::size_t c = 0; c < X.cols(); ++c) {
      X(r, c) = static_cast<float>(rows[r][c]);
    }
  }
  return X;
}

void expect_matches_naive(const NaiveDecoder& naive) {
  ThreadPool pool(2);
  const MemoryCheckpoint checkpoint(naive.tensors, config_json(naive.shape));
  const auto tokens = random_tokens(19, naive.shape.vocabulary, 5);
  const MatrixF expected = to_matrix(naive.logits(tokens));
  for (const Isa isa : available_isas()) {
    const Decoder decoder(checkpoint, {.isa = isa});
    expect_near(logits_of(decoder, tokens, pool), expected);
  }
}

NaiveDecoder naive_of(const TinyShape& shape, std::uint64_t seed = 1) {
  return NaiveDecoder::plain(shape, tiny_tensors(shape, seed));
}

TEST(Decoder, MatchesAPlainForwardPassWithGroupedQueries) {
  expect_matches_naive(naive_of({}));
}

TEST(Decoder, MatchesAPlainForwardPassWithOneKeyHeadForEachQuery) {
  expect_matches_naive(naive_of({.heads = 2, .kv_heads = 2, .head_dim = 10}));
}

TEST(Decoder, MatchesAPlainForwardPassWithATiedHead) {
  expect_matches_naive(naive_of({.tied = true}));
}

TEST(Decoder, MatchesAPlainForwardPassWithBiasesEverywhere) {
  expect_matches_naive(
      naive_of({.qkv_bias = true,
                .o_bias = true,
                .mlp_bias = true,
                .more_json = R"(, "attention_bias": true, "mlp_bias": true)"}));
}

TEST(Decoder, MatchesAPlainForwardPassOfQwen2) {
  expect_matches_naive(naive_of({.model_type = "qwen2", .qkv_bias = true}));
}

TEST(Decoder, MatchesAPlainForwardPassOfQwen3) {
  expect_matches_naive(naive_of({.model_type = "qwen3", .head_norms = true}));
}

TEST(Decoder, MatchesAPlainForwardPassWithAWindowInSomeLayers) {
  NaiveDecoder naive = naive_of({.model_type = "qwen2",
                                 .qkv_bias = true,
                                 .more_json = R"(, "use_sliding_window": true,
                    "sliding_window": 5, "max_window_layers": 1)"});
  naive.windows = {0, 5};
  expect_matches_naive(naive);
}

TEST(Decoder, MatchesAPlainForwardPassOfMistral) {
  NaiveDecoder naive = naive_of(
      {.model_type = "mistral", .more_json = R"(, "sliding_window": 3)"});
  naive.windows = {3, 3};
  expect_matches_naive(naive);
}

TEST(Decoder, MatchesAPlainForwardPassWithScaledRope) {
  NaiveDecoder linear = naive_of({.more_json = R"(, "rope_scaling":
      {"rope_type": "linear", "factor": 4})"});
  for (double& angle : linear.angles) angle /= 4;
  expect_matches_naive(linear);

  // Frequencies 1, 0.0464, 0.00215 with 512 positions: wavelengths 6.28, 135,
  // 2916. The first stays (< 512 / 4), the second lies between, the last is
  // divided (> 512).
  NaiveDecoder llama3 = naive_of({.more_json = R"(, "rope_scaling":
      {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
       "high_freq_factor": 4, "original_max_position_embeddings": 512})"});
  const double turns = 512 * llama3.angles[1] / (2 * std::numbers::pi);
  const double smooth = (turns - 1) / 3;
  llama3.angles[1] *= (1 - smooth) / 8 + smooth;
  llama3.angles[2] /= 8;
  expect_matches_naive(llama3);

  // Pair of 32 turns in 4096 positions: floor(0.98) = 0; of one turn:
  // ceil(2.11) = 3. The ramp is j / 3.
  NaiveDecoder yarn = naive_of({.more_json = R"(, "rope_scaling":
      {"rope_type": "yarn", "factor": 4,
       "original_max_position_embeddings": 4096})"});
  yarn.angles[1] *= 2.0 / 3 + 1.0 / 3 / 4;
  yarn.angles[2] *= 1.0 / 3 + 2.0 / 3 / 4;
  yarn.attention_factor = 0.1 * std::log(4.0) + 1;
  expect_matches_naive(yarn);
}

TEST(Decoder, MatchesAPlainForwardPassWithOtherActivationAndEpsilon) {
  NaiveDecoder naive =
      naive_of({.more_json = R"(, "hidden_act": "gelu", "rms_norm_eps": 0.5)"});
  naive.activation = [](double x) {
    return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
  };
  naive.eps = 0.5;
  expect_matches_naive(naive);
}

TEST(Decoder, MatchesAPlainForwardPassOfTheShippedModel) {
  ThreadPool pool(2);
  const auto checkpoint =
      open_checkpoint(source_dir() + "/models/tinystories-3.7m");
  const Decoder decoder(*checkpoint);
  const Architecture& arch = decoder.architecture();
  TinyTensors tensors;
  for (const TensorInfo& info : checkpoint->tensors().tensors()) {
    tensors[info.name] = read_matrix(checkpoint->tensors(), info.name);
  }
  NaiveDecoder naive = NaiveDecoder::plain({.hidden = arch.hidden,
                                            .ffn = arch.ffn,
                                            .layers = arch.layers,
                                            .heads = arch.heads,
                                            .kv_heads = arch.kv_heads,
                                            .head_dim = arch.head_dim,
                                            .vocabulary = arch.vocabulary,
                                            .tied = true},
                                           tensors);
  naive.eps = 1e-5;
  const auto tokens = random_tokens(12, arch.vocabulary, 3);
  expect_near(logits_of(decoder, tokens, pool), to_matrix(naive.logits(tokens)),
              1e-4f);  // sums of up to 768 terms
}

TEST(Decoder, RunsSequencesOfABatchAsIfEachWereAlone) {
  ThreadPool pool(2);
  const TinyShape shape;
  const MemoryCheckpoint checkpoint(tiny_tensors(shape, 2), config_json(shape));
  const Decoder decoder(checkpoint);
  const auto tokens = random_tokens(20, shape.vocabulary, 6);
  const std::vector<Segment> segments = {{7, 0, nullptr}, {13, 0, nullptr}};
  const MatrixF both = decoder.forward(tokens, segments, pool);
  std::size_t row = 0;
  for (const Segment& segment : segments) {
    const MatrixF alone = decoder.forward(
        std::span(tokens).subspan(row, segment.rows), {&segment, 1}, pool);
    expect_near(MatrixF(both.view().rows_slice(row, segment.rows)), alone);
    row += segment.rows;
  }
}

TEST(Decoder, GivesTheSameBitsAtAnyThreadCount) {
  const TinyShape shape{.hidden = 48, .ffn = 200, .vocabulary = 301};
  const MemoryCheckpoint checkpoint(tiny_tensors(shape, 3), config_json(shape));
  const Decoder decoder(checkpoint);
  const auto tokens = random_tokens(150, shape.vocabulary, 7);
  ThreadPool one(1);
  const MatrixF expected = logits_of(decoder, tokens, one);
  for (const std::size_t threads : {2u, 3u, 7u}) {
    ThreadPool pool(threads);
    const MatrixF found = logits_of(decoder, tokens, pool);
    EXPECT_TRUE(std::ranges::equal(found.data(), expected.data())) << threads;
  }
}

class DecoderWithCache : public testing::TestWithParam<KvType> {};

// One token at a time, in pieces and at once: the same logits, also when keys
// and values are rounded. Rounded values may fall to the other side of a step
// by the last bit of a product, which moves a logit by less than a step.
TEST_P(DecoderWithCache, DecodesWithTheLogitsOfThePrompt) {
  ThreadPool pool(2);
  const TinyShape shape{.model_type = "qwen2",
                        .qkv_bias = true,
                        .more_json = R"(, "use_sliding_window": true,
                            "sliding_window": 5, "max_window_layers": 1)"};
  const MemoryCheckpoint checkpoint(tiny_tensors(shape, 4), config_json(shape));
  const Decoder decoder(checkpoint, {.kv = {GetParam()}});
  const auto tokens = random_tokens(16, shape.vocabulary, 8);
  const MatrixF expected = logits_of(decoder, tokens, pool);
  const float tolerance = GetParam() == KvType::kF32 ? 1e-5f : 0.02f;

  for (const std::size_t first : {1u, 6u}) {
    KvCache cache = decoder.make_cache(tokens.size());
    MatrixF found(tokens.size(), shape.vocabulary);
    for (std::size_t row = 0; row < tokens.size();) {
      const std::size_t rows = row == 0 ? first : 1;
      const Segment segment{rows, row, &cache};
      const MatrixF hidden = decoder.forward(
          std::span(tokens).subspan(row, rows), {&segment, 1}, pool);
      const MatrixF logits = decoder.ends().logits(hidden.view(), pool);
      std::ranges::copy(logits.data(),
                        found.view().rows_slice(row, rows).data().begin());
      row += rows;
    }
    EXPECT_EQ(cache.tokens(), tokens.size());
    expect_near(found, expected, tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Stores, DecoderWithCache,
                         testing::Values(KvType::kF32, KvType::kInt8,
                                         KvType::kFp8, KvType::kInt4));

TEST(Decoder, LosesMoreWithACoarserKvStore) {
  ThreadPool pool(2);
  const TinyShape shape;
  const MemoryCheckpoint checkpoint(tiny_tensors(shape, 5), config_json(shape));
  const auto tokens = random_tokens(40, shape.vocabulary, 9);
  const MatrixF exact = logits_of(Decoder(checkpoint), tokens, pool);
  const auto error = [&](KvType type) {
    const MatrixF rounded =
        logits_of(Decoder(checkpoint, {.kv = {type}}), tokens, pool);
    double sum = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      sum += std::pow(static_cast<double>(rounded.data()[i]) -
                          static_cast<double>(exact.data()[i]),
                      2);
    }
    return sum;
  };
  EXPECT_GT(error(KvType::kInt8), 0);
  EXPECT_GT(error(KvType::kFp8), 4 * error(KvType::kInt8));
  EXPECT_GT(error(KvType::kInt4), 4 * error(KvType::kInt8));
}

TEST(Decoder, DecodesSequencesOfDifferentLengthsInOneBatch) {
  ThreadPool pool(2);
  const TinyShape shape;
  const MemoryCheckpoint checkpoint(tiny_tensors(shape, 6), config_json(shape));
  const Decoder decoder(checkpoint);
  const auto tokens = random_tokens(12, shape.vocabulary, 10);
  const MatrixF full = logits_of(decoder, tokens, pool);
  KvCache a = decoder.make_cache(20), b = decoder.make_cache(20);
  const std::vector<Segment> prompts = {{4, 0, &a}, {9, 0, &b}};
  std::vector<TokenId> both(tokens.begin(), tokens.begin() + 4);
  both.insert(both.end(), tokens.begin(), tokens.begin() + 9);
  decoder.forward(both, prompts, pool);
  const std::vector<Segment> next = {{1, 4, &a}, {1, 9, &b}};
  const std::vector<TokenId> step = {tokens[4], tokens[9]};
  const MatrixF hidden = decoder.forward(step, next, pool);
  const MatrixF logits = decoder.ends().logits(hidden.view(), pool);
  MatrixF expected(2, shape.vocabulary);
  std::ranges::copy(full.row(4), expected.row(0).begin());
  std::ranges::copy(full.row(9), expected.row(1).begin());
  expect_near(logits, expected);
}

TEST(Decoder, RefusesSegmentsThatDoNotFit) {
  ThreadPool pool(1);
  const TinyShape shape;
  const MemoryCheckpoint checkpoint(tiny_tensors(shape, 7), config_json(shape));
  const Decoder decoder(checkpoint);
  const std::vector<TokenId> tokens = {1, 2, 3};
  KvCache cache = decoder.make_cache(2);
  for (const Segment& segment :
       {Segment{2, 0, nullptr}, Segment{3, 1, nullptr}, Segment{3, 1, &cache},
        Segment{3, 0, &cache}}) {
    EXPECT_THROW(decoder.forward(tokens, {&segment, 1}, pool), Error);
  }
}

TEST(Decoder, RefusesTokensThatAreNotInTheVocabulary) {
  ThreadPool pool(1);
  const TinyShape shape;
  const MemoryCheckpoint checkpoint(tiny_tensors(shape, 8), config_json(shape));
  const Decoder decoder(checkpoint);
  const std::vector<TokenId> tokens = {31};
  EXPECT_THROW(logits_of(decoder, tokens, pool), Error);
}

TEST(Decoder, EmbedsFromDenseRowsAndFromPackedOnes) {
  const TinyShape shape{.tied = true};
  const TinyTensors tensors = tiny_tensors(shape, 9);
  const MatrixF& E = tensors.at("model.embed_tokens.weight");
  const std::vector<TokenId> tokens = {30, 0, 7, 7};
  TinyTensors without = tensors;
  without.erase("model.embed_tokens.weight");
  MemoryCheckpoint packed(without, config_json(shape));
  packed.packed["model.embed_tokens"].weight =
      make_dense(E.view(), DType::kBF16);
  MatrixF rounded = E;
  round_through(DType::kBF16, rounded.data());
  const MemoryCheckpoint dense(tensors, config_json(shape));
  const Architecture arch = parse_architecture(config_json(shape), "tiny");
  ThreadPool pool(1);
  const Segment all{tokens.size(), 0, nullptr};
  const MatrixF from_dense =
      ModelEnds(dense, arch, Isa::kScalar).embed(tokens, {&all, 1}, pool);
  const MatrixF from_packed =
      ModelEnds(packed, arch, Isa::kScalar).embed(tokens, {&all, 1}, pool);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    EXPECT_TRUE(std::ranges::equal(from_dense.row(t), E.row(tokens[t])));
    EXPECT_TRUE(std::ranges::equal(from_packed.row(t), rounded.row(tokens[t])));
  }
}

TEST(Decoder, LoadsAModelFolder) {
  ThreadPool pool(1);
  const TinyShape shape{.model_type = "qwen3", .head_norms = true};
  const TinyTensors tensors = tiny_tensors(shape, 10);
  const TemporaryDirectory directory;
  write_file_atomically(directory.path() / "config.json", config_json(shape));
  write_file_atomically(directory.path() / "model.safetensors",
                        write_safetensors(named_tensors(tensors), {}));
  const auto checkpoint = open_checkpoint(directory.path());
  std::vector<std::string> phases;
  const Decoder from_files(*checkpoint, {.progress = [&](const auto& event) {
    phases.push_back(event.detail);
  }});
  EXPECT_EQ(phases,
            (std::vector<std::string>{"model.layers.0", "model.layers.1", ""}));
  const MemoryCheckpoint memory(tensors, config_json(shape));
  const auto tokens = random_tokens(5, shape.vocabulary, 11);
  EXPECT_TRUE(
      std::ranges::equal(logits_of(from_files, tokens, pool).data(),
                         logits_of(Decoder(memory), tokens, pool).data()));
}

}  // namespace
}  // namespace llmpress
