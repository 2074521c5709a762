// What this machine can do at most, to read the other benchmarks against: bytes
// a second from memory, float32 and int8 operations a second. With AVX-512
// only.
#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "compress/core/parallel.h"
#include "compress/kernels/aligned_buffer.h"
#include "compress/kernels/cpu.h"
#include "compress/kernels/simd_avx512.h"

#if LLMPRESS_X86
LLMPRESS_BEGIN_AVX512
namespace llmpress {
namespace {

constexpr std::size_t kChains = 16;  // hide the latency of the multiplier

std::int32_t sum_of(const Avx512::I* chains) {
  Avx512::I sum = Avx512::zero_lanes();
  for (std::size_t j = 0; j < kChains; ++j) sum = Avx512::add(sum, chains[j]);
  std::int32_t lanes[16];
  Avx512::store_lanes(lanes, sum);
  return lanes[0];
}

std::int32_t read_bytes(const std::byte* p, std::size_t bytes) {
  Avx512::I sum[kChains];
  LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains; ++j) {
    sum[j] = Avx512::zero_lanes();
  }
  for (std::size_t i = 0; i + 64 * kChains <= bytes; i += 64 * kChains) {
    LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains; ++j) {
      Avx512::prefetch(p + i + 64 * j + 4096);
      sum[j] = Avx512::add(sum[j], Avx512::load_lanes(p + i + 64 * j));
    }
  }
  return sum_of(sum);
}

std::int32_t multiply_floats(std::size_t rounds) {
  Avx512::F acc[kChains];
  LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains; ++j) {
    acc[j] = Avx512::broadcast(static_cast<float>(j));  // chains must differ
  }
  const Avx512::F v = Avx512::broadcast(static_cast<float>(rounds) * 1e-9f);
  for (std::size_t r = 0; r < rounds; ++r) {
    LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains; ++j) {
      acc[j] = Avx512::fma(v, v, acc[j]);
    }
  }
  Avx512::I bits[kChains];
  LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains; ++j) {
    bits[j] = Avx512::bits_of(acc[j]);
  }
  return sum_of(bits);
}

std::int32_t multiply_octets(std::size_t rounds) {
  Avx512::I acc[kChains];
  LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains; ++j) {
    acc[j] = Avx512::broadcast_lanes(static_cast<std::int32_t>(j));
  }
  const auto v = Avx512::broadcast_lanes(static_cast<std::int32_t>(rounds));
  for (std::size_t r = 0; r < rounds; ++r) {
    LLMPRESS_UNROLL for (std::size_t j = 0; j < kChains; ++j) {
      acc[j] = Avx512::dot(acc[j], v, v);
    }
  }
  return sum_of(acc);
}

}  // namespace
}  // namespace llmpress
LLMPRESS_END_TARGET

namespace llmpress {
namespace {

std::atomic<std::int32_t> sink{0};

bool skip(benchmark::State& state) {
  if (best_isa() == Isa::kAvx512) return false;
  state.SkipWithError("needs AVX-512");
  return true;
}

void bench_memory(benchmark::State& state) {
  if (skip(state)) return;
  constexpr std::size_t kBytes = std::size_t{1} << 29;
  ThreadPool pool(static_cast<std::size_t>(state.range(0)));
  const AlignedBuffer data(kBytes + 8192);
  for (auto _ : state) {
    pool.for_ranges(kBytes, 1 << 18, [&](std::size_t begin, std::size_t end) {
      sink += read_bytes(data.data() + begin, end - begin);
    });
  }
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(kBytes) * 1e-9,
                         benchmark::Counter::kIsIterationInvariantRate);
}

template <class Multiply>
void bench_peak(benchmark::State& state, const char* unit, double operations,
                Multiply multiply) {
  if (skip(state)) return;
  constexpr std::size_t kRounds = 1 << 16;
  const auto threads = static_cast<std::size_t>(state.range(0));
  ThreadPool pool(threads);
  constexpr std::size_t kTasks = 64;
  for (auto _ : state) {
    pool.for_each(kTasks, [&](std::size_t) { sink += multiply(kRounds); });
  }
  state.counters[unit] =
      benchmark::Counter(operations * kChains * kRounds * kTasks * 1e-9,
                         benchmark::Counter::kIsIterationInvariantRate);
}

void bench_f32(benchmark::State& state) {
  bench_peak(state, "GFLOP/s", 2 * 16, multiply_floats);
}
void bench_int8(benchmark::State& state) {
  bench_peak(state, "GOP/s", 2 * 64, multiply_octets);
}

BENCHMARK(bench_memory)
    ->Name("machine/memory-read/threads")
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime();
BENCHMARK(bench_f32)
    ->Name("machine/f32-fma/threads")
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime();
BENCHMARK(bench_int8)
    ->Name("machine/int8-dot/threads")
    ->Arg(1)
    ->Arg(2)
    ->UseRealTime();

}  // namespace
}  // namespace llmpress
#endif
