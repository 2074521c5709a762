#include "compress/core/hadamard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bitset>
#include <cmath>
#include <string>

#include "compress/core/error.h"
#include "compress/core/paley.h"
#include "compress/core/rng.h"

namespace llmpress {
namespace {

constexpr double kUnit = 0x1p-24;

std::vector<float> random_values(std::size_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(n);
  for (float& v : x) v = static_cast<float>(rng.normal());
  return x;
}

using Signs = std::bitset<512>;

// As many products are 1 as are -1 between any two.
void expect_orthogonal(const std::vector<Signs>& columns) {
  const std::size_t n = columns.size();
  for (std::size_t a = 0; a < n; ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      ASSERT_EQ((columns[a] ^ columns[b]).count() * 2, n)
          << n << ": columns " << a << " and " << b;
    }
  }
}

// The signs of column j of the transform: each of its n <= 512 entries is
// exactly +-1/sqrt(n).
Signs column_of(std::size_t n, std::size_t j) {
  std::vector<float> e(n);
  e[j] = 1;
  hadamard_in_place(e);
  Signs signs;
  const auto unit = static_cast<float>(1 / std::sqrt(static_cast<double>(n)));
  for (std::size_t i = 0; i < n; ++i) {
    if (std::abs(e[i]) != unit) {
      ADD_FAILURE() << n << ": entry " << e[i];
    }
    signs[i] = e[i] > 0;
  }
  return signs;
}

TEST(Hadamard, OfTwoAndFourIsSylvesters) {
  std::vector<float> two = {3, 1};
  hadamard_in_place(two);
  EXPECT_FLOAT_EQ(two[0], 4 / std::sqrt(2.0f));
  EXPECT_FLOAT_EQ(two[1], 2 / std::sqrt(2.0f));
  std::vector<float> four = {1, 2, 3, 4};
  hadamard_in_place(four);
  EXPECT_EQ(four, (std::vector<float>{5, -1, -2, 0}));
}

TEST(Hadamard, HasExactlyOrthogonalColumnsAtEverySupportedSize) {
  std::vector<std::size_t> sizes = {344, 352, 512};
  for (std::size_t n = 1; n <= 256; ++n) sizes.push_back(n);
  for (const std::size_t n : sizes) {
    if (!hadamard_size_supported(n)) continue;
    std::vector<Signs> columns;
    for (std::size_t j = 0; j < n; ++j) columns.push_back(column_of(n, j));
    expect_orthogonal(columns);
  }
}

// All sizes of hidden and intermediate layers that occur in published models of
// the Llama, Qwen, Mistral, Gemma and Phi families.
TEST(Hadamard, KnowsTheSizesOfLanguageModels) {
  for (const std::size_t n :
       {64u,    172u * 4, 768u,   896u,   1536u,  2048u,  2304u,  2560u,
        3072u,  3584u,    4096u,  4864u,  5120u,  5504u,  5632u,  6912u,
        8192u,  8960u,    9216u,  9728u,  10240u, 11008u, 12288u, 13824u,
        14336u, 16384u,   18944u, 25600u, 27648u, 28672u, 29568u}) {
    EXPECT_TRUE(hadamard_size_supported(n)) << n;
  }
}

TEST(Hadamard, KnowsTheOrdersThatPaleysFieldsGive) {
  // 28 = 27 + 1, 52 = 2 (25 + 1), 344 = 343 + 1 need fields of prime powers.
  for (const std::size_t m : {12u, 20u, 24u, 28u, 36u, 40u, 44u, 52u, 60u, 76u,
                              100u, 108u, 140u, 148u, 312u, 344u}) {
    EXPECT_TRUE(hadamard_size_supported(m)) << m;
  }
  for (const std::size_t m : {0u, 3u, 6u, 10u, 14u, 92u, 156u, 172u, 188u}) {
    EXPECT_FALSE(hadamard_size_supported(m)) << m;
  }
  EXPECT_TRUE(hadamard_size_supported(1));
  EXPECT_TRUE(hadamard_size_supported(2));
}

TEST(Hadamard, PaleyMatricesOfEveryOrderAreOrthogonal) {
  std::size_t orders = 0;
  for (std::size_t order = 4; order <= 512; order += 4) {
    if (!paley_order_exists(order)) continue;
    ++orders;
    const PaleyMatrix& H = *paley_matrix(order);
    std::vector<Signs> rows(order);
    for (std::size_t i = 0; i < order; ++i) {
      for (std::size_t j = 0; j < order; ++j) {
        ASSERT_EQ(std::abs(H(i, j)), 1.0f);
        rows[i][j] = H(i, j) > 0;
      }
    }
    expect_orthogonal(rows);
  }
  EXPECT_GT(orders, 60u);
}

// Each of about log2(n) + m additions rounds once; n * unit is far above them.
TEST(Hadamard, IsUndoneByItsTransposeAndKeepsTheNorm) {
  for (const std::size_t n :
       {1u, 2u, 12u, 64u, 172u * 4, 768u, 1000u * 4, 4096u, 11008u}) {
    if (!hadamard_size_supported(n)) continue;
    const std::vector<float> x = random_values(n, n);
    std::vector<float> y = x;
    hadamard_in_place(y);
    double norm_x = 0, norm_y = 0;
    for (std::size_t i = 0; i < n; ++i) {
      norm_x += double{x[i]} * double{x[i]};
      norm_y += double{y[i]} * double{y[i]};
    }
    const double bound = static_cast<double>(n) * kUnit;
    EXPECT_NEAR(norm_y / norm_x, 1, bound) << n;
    hadamard_transposed_in_place(y);
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_NEAR(y[i], x[i], bound * std::sqrt(norm_x)) << n;
    }
  }
}

// <H x, y> = <x, H^T y>, also where H is not symmetric (12 is Paley I).
TEST(Hadamard, TransposedTransformIsTheTranspose) {
  for (const std::size_t n : {8u, 12u, 24u, 28u, 36u}) {
    std::vector<float> x = random_values(n, 1), y = random_values(n, 2);
    const std::vector<float> x0 = x, y0 = y;
    hadamard_in_place(x);
    hadamard_transposed_in_place(y);
    double left = 0, right = 0;
    for (std::size_t i = 0; i < n; ++i) {
      left += double{x[i]} * double{y0[i]};
      right += double{x0[i]} * double{y[i]};
    }
    EXPECT_NEAR(left, right, static_cast<double>(n * n) * kUnit) << n;
  }
}

TEST(Hadamard, RowsAreTransformedBlockByBlockAtAnyThreadCount) {
  constexpr std::size_t kRows = 300, kCols = 72, kBlock = 24;
  MatrixF wanted(random_values(kRows * kCols, 5), kRows, kCols);
  const MatrixF X = wanted;
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::size_t c = 0; c < kCols; c += kBlock) {
      hadamard_in_place(wanted.row(r).subspan(c, kBlock));
    }
  }
  for (const std::size_t threads : {1u, 2u, 5u}) {
    ThreadPool pool(threads);
    MatrixF found = X;
    hadamard_rows_in_place(found.view(), kBlock, pool);
    EXPECT_TRUE(std::ranges::equal(found.data(), wanted.data()));
  }
}

TEST(Hadamard, RefusesSizesItDoesNotKnowAndBlocksThatDoNotDivide) {
  std::vector<float> x(172);
  try {
    hadamard_in_place(x);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(e.what()).find("172"), std::string::npos);
  }
  EXPECT_THROW(hadamard_transposed_in_place(std::span(x).first(6)), Error);
  ThreadPool pool(1);
  MatrixF X(2, 12);
  EXPECT_THROW(hadamard_rows_in_place(X.view(), 8, pool), Error);
  EXPECT_THROW(hadamard_rows_in_place(X.view(), 0, pool), Error);
  EXPECT_THROW(hadamard_rows_in_place(X.view(), 6, pool), Error);
}

TEST(Hadamard, LargestBlockIsTheLargestSupportedDivisor) {
  EXPECT_EQ(largest_hadamard_block(4096), 4096u);
  EXPECT_EQ(largest_hadamard_block(172), 4u);
  EXPECT_EQ(largest_hadamard_block(7), 1u);
  EXPECT_EQ(largest_hadamard_block(6), 2u);
  EXPECT_EQ(largest_hadamard_block(156), 52u);
  EXPECT_EQ(largest_hadamard_block(1), 1u);
  for (std::size_t n = 1; n <= 600; ++n) {
    const std::size_t block = largest_hadamard_block(n);
    ASSERT_EQ(n % block, 0u);
    ASSERT_TRUE(hadamard_size_supported(block));
    for (std::size_t larger = block + 1; larger <= n; ++larger) {
      if (n % larger == 0) {
        ASSERT_FALSE(hadamard_size_supported(larger));
      }
    }
  }
}

}  // namespace
}  // namespace llmpress
