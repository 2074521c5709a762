// What this machine can do at most, to read speeds against: bytes a second from
// memory, float32 and int8 operations a second.
#pragma once

#include <cstddef>

#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"

namespace llmpress {

// The loops that are timed, for one instruction set. Each returns something
// that depends on all it did.
struct LimitLoops {
  // Reads the bytes, whole vectors of them, in order.
  std::size_t (*read)(const std::byte* p, std::size_t bytes);
  // `rounds` times so many multiplications and additions as `*_operations`.
  std::size_t (*multiply_floats)(std::size_t rounds);
  std::size_t (*multiply_octets)(std::size_t rounds);
  double float_operations = 0, octet_operations = 0;
};

const LimitLoops& limit_loops(Isa isa);
const LimitLoops& limit_loops_avx2();
const LimitLoops& limit_loops_avx512();

struct MachineLimits {
  double read_bytes = 0;        // a second, from memory
  double float_operations = 0;  // a second: fused multiply-adds count two
  double octet_operations = 0;  // a second: products of int8, sums of int32
};

// The best of a few trials of a few milliseconds each, by all threads of the pool
// together. Takes 256 MiB of memory for so long.
MachineLimits measure_limits(ThreadPool& pool, Isa isa);

}  // namespace llmpress
