// What this machine can do at most, to read the other benchmarks against: see
// compress/kernels/machine_limits.h.
#include <benchmark/benchmark.h>

#include <string>

#include "compress/kernels/machine_limits.h"

namespace llmpress {
namespace {

void bench_limits(benchmark::State& state, Isa isa) {
  ThreadPool pool(static_cast<std::size_t>(state.range(0)));
  MachineLimits limits;
  for (auto _ : state) limits = measure_limits(pool, isa);
  state.counters["read GB/s"] = limits.read_bytes * 1e-9;
  state.counters["f32 GFLOP/s"] = limits.float_operations * 1e-9;
  state.counters["int8 GOP/s"] = limits.octet_operations * 1e-9;
}

const bool registered = [] {
  for (const Isa isa : available_isas()) {
    const std::string name = "machine/isa:" + std::string(isa_name(isa));
    benchmark::RegisterBenchmark(
        name.c_str(),
        [isa](benchmark::State& state) { bench_limits(state, isa); })
        ->ArgName("threads")
        ->Arg(1)
        ->Arg(2)
        ->Iterations(1)
        ->UseRealTime();
  }
  return true;
}();

}  // namespace
}  // namespace llmpress
