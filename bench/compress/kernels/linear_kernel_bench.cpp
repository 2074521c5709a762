// Linear kernels over packed types, one token and many. GB/s counts the bytes
// of the prepared weight, GFLOP/s and GOP/s two operations a weight and token.
// The peer is the f32 product of core (OpenBLAS); machine_limits_bench.cpp
// measures what bounds them. All processors are used.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>
#include <vector>

#include "compress/core/linalg.h"
#include "compress/core/rng.h"
#include "compress/kernels/linear_kernel.h"
#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

struct Shape {
  std::size_t out, in;
};
constexpr Shape kShapes[] = {{4096, 4096}, {11008, 4096}, {4096, 11008}};

struct Case {
  std::string name;
  LinearWeights (*make)(Shape, Rng&);
  bool integer = false;
  InputPrecision inputs = InputPrecision::kExact;
};

LinearWeights dense(Shape s, DType dtype, Rng& rng) {
  return {.weight = make_dense(testing::random_matrix(s.out, s.in, rng).view(),
                               dtype)};
}

LinearWeights grouped(Shape s, int bits, std::size_t group,
                      testing::Zeros zeros, Rng& rng) {
  return {.weight = testing::random_grouped(s.out, s.in, bits, group, zeros,
                                            false, DType::kF16, rng)};
}

LinearWeights sparse(Shape s, SparsePattern pattern, double kept, DType dtype,
                     Rng& rng) {
  const MatrixF W = testing::random_sparse(s.out, s.in, pattern, kept, rng);
  return {.weight = make_sparse(W.view(), pattern, dtype)};
}

const std::vector<Case>& cases() {
  using testing::Zeros;
  static const std::vector<Case> all{
      {"f32", [](Shape s, Rng& r) { return dense(s, DType::kF32, r); }},
      {"bf16", [](Shape s, Rng& r) { return dense(s, DType::kBF16, r); }},
      {"f16", [](Shape s, Rng& r) { return dense(s, DType::kF16, r); }},
      {"int4-g128",
       [](Shape s, Rng& r) {
         return grouped(s, 4, 128, Zeros::kSymmetric, r);
       }},
      {"int4-g128-asym",
       [](Shape s, Rng& r) { return grouped(s, 4, 128, Zeros::kInteger, r); }},
      {"int4-g32",
       [](Shape s, Rng& r) { return grouped(s, 4, 32, Zeros::kSymmetric, r); }},
      {"int3-g128",
       [](Shape s, Rng& r) {
         return grouped(s, 3, 128, Zeros::kSymmetric, r);
       }},
      {"int2-g64",
       [](Shape s, Rng& r) { return grouped(s, 2, 64, Zeros::kSymmetric, r); }},
      {"int8-g128",
       [](Shape s, Rng& r) {
         return grouped(s, 8, 128, Zeros::kSymmetric, r);
       }},
      {"int8-channel",
       [](Shape s, Rng& r) {
         return LinearWeights{
             .weight = testing::random_int8(s.out, s.in, true, false, 0, r)};
       }},
      {"fp8-channel",
       [](Shape s, Rng& r) {
         return LinearWeights{.weight = testing::random_fp8(
                                  s.out, s.in, DType::kF8E4M3, 1, s.in, r)};
       }},
      {"nf4-b64",
       [](Shape s, Rng& r) {
         return LinearWeights{.weight = testing::random_table4(
                                  s.out, s.in, Table4Kind::kNf4, 64, true, r)};
       }},
      {"mxfp4",
       [](Shape s, Rng& r) {
         return LinearWeights{.weight = testing::random_micro(
                                  s.out, s.in, MicroFp4Kind::kMxfp4, r)};
       }},
      {"2of4-f32",
       [](Shape s, Rng& r) {
         return sparse(s, SparsePattern::k2of4, 0.5, DType::kF32, r);
       }},
      {"2of4-bf16",
       [](Shape s, Rng& r) {
         return sparse(s, SparsePattern::k2of4, 0.5, DType::kBF16, r);
       }},
      {"bitmask70-f32",
       [](Shape s, Rng& r) {
         return sparse(s, SparsePattern::kBitmask, 0.3, DType::kF32, r);
       }},
      {"int8-channel-a8",
       [](Shape s, Rng& r) {
         return LinearWeights{
             .weight = testing::random_int8(s.out, s.in, true, false, 0, r),
             .input = {.kind = ActivationQuant::Kind::kInt}};
       },
       true},
      {"int4-g128-a8",
       [](Shape s, Rng& r) {
         LinearWeights w = grouped(s, 4, 128, Zeros::kSymmetric, r);
         w.input.kind = ActivationQuant::Kind::kInt;
         return w;
       },
       true},
      {"int4-g128-x8",
       [](Shape s, Rng& r) { return grouped(s, 4, 128, Zeros::kInteger, r); },
       true, InputPrecision::kInt8},
      {"int4-g32-x8",
       [](Shape s, Rng& r) { return grouped(s, 4, 32, Zeros::kInteger, r); },
       true, InputPrecision::kInt8},
      {"int2-g64-x8",
       [](Shape s, Rng& r) { return grouped(s, 2, 64, Zeros::kInteger, r); },
       true, InputPrecision::kInt8},
      {"int8-channel-x8",
       [](Shape s, Rng& r) {
         return LinearWeights{
             .weight = testing::random_int8(s.out, s.in, true, false, 0, r)};
       },
       true, InputPrecision::kInt8},
      {"nf4-b64-x8",
       [](Shape s, Rng& r) {
         return LinearWeights{.weight = testing::random_table4(
                                  s.out, s.in, Table4Kind::kNf4, 64, true, r)};
       },
       true, InputPrecision::kInt8},
      {"mxfp4-x8",
       [](Shape s, Rng& r) {
         return LinearWeights{.weight = testing::random_micro(
                                  s.out, s.in, MicroFp4Kind::kMxfp4, r)};
       },
       true, InputPrecision::kInt8},
      {"int8-outliers-a8",
       [](Shape s, Rng& r) {
         return LinearWeights{
             .weight = testing::random_int8(s.out, s.in, true, false, 6, r),
             .input = {.kind = ActivationQuant::Kind::kInt,
                       .outlier_threshold = 4.2f}};
       },
       true},
  };
  return all;
}

void set_counters(benchmark::State& state, Shape s, std::size_t tokens,
                  std::size_t bytes, bool integer) {
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  const double operations = 2.0 * static_cast<double>(s.out) *
                            static_cast<double>(s.in) *
                            static_cast<double>(tokens);
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(bytes) * 1e-9, rate);
  state.counters[integer ? "GOP/s" : "GFLOP/s"] =
      benchmark::Counter(operations * 1e-9, rate);
}

void bench_linear(benchmark::State& state, const Case& c, Shape s,
                  std::size_t tokens, Isa isa) {
  Rng rng(1);
  ThreadPool pool;
  const auto kernel = make_linear_kernel(c.make(s, rng), isa, c.inputs);
  const MatrixF X = testing::random_matrix(tokens, s.in, rng);
  MatrixF Y(tokens, s.out);
  for (auto _ : state) kernel->run(X.view(), Y.view(), pool);
  set_counters(state, s, tokens, kernel->bytes(), c.integer);
}

void bench_peer(benchmark::State& state, Shape s, std::size_t tokens) {
  Rng rng(1);
  ThreadPool pool;
  const MatrixF W = testing::random_matrix(s.out, s.in, rng);
  const MatrixF X = testing::random_matrix(tokens, s.in, rng);
  MatrixF Y(tokens, s.out);
  for (auto _ : state) {
    matmul_transposed(X.view(), W.view(), Y.view(), pool);
  }
  set_counters(state, s, tokens, W.size() * sizeof(float), false);
}

std::string case_name(const std::string& what, Shape s, std::size_t tokens,
                      std::string_view isa) {
  return "linear/" + what + "/out:" + std::to_string(s.out) +
         "/in:" + std::to_string(s.in) + "/tokens:" + std::to_string(tokens) +
         "/isa:" + std::string(isa);
}

const bool registered = [] {
  for (const Shape s : kShapes) {
    for (const std::size_t tokens :
         std::initializer_list<std::size_t>{1, 2, 4, 8, 16, 32, 128, 512}) {
      benchmark::RegisterBenchmark(
          case_name("f32-openblas", s, tokens, "blas").c_str(),
          [=](benchmark::State& state) { bench_peer(state, s, tokens); })
          ->UseRealTime();
      for (const Case& c : cases()) {
        for (const Isa isa : available_isas()) {
          if (isa == Isa::kScalar) continue;
          benchmark::RegisterBenchmark(
              case_name(c.name, s, tokens, isa_name(isa)).c_str(),
              [&c, s, tokens, isa](benchmark::State& state) {
                bench_linear(state, c, s, tokens, isa);
              })
              ->UseRealTime();
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace llmpress
