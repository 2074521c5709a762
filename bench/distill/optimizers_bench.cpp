// One step of each optimizer over 2^24 weights. GB/s counts what a step must
// read and write: 28 bytes a weight for AdamW, 16 for 8-bit AdamW, 20 for SGD
// with momentum. All processors are used; CPU is
// the time of all of them together.
#include <benchmark/benchmark.h>

#include "compress/core/optimizers/adamw.h"
#include "compress/core/rng.h"
#include "distill/optimizers/adamw8bit.h"
#include "distill/optimizers/gradient_norm.h"
#include "distill/optimizers/sgd.h"

namespace llmpress {
namespace {

constexpr std::size_t kWeights = std::size_t{1} << 24;

// `step(g, w)`, with `bytes` of traffic a weight.
template <class Step>
void bench_step(benchmark::State& state, double bytes, Step step) {
  Rng rng(1);
  std::vector<float> g(kWeights), w(kWeights);
  for (std::size_t i = 0; i < kWeights; ++i) {
    g[i] = static_cast<float>(rng.uniform() - 0.5);
    w[i] = static_cast<float>(rng.uniform() - 0.5);
  }
  for (auto _ : state) step(g, w);
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(kWeights) * bytes * 1e-9,
                         benchmark::Counter::kIsIterationInvariantRate);
}

void bench_adamw(benchmark::State& state) {
  ThreadPool pool;
  AdamWState moments;
  bench_step(state, 28, [&](auto& g, auto& w) {
    adamw_step({}, 7, 1e-4f, 0.1f, 0.5f, g, w, moments, pool);
  });
}

void bench_adamw8bit(benchmark::State& state) {
  ThreadPool pool;
  AdamW8BitState moments;
  bench_step(state, 16, [&](auto& g, auto& w) {
    adamw8bit_step({}, 7, 1e-4f, 0.1f, 0.5f, g, w, moments, pool);
  });
}

void bench_sgd(benchmark::State& state) {
  ThreadPool pool;
  SgdState momentum;
  bench_step(state, 20, [&](auto& g, auto& w) {
    sgd_step({.momentum = 0.9}, 1e-4f, 0.1f, 0.5f, g, w, momentum, pool);
  });
}

void bench_norm(benchmark::State& state) {
  ThreadPool pool;
  bench_step(state, 4, [&](auto& g, auto&) {
    const std::vector<std::span<const float>> spans{g};
    benchmark::DoNotOptimize(gradient_norm(spans, pool));
  });
}

BENCHMARK(bench_adamw)
    ->Name("adamw/weights:16777216")
    ->MeasureProcessCPUTime()
    ->UseRealTime();
BENCHMARK(bench_adamw8bit)
    ->Name("adamw8bit/weights:16777216")
    ->MeasureProcessCPUTime()
    ->UseRealTime();
BENCHMARK(bench_sgd)
    ->Name("sgd_momentum/weights:16777216")
    ->MeasureProcessCPUTime()
    ->UseRealTime();
BENCHMARK(bench_norm)
    ->Name("gradient_norm/weights:16777216")
    ->MeasureProcessCPUTime()
    ->UseRealTime();

}  // namespace
}  // namespace llmpress
