#include "compress/kernels/machine_limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "compress/kernels/aligned_buffer.h"
#include "compress/kernels/target.h"

namespace llmpress {
namespace {

using Clock = std::chrono::steady_clock;

// Without a wider instruction set: what the compiler makes of plain loops.
std::size_t plain_read(const std::byte* p, std::size_t bytes) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i + sizeof sum <= bytes; i += sizeof sum) {
    std::uint64_t word = 0;
    std::memcpy(&word, p + i, sizeof word);
    sum += word;
  }
  return sum;
}

constexpr std::size_t kPlainLanes = 16;

std::size_t plain_floats(std::size_t rounds) {
  float acc[kPlainLanes];
  for (std::size_t j = 0; j < kPlainLanes; ++j) acc[j] = static_cast<float>(j);
  const float v = static_cast<float>(rounds) * 1e-9f;
  for (std::size_t r = 0; r < rounds; ++r) {
    for (float& a : acc) a = a * v + v;
  }
  std::uint32_t bits = 0;
  std::memcpy(&bits, acc + rounds % kPlainLanes, sizeof bits);
  return bits;
}

std::size_t plain_octets(std::size_t rounds) {
  std::int32_t acc[kPlainLanes] = {};
  const auto v = static_cast<std::int32_t>(rounds & 0x7f);
  for (std::size_t r = 0; r < rounds; ++r) {
    for (std::size_t j = 0; j < kPlainLanes; ++j) {
      acc[j] = (acc[j] & 0x7fff) + v * static_cast<std::int32_t>(j);
    }
  }
  return static_cast<std::size_t>(acc[rounds % kPlainLanes]);
}

constexpr LimitLoops kPlainLoops{.read = &plain_read,
                                 .multiply_floats = &plain_floats,
                                 .multiply_octets = &plain_octets,
                                 .float_operations = 2 * kPlainLanes,
                                 .octet_operations = 2 * kPlainLanes};

// Work a second, the best of the trials: `work` units a call of `body`.
template <class Body>
double best_rate(double work, Body body) {
  constexpr int kTrials = 7;
  double best = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const auto start = Clock::now();
    body();
    const std::chrono::duration<double> seconds = Clock::now() - start;
    if (seconds.count() > 0) best = std::max(best, work / seconds.count());
  }
  return best;
}

double multiplication_rate(ThreadPool& pool, double operations,
                           std::size_t (*multiply)(std::size_t)) {
  constexpr std::size_t kRounds = std::size_t{1} << 16;
  const std::size_t tasks = 32 * pool.size();
  std::atomic<std::size_t> sink{0};
  return best_rate(operations * static_cast<double>(kRounds * tasks), [&] {
    pool.for_each(tasks, [&](std::size_t) { sink += multiply(kRounds); });
  });
}

}  // namespace

const LimitLoops& limit_loops(Isa isa) {
#if LLMPRESS_X86
  if (isa == Isa::kAvx2) return limit_loops_avx2();
  if (isa == Isa::kAvx512) return limit_loops_avx512();
#endif
  (void)isa;
  return kPlainLoops;
}

MachineLimits measure_limits(ThreadPool& pool, Isa isa) {
  constexpr std::size_t kBytes = std::size_t{1} << 28, kGrain = 1 << 18;
  const LimitLoops& loops = limit_loops(isa);
  MachineLimits limits;
  {
    // Prefetching runs past the end.
    const AlignedBuffer data(kBytes + 8192);
    std::atomic<std::size_t> sink{0};
    limits.read_bytes = best_rate(static_cast<double>(kBytes), [&] {
      pool.for_ranges(kBytes, kGrain, [&](std::size_t begin, std::size_t end) {
        sink += loops.read(data.data() + begin, end - begin);
      });
    });
  }
  limits.float_operations =
      multiplication_rate(pool, loops.float_operations, loops.multiply_floats);
  limits.octet_operations =
      multiplication_rate(pool, loops.octet_operations, loops.multiply_octets);
  return limits;
}

}  // namespace llmpress
