#include "compress/model/kv_rounding.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/model/decoder.h"
#include "tests/compress/model/tiny_model.h"

namespace llmpress {
namespace {

using Floats = std::vector<float>;
using Range = ActivationQuant::Range;

KvScheme scheme(Range range, Floats keys = {}, Floats values = {}) {
  return {.rounding = {.kind = ActivationQuant::Kind::kInt,
                       .bits = 4,
                       .range = range},
          .key_scales = std::move(keys),
          .value_scales = std::move(values)};
}

// Keys of two tokens and two heads of two.
MatrixF keys() { return MatrixF({1, 7.5f, 20, 40, 2, 3.2f, 75, 8}, 2, 4); }

Floats rounded(const KvScheme& kv) {
  MatrixF K = keys(), V = keys();
  apply_kv_scheme_in_place(kv, 2, K.view(), V.view());
  return {K.data().begin(), K.data().end()};
}

TEST(KvRounding, StaticScalesAreOneForAllOrOneAHead) {
  EXPECT_EQ(rounded(scheme(Range::kStatic, {2}, {2})),
            (Floats{0, 8, 14, 14, 2, 4, 14, 8}));
  EXPECT_EQ(rounded(scheme(Range::kStatic, {1, 10}, {1, 1})),
            (Floats{1, 7, 20, 40, 2, 3, 70, 10}));
}

TEST(KvRounding, RunTimeScalesAreOverAllHeadsOrOverEach) {
  // 75 / 7.5 = 10 over all; 7.5 / 7.5 = 1 for the first head.
  EXPECT_EQ(rounded(scheme(Range::kTensor)),
            (Floats{0, 10, 20, 40, 0, 0, 70, 10}));
  EXPECT_EQ(rounded(scheme(Range::kToken)),
            (Floats{1, 7, 20, 40, 2, 3, 70, 10}));
}

TEST(KvRounding, RefusesScalesOfAnotherNumberOfHeads) {
  EXPECT_THROW(rounded(scheme(Range::kStatic, {1, 1, 1}, {1})), Error);
}

class WithKvScheme : public MemoryCheckpoint {
 public:
  using MemoryCheckpoint::MemoryCheckpoint;
  KvScheme kv{};
  std::optional<KvScheme> kv_scheme(std::string_view name) const override {
    asked.emplace_back(name);
    return kv;
  }
  mutable std::vector<std::string> asked{};
};

TEST(KvRounding, ADecoderRoundsAsItsCheckpointSaysWithAndWithoutACache) {
  const TinyShape shape;
  WithKvScheme checkpoint(tiny_tensors(shape, 3), config_json(shape));
  checkpoint.kv = scheme(Range::kStatic, {0.25f}, {0.25f});
  const Decoder decoder(checkpoint);
  EXPECT_EQ(checkpoint.asked[1], "model.layers.1");
  const Decoder plain(
      MemoryCheckpoint(tiny_tensors(shape, 3), config_json(shape)));
  const auto tokens = random_tokens(9, shape.vocabulary, 1);
  ThreadPool pool(1);
  const Segment whole{.rows = tokens.size()};
  const MatrixF once = decoder.forward(tokens, {&whole, 1}, pool);
  EXPECT_FALSE(std::ranges::equal(
      once.data(), plain.forward(tokens, {&whole, 1}, pool).data()));
  KvCache cache = decoder.make_cache(tokens.size());
  MatrixF last;
  for (const TokenId token : tokens) {
    const Segment one{1, cache.tokens(), &cache};
    last = decoder.forward({&token, 1}, {&one, 1}, pool);
  }
  for (std::size_t i = 0; i < shape.hidden; ++i) {
    EXPECT_NEAR(last(0, i), once(tokens.size() - 1, i), 1e-4);
  }
}

}  // namespace
}  // namespace llmpress
