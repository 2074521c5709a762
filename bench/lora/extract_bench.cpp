// extract/out:4096/in:4096/rank:16/exact:0: the leading part of one Linear's
// change, by random projection (exact:0) or by a whole decomposition (exact:1).
// `captured` is the part of the squared norm that the factors keep; singular
// values fall as 1 / sqrt(k + 1), as slowly as a fine-tune's do.
#include <benchmark/benchmark.h>

#include <cmath>

#include "compress/core/linalg.h"
#include "compress/core/rng.h"
#include "lora/extract.h"

namespace llmpress {
namespace {

MatrixF normal(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Rng rng(seed);
  MatrixF M(rows, cols);
  for (float& x : M.data()) x = static_cast<float>(rng.normal());
  return M;
}

// Products of random factors, nearly orthogonal at these sizes.
MatrixF change(std::size_t out, std::size_t in, ThreadPool& pool) {
  constexpr std::size_t kValues = 256;
  MatrixF left = normal(out, kValues, 1);
  const MatrixF right = normal(kValues, in, 2);
  for (std::size_t o = 0; o < out; ++o) {
    for (std::size_t k = 0; k < kValues; ++k) {
      left(o, k) /= std::sqrt(static_cast<float>(k + 1));
    }
  }
  MatrixF D(out, in);
  matmul(left.view(), right.view(), D.view(), pool);
  return D;
}

void extract(benchmark::State& state) {
  const auto out = static_cast<std::size_t>(state.range(0));
  const auto in = static_cast<std::size_t>(state.range(1));
  const auto rank = static_cast<std::size_t>(state.range(2));
  ThreadPool pool;
  const MatrixF base(out, in);
  const MatrixF tuned = change(out, in, pool);
  ExtractConfig config{.rank = rank};
  if (state.range(3) != 0) config.exact_side = out + in;
  for (auto _ : state) {
    const ExtractedLora lora =
        extract_lora(base.view(), tuned.view(), config, pool);
    state.counters["captured"] = lora.captured_energy;
  }
}
BENCHMARK(extract)
    ->ArgNames({"out", "in", "rank", "exact"})
    ->Args({1024, 1024, 16, 0})
    ->Args({1024, 1024, 16, 1})
    ->Args({4096, 4096, 16, 0})
    ->Args({4096, 4096, 128, 0})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace llmpress
