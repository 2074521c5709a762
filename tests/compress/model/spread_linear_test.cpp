#include "compress/model/spread_linear.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "tests/compress/core/thread_ranks.h"
#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

using testing::random_fp8, testing::random_ggml, testing::random_grouped,
    testing::random_int8, testing::random_matrix, testing::random_micro,
    testing::random_sparse, testing::random_table4, testing::Zeros;

constexpr std::size_t kOut = 330, kIn = 256;

std::vector<LinearWeights> linears() {
  Rng rng(5);
  std::vector<LinearWeights> all;
  const auto add = [&](PackedWeight weight) -> LinearWeights& {
    all.push_back({.weight = std::move(weight)});
    for (std::size_t o = 0; o < kOut; ++o) {
      all.back().bias.push_back(static_cast<float>(rng.normal()));
    }
    return all.back();
  };
  const MatrixF W = random_matrix(kOut, kIn, rng);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    add(make_dense(W.view(), dtype));
  }
  for (const int bits : {2, 3, 4, 8}) {
    add(random_grouped(kOut, kIn, bits, 64, Zeros::kInteger, bits == 4,
                       DType::kF16, rng));
  }
  add(random_int8(kOut, kIn, true, true, 3, rng)).input = {
      .kind = ActivationQuant::Kind::kInt};
  add(random_fp8(kOut, kIn, DType::kF8E4M3, 32, 128, rng));
  add(random_table4(kOut, kIn, Table4Kind::kNf4, 64, true, rng));
  add(random_micro(kOut, kIn, MicroFp4Kind::kMxfp4, rng));
  add(random_micro(kOut, kIn, MicroFp4Kind::kNvfp4, rng));
  add(random_ggml(kOut, kIn, GgmlType::kQ4_K, rng)).input_hadamard = 16;
  add(make_sparse(
      random_sparse(kOut, kIn, SparsePattern::kBitmask, 0.4, rng).view(),
      SparsePattern::kBitmask, DType::kBF16));
  return all;
}

MatrixF product(const LinearKernel& kernel, ConstMatrixView X) {
  ThreadPool pool(1);
  MatrixF Y(X.rows(), kernel.out());
  kernel.run(X, Y.view(), pool);
  return Y;
}

TEST(SpreadLinear, GivesTheBitsOfTheWholeForEveryPackedType) {
  Rng rng(6);
  const MatrixF all_inputs = random_matrix(33, kIn, rng);
  for (const LinearWeights& linear : linears()) {
    for (const Isa isa : available_isas()) {
      for (const auto inputs :
           {InputPrecision::kExact, InputPrecision::kInt8}) {
        const auto whole = make_linear_kernel(linear, isa, inputs);
        for (const std::size_t rows : {1u, 3u, 33u}) {
          const ConstMatrixView X = all_inputs.view().rows_slice(0, rows);
          const MatrixF wanted = product(*whole, X);
          for (const std::size_t size : {2u, 3u}) {
            run_on_ranks(size, [&](const Ranks& ranks) {
              const auto spread =
                  make_spread_linear(linear, isa, inputs, ranks);
              EXPECT_LT(spread->bytes(), whole->bytes());
              const MatrixF found = product(*spread, X);
              EXPECT_EQ(std::memcmp(found.data().data(), wanted.data().data(),
                                    wanted.data().size_bytes()),
                        0)
                  << describe(linear.weight) << " " << whole->name() << " "
                  << rows << " rows on " << size;
            });
          }
        }
      }
    }
  }
}

TEST(SpreadLinear, IsWholeWhereThereAreFewRows) {
  Rng rng(7);
  const LinearWeights router{
      .weight = make_dense(random_matrix(8, 32, rng).view(), DType::kF32)};
  run_on_ranks(2, [&](const Ranks& ranks) {
    const auto kernel =
        make_spread_linear(router, Isa::kScalar, InputPrecision::kExact, ranks);
    EXPECT_EQ(kernel->bytes(),
              make_linear_kernel(router, Isa::kScalar)->bytes());
    EXPECT_EQ(ranks.traffic().sent, 0u);
  });
}

}  // namespace
}  // namespace llmpress
