// Codes of four bits lie in a panel as they lie in the weight, whether a row is
// laid out word by word or, where inputs are moved or padded, code by code.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "compress/core/bit_packing.h"
#include "compress/core/rng.h"
#include "compress/kernels/panel_weight.h"
#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

using CodeOf = std::function<int(std::size_t o, std::size_t i)>;

void expect_codes(const PackedWeight& weight, bool moved, const CodeOf& code) {
  const auto panels = make_panels(weight);
  ASSERT_TRUE(panels.has_value());
  ASSERT_EQ(panels->format, PanelFormat::kNibble);
  ASSERT_EQ(!panels->gather.empty(), moved);
  std::size_t found = 0;
  for (std::size_t o = 0; o < panels->out; ++o) {
    for (std::size_t k = 0; k < panels->depth; ++k) {
      const std::size_t i = moved ? panels->gather[k] : k;
      if (i == kPadding) continue;
      ASSERT_EQ(panel_code(*panels, o, k) + panels->centre, code(o, i))
          << "row " << o << ", input " << i;
      ++found;
    }
  }
  EXPECT_EQ(found, panels->out * panels->in);
}

// 70 rows: a group of four panels, and one panel that is not full.
constexpr std::size_t kRows = 70;

TEST(PanelLayout, OfWholeNumbers) {
  Rng rng(1);
  for (const std::size_t in : {128u, 200u, 136u, 60u}) {
    const GroupedIntWeight w = testing::random_grouped(
        kRows, in, 4, 128, testing::Zeros::kInteger, false, DType::kF16, rng);
    const std::size_t words = w.words_per_row();
    expect_codes(w, in % 8 != 0, [&](std::size_t o, std::size_t i) {
      return packed_code(std::span(w.codes).subspan(o * words, words), 4, i);
    });
  }
}

TEST(PanelLayout, OfWholeNumbersInGroupsThatAreScattered) {
  Rng rng(2);
  const GroupedIntWeight w = testing::random_grouped(
      kRows, 128, 4, 32, testing::Zeros::kInteger, true, DType::kF16, rng);
  const std::size_t words = w.words_per_row();
  expect_codes(w, true, [&](std::size_t o, std::size_t i) {
    return packed_code(std::span(w.codes).subspan(o * words, words), 4, i);
  });
}

TEST(PanelLayout, OfTablesWhoseFirstCodeIsTheHighHalf) {
  Rng rng(3);
  for (const std::size_t in : {128u, 72u}) {
    const Table4Weight w =
        testing::random_table4(kRows, in, Table4Kind::kNf4, 8, false, rng);
    expect_codes(w, false, [&](std::size_t o, std::size_t i) {
      const std::size_t flat = o * in + i;
      return flat % 2 == 0 ? w.codes[flat / 2] >> 4 : w.codes[flat / 2] & 15;
    });
  }
}

TEST(PanelLayout, OfMicroscalingFloats) {
  Rng rng(4);
  for (const std::size_t in : {128u, 96u, 100u}) {
    const MicroFp4Weight w =
        testing::random_micro(kRows, in, MicroFp4Kind::kMxfp4, rng);
    const std::size_t octets = (in + 1) / 2;
    expect_codes(w, in % 8 != 0, [&](std::size_t o, std::size_t i) {
      const std::uint8_t octet = w.codes[o * octets + i / 2];
      return i % 2 == 0 ? octet & 15 : octet >> 4;
    });
  }
}

}  // namespace
}  // namespace llmpress
