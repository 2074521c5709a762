// Attention of prompts and of single tokens. GFLOP/s counts the four operations
// of each (query, key) pair in sight and dimension; GB/s the keys and values
// read.
#include <benchmark/benchmark.h>

#include <cmath>
#include <string>

#include "compress/core/rng.h"
#include "compress/kernels/attention.h"
#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

struct Case {
  std::size_t sequences, past, queries, heads, kv_heads, head_dim;
};

void bench_attention(benchmark::State& state, const Case& c, Isa isa) {
  Rng rng(1);
  ThreadPool pool;
  const AttentionConfig config{
      .heads = c.heads,
      .kv_heads = c.kv_heads,
      .head_dim = c.head_dim,
      .scale = 1 / std::sqrt(static_cast<float>(c.head_dim))};
  const std::size_t rows = c.past + c.queries;
  const std::size_t width = c.kv_heads * c.head_dim;
  const MatrixF keys = testing::random_matrix(c.sequences * rows, width, rng);
  const MatrixF values = testing::random_matrix(c.sequences * rows, width, rng);
  const MatrixF Q = testing::random_matrix(c.sequences * c.queries,
                                           c.heads * c.head_dim, rng);
  MatrixF O(Q.rows(), Q.cols());
  std::vector<AttentionSegment> segments;
  for (std::size_t s = 0; s < c.sequences; ++s) {
    segments.push_back(
        {.first_query = s * c.queries,
         .queries = c.queries,
         .past = c.past,
         .keys = kv_view(keys.view().rows_slice(s * rows, rows)),
         .values = kv_view(values.view().rows_slice(s * rows, rows))});
  }
  for (auto _ : state) {
    attention(Q.view(), segments, config, O.view(), pool, isa);
  }
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  const auto queries = static_cast<double>(c.queries);
  const double pairs =
      queries * static_cast<double>(c.past) + queries * (queries + 1) / 2;
  state.counters["GFLOP/s"] = benchmark::Counter(
      4e-9 * pairs * static_cast<double>(c.sequences * c.heads * c.head_dim),
      rate);
  state.counters["GB/s"] = benchmark::Counter(
      static_cast<double>((keys.size() + values.size()) * sizeof(float)) * 1e-9,
      rate);
}

const bool registered = [] {
  static constexpr Case kCases[] = {
      {1, 0, 2048, 32, 32, 128}, {1, 0, 2048, 32, 8, 128},
      {8, 0, 256, 8, 8, 32},     {1, 4095, 1, 32, 32, 128},
      {1, 4095, 1, 32, 8, 128},
  };
  for (const Case& c : kCases) {
    for (const Isa isa : available_isas()) {
      const std::string name =
          "attention/sequences:" + std::to_string(c.sequences) +
          "/past:" + std::to_string(c.past) +
          "/queries:" + std::to_string(c.queries) +
          "/heads:" + std::to_string(c.heads) +
          "/kv:" + std::to_string(c.kv_heads) +
          "/dim:" + std::to_string(c.head_dim) +
          "/isa:" + std::string(isa_name(isa));
      benchmark::RegisterBenchmark(name.c_str(), [&c, isa](
                                                     benchmark::State& state) {
        bench_attention(state, c, isa);
      })->UseRealTime();
    }
  }
  return true;
}();

}  // namespace
}  // namespace llmpress
