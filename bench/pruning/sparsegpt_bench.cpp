// sparsegpt/out:4096/in:4096/of:0: one Linear from its second moment to its
// pruned weight: factorization, mask, solve. of:4 is 2:4, of:0 unstructured 50
// %.
#include <benchmark/benchmark.h>

#include "compress/core/linalg.h"
#include "compress/core/rng.h"
#include "pruning/method.h"
#include "pruning/sparsegpt.h"

namespace llmpress {
namespace {

MatrixF normal(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Rng rng(seed);
  MatrixF M(rows, cols);
  for (float& x : M.data()) x = static_cast<float>(rng.normal());
  return M;
}

InputStats random_stats(std::size_t in, ThreadPool& pool) {
  const MatrixF X = normal(512, in, 1);
  InputStats stats;
  stats.second_moment = MatrixF(in, in);
  add_gram(X.view(), 1.0f / 512, stats.second_moment.view(), pool);
  stats.square_mean.assign(in, 1.0f);
  return stats;
}

void prune(benchmark::State& state, PruneMethod method) {
  const auto out = static_cast<std::size_t>(state.range(0));
  const auto in = static_cast<std::size_t>(state.range(1));
  const auto of = static_cast<std::size_t>(state.range(2));
  ThreadPool pool;
  const InputStats full = random_stats(in, pool);
  InputStats moments;
  moments.square_mean = full.square_mean;
  const bool wants_full = method == PruneMethod::kSparseGpt;
  const MatrixF W = normal(out, in, 2);
  const PruneConfig config{.method = method, .keep = of / 2, .of = of};
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        prune_weight({.W = W.view(),
                      .stats = wants_full ? &full : &moments,
                      .config = &config,
                      .sparsity = 0.5,
                      .pool = &pool,
                      .name = "bench"}));
  }
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"out", "in", "of"})
      ->Args({4096, 4096, 0})
      ->Args({4096, 4096, 4})
      ->Args({4096, 11008, 0})
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime();
}
BENCHMARK_CAPTURE(prune, sparsegpt, PruneMethod::kSparseGpt)->Apply(shapes);
BENCHMARK_CAPTURE(prune, wanda, PruneMethod::kWanda)->Apply(shapes);
BENCHMARK_CAPTURE(prune, magnitude, PruneMethod::kMagnitude)->Apply(shapes);

}  // namespace
}  // namespace llmpress
