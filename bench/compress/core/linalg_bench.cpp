// The dense work of calibration and solving at the sizes of a 7B model, on
// 1, 2, ... threads: GFLOP/s beside the machine's own limit.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <thread>

#include "compress/core/linalg.h"
#include "compress/core/rng.h"

namespace llmpress {
namespace {

constexpr std::size_t kSide = 4096, kTokens = 32768;

MatrixF random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Rng rng(seed);
  MatrixF A(rows, cols);
  for (float& x : A.data()) x = static_cast<float>(rng.uniform() - 0.5);
  return A;
}

void report(benchmark::State& state, double operations) {
  state.counters["GFLOP/s"] = benchmark::Counter(
      operations * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(blas_core_name());
}

ThreadPool pool_of(const benchmark::State& state) {
  return ThreadPool(static_cast<std::size_t>(state.range(0)));
}

void matmul_transposed_4096(benchmark::State& state) {
  ThreadPool pool = pool_of(state);
  const MatrixF A = random_matrix(kSide, kSide, 1);
  const MatrixF B = random_matrix(kSide, kSide, 2);
  MatrixF C(kSide, kSide);
  for (auto _ : state) matmul_transposed(A.view(), B.view(), C.view(), pool);
  report(state, 2.0 * kSide * kSide * kSide);
}

// Counted as the lower triangle alone: tokens * n * (n + 1).
void gram_4096(benchmark::State& state) {
  ThreadPool pool = pool_of(state);
  const MatrixF X = random_matrix(kTokens, kSide, 3);
  MatrixF C(kSide, kSide);
  for (auto _ : state) add_gram(X.view(), 1e-6f, C.view(), pool);
  report(state, 1.0 * kTokens * kSide * (kSide + 1));
}

// A third of n^3 for the factor, a third for its inverse, each a multiply and
// an add.
void inverse_cholesky_4096(benchmark::State& state) {
  ThreadPool pool = pool_of(state);
  const MatrixF X = random_matrix(2 * kSide, kSide, 4);
  MatrixF H(kSide, kSide);
  add_gram(X.view(), 1.0f / (2 * kSide), H.view(), pool);
  for (auto _ : state) {
    benchmark::DoNotOptimize(inverse_cholesky_upper(H, pool));
  }
  report(state, 2.0 / 3 * kSide * kSide * kSide);
}

void thread_counts(benchmark::internal::Benchmark* b) {
  const auto all = static_cast<int>(std::thread::hardware_concurrency());
  for (int t = 1; t < all; t *= 2) b->Arg(t);
  b->Arg(all)->ArgName("threads")->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK(matmul_transposed_4096)
    ->Name("matmul_transposed/m:4096/n:4096/k:4096")
    ->Apply(thread_counts);
BENCHMARK(gram_4096)
    ->Name("add_gram/tokens:32768/in:4096")
    ->Apply(thread_counts);
BENCHMARK(inverse_cholesky_4096)
    ->Name("inverse_cholesky_upper/in:4096")
    ->Apply(thread_counts);

}  // namespace
}  // namespace llmpress
