// GPTQ of one layer, its two halves apart: the Hessian of 32768 rows of inputs,
// and the solve.
#include <benchmark/benchmark.h>

#include <string>

#include "compress/core/linalg.h"
#include "compress/core/rng.h"
#include "quantizers/method.h"

namespace llmpress {
namespace {

constexpr std::size_t kRows = 32768, kBatch = 2048;

MatrixF random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Rng rng(seed);
  MatrixF m(rows, cols);
  for (float& x : m.data()) {
    x = static_cast<float>(rng.uniform() + rng.uniform() + rng.uniform() - 1.5);
  }
  return m;
}

void hessian(benchmark::State& state) {
  const auto in = static_cast<std::size_t>(state.range(0));
  ThreadPool pool;
  const MatrixF X = random_matrix(kBatch, in, 1);
  for (auto _ : state) {
    InputStatsCollector collector(in, {.second_moment = true}, kRows);
    for (std::size_t t = 0; t < kRows; t += kBatch) {
      collector.add(X.view(), pool);
    }
    benchmark::DoNotOptimize(collector.finish().tokens);
  }
  const double multiply_adds = static_cast<double>(kRows * in * in) / 2;
  state.counters["GFLOP/s"] = benchmark::Counter(
      2e-9 * multiply_adds * static_cast<double>(state.iterations()),
      benchmark::Counter::kIsRate);
  state.SetLabel(blas_core_name());
}

void solve(benchmark::State& state) {
  const auto out = static_cast<std::size_t>(state.range(0));
  const auto in = static_cast<std::size_t>(state.range(1));
  ThreadPool pool;
  const MatrixF W = random_matrix(out, in, 2);
  const MatrixF X = random_matrix(2 * in, in, 1);
  InputStatsCollector collector(in, {.second_moment = true}, X.rows());
  collector.add(X.view(), pool);
  const InputStats stats = collector.finish();
  QuantizeConfig config{.method = "gptq"};
  config.weights.bits = static_cast<int>(state.range(2));
  config.weights.group_size = state.range(3);
  config.gptq.act_order = state.range(4) != 0;
  for (auto _ : state) {
    const QuantizeResult result =
        find_quantizer_method("gptq").quantize({.W = W.view(),
                                                .stats = &stats,
                                                .config = &config,
                                                .pool = &pool,
                                                .name = "layer"});
    benchmark::DoNotOptimize(result.output_error);
  }
}

BENCHMARK(hessian)
    ->Name("gptq_hessian/rows:32768")
    ->ArgName("in")
    ->Arg(4096)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(solve)
    ->Name("gptq")
    ->ArgNames({"out", "in", "bits", "group", "act_order"})
    ->Args({4096, 4096, 4, 128, 0})
    ->Args({4096, 4096, 4, 128, 1})
    ->Args({4096, 4096, 3, -1, 0})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace llmpress
