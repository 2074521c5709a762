// column_solver/out:4096/in:4096: every column rounded, U given.
#include <benchmark/benchmark.h>

#include <cmath>

#include "compress/core/column_solver.h"
#include "compress/core/linalg.h"
#include "compress/core/rng.h"

namespace llmpress {
namespace {

void solve(benchmark::State& state) {
  const auto out = static_cast<std::size_t>(state.range(0));
  const auto in = static_cast<std::size_t>(state.range(1));
  ThreadPool pool;
  Rng rng(1);
  MatrixF W(out, in), U(in, in);
  for (float& w : W.data()) w = static_cast<float>(rng.normal());
  for (std::size_t i = 0; i < in; ++i) {
    for (std::size_t j = i; j < in; ++j) {
      U(i, j) = i == j ? 1.0f : 1e-3f * static_cast<float>(rng.normal());
    }
  }
  const ColumnCompressor round{
      .compress = [](const ColumnWindow&, std::span<float> column) {
        for (float& w : column) w = 0.25f * std::nearbyint(4 * w);
      }};
  for (auto _ : state) {
    MatrixF Q = W;
    benchmark::DoNotOptimize(
        solve_columns_in_place(Q.view(), U.view(), round, {}, pool));
  }
  const double multiply_adds = static_cast<double>(out) *
                               static_cast<double>(in) *
                               static_cast<double>(in + 128) / 2;
  state.counters["multiply_adds"] = benchmark::Counter(
      multiply_adds, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(solve)
    ->Name("column_solver")
    ->ArgNames({"out", "in"})
    ->Args({1024, 1024})
    ->Args({4096, 4096})
    ->Args({4096, 11008})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace llmpress
