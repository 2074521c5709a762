#include "quantizers/ggml_rounding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/ggml/ggml_grid.h"
#include "compress/core/rng.h"
#include "quantizers/ggml_row_rounding.h"
#include "quantizers/method.h"
#include "quantizers/weight_error.h"
#include "tests/quantizers/golden_input.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::golden_input;
using testing_support::hex;
using testing_support::random_matrix;

std::vector<float> golden_importance(std::size_t count) {
  std::vector<float> importance;
  for (std::size_t i = 0; i < count; ++i) {
    importance.push_back(static_cast<float>(1 + 13 * i % 7));
  }
  return importance;
}

// Cubes of a saw, times 1 to 5: exact, with a few large values a block.
std::vector<float> uneven_input(std::size_t count) {
  std::vector<float> x;
  for (std::size_t i = 0; i < count; ++i) {
    const float saw = (static_cast<float>((i * 29 + 7) % 127) - 63.0f) / 64.0f;
    x.push_back(saw * saw * saw * static_cast<float>(1 + i * i % 5));
  }
  return x;
}

std::vector<std::uint8_t> rounded(std::string_view type,
                                  const std::vector<float>& x,
                                  std::span<const float> importance) {
  ThreadPool pool(1);
  const GgmlWeight w = round_to_ggml(ConstMatrixView(x, 1, x.size()),
                                     *parse_ggml_type(type), pool, importance);
  std::vector<std::uint8_t> octets;
  for (const std::byte b : w.blocks) {
    octets.push_back(std::to_integer<std::uint8_t>(b));
  }
  return octets;
}

// FNV-1a.
std::string digest(const std::vector<std::uint8_t>& octets) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const std::uint8_t o : octets) hash = (hash ^ o) * 0x100000001b3u;
  std::vector<std::uint8_t> bytes;
  for (int shift = 56; shift >= 0; shift -= 8) {
    bytes.push_back(static_cast<std::uint8_t>(hash >> shift));
  }
  return hex(bytes);
}

struct Golden {
  std::string_view type;
  std::string block;      // of golden_input()
  std::string important;  // with golden_importance(); empty: the same
  std::string uneven, uneven_important;  // digests of 2048 of uneven_input()
};

// Written by ggml_quantize_chunk() of llama.cpp.
const std::vector<Golden> kGoldens{
    {"q4_0", "4032f258be1379df359bf147ac0268ce248a",
     "c132f268bd2479df359be157ac1368ce248a", "e331d9aadb3e38f3",
     "96b9514f3b1f811e"},
    {"q4_1", "893240bef257bd1379cf358ae146ac0268bd2479",
     "b13262bef257bd1379ce358ae146ac0268bd2479", "2f76cf3e886330d7",
     "34711e2694141f00"},
    {"q5_0", "402eb4b4a525f4bf7b27e3ae5a16d19d4904c08c38f4",
     "802eb4b4a525f4bf6b37e2ae6a16d29d4915c07c48f3", "a496433ca228a741",
     "0da8d4c1152e6edb"},
    {"q5_1", "532e40beb4b4a525f3bf6b27e2ae5a16d19d4904c07c38f3",
     "3f2e1fbeb4b4a525f3bf6b26e2ae5a15d18d4904c07c37f3", "a88e2fed101c4669",
     "5b1b62fdfca47946"},
    {"q8_0",
     "4d229dfb59b61472d02e8be947a50361be1c7ad73593f14fac0a68c62481df3d9a"
     "f8",
     "", "c95b2e19b2dbf263", "c95b2e19b2dbf263"},
    {"q2_K",
     "bcdfeebeefaceeacdedecddffedeffce6cb51b6cc61ba1c66cb1db6cb61b6cc61b"
     "71c618b1c66cb21b6dc618b1c628b168b1d66cb11b6c861bb1c66cb1d66cb21b6d"
     "861b71c628b1d76cb61b6d861bb1012c9d2e",
     "bdcfefafdf9ccfadcddfcdcfffbfcebd6cb51b6c861b61c62cb1db6cb61b6c861b"
     "71c618b1c76cb21b6dc618b1c628b12cb1db6cb21b6c861b71c62cb1db6cb61b6d"
     "c61ba1c618b1cb6cb61b6dc61ba1852bce2e",
     "0efd8af406c5da3d", "100018a4d3e66c56"},
    {"q3_K",
     "66cdb366d9336c9936cc9b66cdb366d94d1ae74cb3e758b3ed18b74c9ae74cb389"
     "7833de9d7727ed886be2d97837de9ddb2f7589dc227688df2275c91f7285d84827"
     "e28d7823de897722dd8877e29d785df2b79c2db68b5de2f7485d22b7882d66a260"
     "aa50aa660900fc003fdfa3",
     "66cdb366d9336c9936cc9b66cdb366d94d1ae74cb3e758b3ed18b74c9ae74cb389"
     "7863de8d77269d887be2d97877de9ddb1f7589dc227688df22b5c91f7285c84837"
     "d28d7427de897722dd8877e29d786df2b7982db68b5de2f7485d22b7882d67a380"
     "997597631a00fc003ff0a3",
     "22b1034adfadb193", "5be13422dbf5e02e"},
    {"q4_K",
     "de1a8026fffffffafff8fafaceafbfbcc2278dd3499e055ab1167cc2388de449af"
     "056bb1277cd3389ee45aa0166bc22748ad0469c0157bd1379cf358ae046ac0268b"
     "e2379df359be157ad1268ce248ada0156bc1278cd3489e045ab0167bc2378de349"
     "ae056ab1267cd2389de459af15268ce248ad0459b0157bd1379ce348ae046ac026"
     "7bd2379df359be156ac1268c",
     "e11a7a26fefbfbfefffaf8fadfcacbbbd2379de349ae056ac1267cd2389df459bf"
     "056bc1278ce3489ef45ab0167bd237489e045ab0157bc1378de349ae046ab0267c"
     "d2379de359af156bc1268cd2489eb0157bd1379cf348ae046ac0268be2379df359"
     "be157ac1268ce248adf459bf15278de348ae045ab0167cd2379de349af056ac026"
     "8cd2389ef459bf156bc1278d",
     "3eff4475b6784432", "3d757d827fe8a089"},
    {"q5_K",
     "86165326fdfdfdfdfefbfdfeffcdedfd26cc9366c9336499324c9926cd9366d933"
     "6c9936cc9b66cdb366d9326c9936cca35f1bd6924e0ac6813df9b4602ce7a35f1b"
     "d7924e0ac5713df8a4602ce7a35f915d09c5803cf8b36f2be7a26e1ad6914d09c4"
     "703cf7b37f2be7a25e1ad5814d702be7a35f1ad6924d09c5813cf8b4602be7935e"
     "1ad6924d09c5703cf8a46f2b5e1ad5915d09c5803cf8b36f2be6a25e1ad6914d09"
     "c4703cf7b36f2be7a25e1a",
     "da166526fafcfcfafdfafcfdffcadcec26cc9366c9336499324c9926cd9366c933"
     "6c99364c9926cdb366d9326c9936cc935f1bc6824e0ab6713de9a4602cd7935f1b"
     "c6824efab5712de8a4602cd7935f915c08c4803cf7b36f2ae6a26d19d5914c08c4"
     "703bf7b36e2ae6a25d19d5804c702be6a35e19d6915c09c4813cf7b46f2ae7a26d"
     "1ad5924d08c5703bf8b37e2b5e19c5814c08b4703be7a36f2ad6925d19c5814cf8"
     "b47f3be7a36e2ad6925d09",
     "d48819f565b5f66f", "f337ad57aeef4636"},
    {"q6_K",
     "45df28bc069f137cf08ad367f14ade285ed67df57c038b02aa22b931b85fd75e26"
     "ac058d037bf179d258d048ce27af2583fc741d960eb62fd840b961da53fb74d158"
     "bf37be25ad048b047bf37ad159d0c941ea63eb74fb741d951ea72fc841c9bf35ad"
     "169b048df26be069d147cf38bd1a922c840d85ed77ff57d038b04aa22b6cb11b6c"
     "c61b71c61cb1cb6cb21b6cc6e74d3ad04d37904ae7913ae44d3a904d18b1c66cb1"
     "1b6c861b71c61cb1c76cb22453f9248ef9138ef4538d2452f9248e8d81877c897a"
     "8677807f897a867a8487758e",
     "45df28bc069f137cf08ad367f14ade285ed67df57c038b03aa22b931b85fd75e16"
     "ac058d136bf179d258e038ce17af3573fc741d961ea62fc840c961da53fb74d158"
     "bf37be25ad048b047bf37ad159d0d841fa62db83fc741d960eb62fd840b9bf35ad"
     "169b048df26be069d147cf38bd1a922c740d95ed77ff57d038b04a922b6cb11b6c"
     "c61b71c61cb1cb6cb21b6cc6e74d3ad04d37904ae7913ae44d3a904d18b1c66cb1"
     "1b6c861b71c61cb1c76cb22453f9248ef9138ef4538d2452f9248e8d81877c897a"
     "897a807c897b86778488708e",
     "e20743659a8fdf0f", "39c06257c6d7cdfd"},
    {"iq4_nl", "9822f157ce137adf249be146bd0258ce137a",
     "aa22f157ce137adf249be146bd0258ce137a", "14cd745de3cde9c5",
     "201b8c51adc97fc2"},
    {"iq4_xs",
     "ab8e3c0ce00ee021f157ce137adf249be146bd0258ce137a42fd9621ec741fda53"
     "0eb831fd9620eba721ec751fda530eb842fd9620ec741f248be035acf157ce137a"
     "df249be146bde035acf157ce1369df249be136adf258630fc942fea721ec751fda"
     "530eb842fd47be1269df248be035adf157ce137adf0269df138be035adf147ce12"
     "69df249b",
     "aa8efc00e0df2021f157ce137adf249be146bd0258ce137a42fd9621ec741fda53"
     "0eb831fd9620eba731ec751fda530eb842fd9621eb741fec851fdb530fb842fd96"
     "20ec741fca52e035acf157ce1369df249be136adf258acf147ce1269df248be036"
     "adf158ce1347be1269df248be035adf157ce137adf0269df138be035adf147ce12"
     "69df249b",
     "06912876cc722b40", "c6419b24efd52b90"},
    {"tq1_0",
     "466dd2467ad36c7a456dcf466dd3467ad36c7a456dcf4689d39b7a296d7a486d7f"
     "5174d51b7cf25d7c515ed45174d51b339fb520403e",
     "", "a9a27d29e39cdbb6", "a9a27d29e39cdbb6"},
    {"tq2_0",
     "586116588516618518618658611658851661851861865865165985146185586114"
     "61855861165845166185186186586116588516618518618658611659851661403e",
     "", "5c17b85fd0b93ea7", "5c17b85fd0b93ea7"},
    {"mxfp4", "7d7ec056fe9267ec147fda35feb056ed93", "", "b14fa2166497183e",
     "b14fa2166497183e"},
    {"nvfp4",
     "27282828ffa966ee0277dd3477dc35ffb956ee9156ee0267dc247fca347fba56fe"
     "9166ed",
     "", "1c83cb84c31194dd", "1c83cb84c31194dd"},
};

TEST(GgmlRounding, WritesTheOctetsOfTheReference) {
  for (const Golden& golden : kGoldens) {
    const std::size_t elements = facts(*parse_ggml_type(golden.type)).elements;
    const std::vector<float> x = golden_input(elements), none;
    EXPECT_EQ(hex(rounded(golden.type, x, none)), golden.block) << golden.type;
    EXPECT_EQ(hex(rounded(golden.type, x, golden_importance(elements))),
              golden.important.empty() ? golden.block : golden.important)
        << golden.type;
    const std::vector<float> uneven = uneven_input(2048);
    EXPECT_EQ(digest(rounded(golden.type, uneven, none)), golden.uneven)
        << golden.type;
    EXPECT_EQ(digest(rounded(golden.type, uneven, golden_importance(2048))),
              golden.uneven_important)
        << golden.type;
  }
}

// But for those with codebooks, whose search is our own.
TEST(GgmlRounding, HasAGoldenForEveryTypeThatIsWritten) {
  for (const GgmlTypeFacts& f : all_ggml_types()) {
    if (f.plain || !f.decodes || grid_of(f.type) != nullptr) continue;
    EXPECT_TRUE(std::ranges::any_of(kGoldens, [&](const Golden& g) {
      return g.type == f.name;
    })) << f.name;
  }
}

TEST(GgmlRounding, MoreBitsAreNearer) {
  ThreadPool pool(2);
  const MatrixF W = random_matrix(8, 512, 4);
  double before = std::numeric_limits<double>::infinity();
  for (const char* type :
       {"tq2_0", "q2_K", "q3_K", "q4_0", "q4_K", "q5_K", "q6_K", "q8_0"}) {
    const MatrixF R =
        dequantize(round_to_ggml(W.view(), *parse_ggml_type(type), pool));
    const double error = output_error(W.view(), R.view(), {}, pool);
    EXPECT_LT(error, before) << type;
    before = error;
  }
}

TEST(GgmlRounding, ImportanceLowersTheErrorThatItWeighs) {
  ThreadPool pool(2);
  const MatrixF W = random_matrix(16, 512, 6);
  std::vector<float> importance(512);
  MatrixF S(512, 512);
  for (std::size_t i = 0; i < 512; ++i) {
    importance[i] = i % 8 == 0 ? 50.0f : 1.0f;
    S(i, i) = importance[i];
  }
  for (const char* type : {"q4_0", "q4_1", "q5_0", "q2_K", "q3_K", "q4_K",
                           "q5_K", "q6_K", "iq4_nl", "iq4_xs", "iq1_s", "iq1_m",
                           "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"}) {
    const auto error = [&](std::span<const float> weights) {
      const auto w =
          round_to_ggml(W.view(), *parse_ggml_type(type), pool, weights);
      return output_error(W.view(), dequantize(w).view(), S.view(), pool);
    };
    EXPECT_LT(error(importance), error({})) << type;
  }
}

TEST(GgmlRounding, TakesZerosConstantsAndExtremes) {
  ThreadPool pool(1);
  for (const GgmlTypeFacts& f : all_ggml_types()) {
    if (f.plain || !f.decodes) continue;
    for (const float value : {0.0f, 1.0f, -1.0f, 1e-40f, 3e4f, -3e4f}) {
      MatrixF W(2, 256);
      for (float& w : W.data()) w = value;
      const GgmlWeight q = round_to_ggml(W.view(), f.type, pool);
      check(PackedWeight(q), "w");
      const MatrixF R = dequantize(q);
      // One value a block: its grid reaches it to the scale's rounding, but for
      // fixed grids of few values and subnormals.
      if (std::fabs(value) < 1e-30f || f.type == GgmlType::kMxfp4 ||
          f.type == GgmlType::kNvfp4) {
        continue;
      }
      EXPECT_NEAR(R(1, 7), value, std::fabs(value) * 0.02f)
          << f.name << " " << value;
    }
  }
}

TEST(GgmlRounding, RefusesRowsThatAreNoWholeNumberOfBlocks) {
  ThreadPool pool(1);
  const MatrixF W(2, 96);
  EXPECT_THROW((void)round_to_ggml(W.view(), GgmlType::kQ4_K, pool), Error);
  EXPECT_THROW(
      (void)round_to_ggml(MatrixF(2, 33).view(), GgmlType::kQ8_0, pool), Error);
  EXPECT_THROW(
      (void)round_to_ggml(MatrixF(1, 256).view(), GgmlType::kQ8_K, pool),
      Error);
}

TEST(GgmlRounding, FallsBackToSmallerBlocksAndThenToF16) {
  EXPECT_EQ(fitting_ggml_type(GgmlType::kQ4_K, 512), GgmlType::kQ4_K);
  EXPECT_EQ(fitting_ggml_type(GgmlType::kQ4_K, 96), GgmlType::kQ5_0);
  EXPECT_EQ(fitting_ggml_type(GgmlType::kQ6_K, 96), GgmlType::kQ8_0);
  EXPECT_EQ(fitting_ggml_type(GgmlType::kIq4Xs, 96), GgmlType::kIq4Nl);
  EXPECT_EQ(fitting_ggml_type(GgmlType::kIq2Xxs, 96), GgmlType::kIq4Nl);
  EXPECT_EQ(fitting_ggml_type(GgmlType::kQ4_K, 172), GgmlType::kF16);
  ThreadPool pool(1);
  const MatrixF W = random_matrix(3, 172, 1);
  EXPECT_EQ(describe(round_to_fitting_ggml(W.view(), GgmlType::kQ4_0, pool)),
            "f16");
}

TEST(GgmlRounding, GivesTheSameOctetsAtAnyNumberOfThreads) {
  ThreadPool one(1), three(3);
  const MatrixF W = random_matrix(13, 256, 9);
  EXPECT_EQ(round_to_ggml(W.view(), GgmlType::kQ4_K, one).blocks,
            round_to_ggml(W.view(), GgmlType::kQ4_K, three).blocks);
}

// Whole rows in vectors give the octets of the one block at a time.
TEST(GgmlRowRounding, IsThatOfTheBlocks) {
  Rng rng(17);
  for (const GgmlType type : {GgmlType::kQ4_0, GgmlType::kQ8_0}) {
    ASSERT_TRUE(rounds_plain_rows(type));
    const GgmlTypeFacts& f = facts(type);
    for (int trial = 0; trial < 300; ++trial) {
      std::vector<float> row(96);
      for (float& x : row) {
        x = static_cast<float>(rng.normal());
        if (trial % 3 == 1) x = std::round(4 * x) / 4;  // ties, equal peaks
        if (trial % 7 == 2) x *= 1e-39f;                // subnormal
      }
      if (trial % 5 == 3)
        std::fill_n(row.begin(), 32, trial % 2 ? 0.0f : -0.0f);
      std::vector<std::byte> found(3 * f.bytes), wanted(3 * f.bytes);
      round_plain_row(type, row, found);
      for (std::size_t b = 0; b < 3; ++b) {
        const auto x = std::span<const float>(row).subspan(32 * b, 32);
        pack_ggml_block(type, fit_ggml_block(type, x, {}, 0),
                        std::span(wanted).subspan(b * f.bytes, f.bytes));
      }
      ASSERT_EQ(found, wanted) << f.name << " trial " << trial;
      std::vector<float> decoded(96);
      decode_ggml(type, found, decoded);
      for (std::size_t i = 0; i < 96; ++i) {
        const GgmlBlock block = unpack_ggml_block(
            type,
            std::span(std::as_const(found)).subspan(i / 32 * f.bytes, f.bytes));
        const GgmlLayout& l = layout(type);
        EXPECT_EQ(decoded[i],
                  scale_of(l, block, 0) *
                      static_cast<float>(value_of(l, block.codes[i % 32])));
      }
    }
  }
}

}  // namespace
}  // namespace llmpress
