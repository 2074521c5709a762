// Losses of a chunk of rows beside what the memory allows: "traffic" reads Z
// and reads and writes G, which is what cross-entropy must do, and no more. GB/s
// counts 12 bytes an element for all of them; the divergences read 4 more of
// the teacher. All processors are used; CPU is
// the time of all of them together.
#include <benchmark/benchmark.h>

#include <functional>
#include <string>

#include "compress/core/rng.h"
#include "distill/losses/cross_entropy.h"
#include "distill/losses/kl_divergence.h"
#include "distill/losses/top_k_divergence.h"

namespace llmpress {
namespace {

constexpr std::size_t kTopK = 64;

struct Chunk {
  MatrixF Z, teacher, G;
  std::vector<float> weights;
  std::vector<std::int32_t> targets;
  Matrix<std::uint32_t> ids;
  MatrixF log_p;
  ThreadPool pool;

  Chunk(std::size_t rows, std::size_t cols)
      : Z(rows, cols),
        teacher(rows, cols),
        G(rows, cols),
        weights(rows, 1.0f),
        targets(rows, 7),
        ids(rows, kTopK),
        log_p(rows, kTopK) {
    Rng rng(1);
    for (float& z : Z.data()) z = static_cast<float>(8 * rng.uniform());
    for (float& t : teacher.data()) t = static_cast<float>(8 * rng.uniform());
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t i = 0; i < kTopK; ++i) {
        ids(r, i) = static_cast<std::uint32_t>((r + i * 31) % cols);
        log_p(r, i) = -5 - static_cast<float>(rng.uniform());
      }
    }
  }
};

using Step = std::function<double(Chunk&, Isa)>;

double traffic(Chunk& c, Isa) {
  c.pool.for_ranges(c.Z.rows(), 1, [&](std::size_t begin, std::size_t) {
    const auto z = c.Z.row(begin), g = c.G.row(begin);
    for (std::size_t i = 0; i < z.size(); ++i) g[i] += z[i];
  });
  return 0;
}

Step divergence(DivergenceKind kind, float temperature) {
  return [=](Chunk& c, Isa isa) {
    return divergence_loss(c.Z.view(), c.teacher.view(), c.weights,
                           {.kind = kind, .temperature = temperature},
                           c.G.view(), c.pool, isa);
  };
}

double cross_entropy(Chunk& c, Isa isa) {
  return cross_entropy_loss(c.Z.view(), c.targets, c.weights, 0, c.G.view(),
                            c.pool, isa);
}

double top_k(Chunk& c, Isa isa) {
  return top_k_divergence_loss(c.Z.view(),
                               {.ids = c.ids.view(), .values = c.log_p.view()},
                               c.weights, {}, c.G.view(), c.pool, isa);
}

void bench(benchmark::State& state, std::size_t rows, std::size_t cols,
           const Step& step, Isa isa) {
  Chunk chunk(rows, cols);
  for (auto _ : state) benchmark::DoNotOptimize(step(chunk, isa));
  state.counters["GB/s"] =
      benchmark::Counter(12e-9 * static_cast<double>(rows * cols),
                         benchmark::Counter::kIsIterationInvariantRate);
}

const bool registered = [] {
  static const std::vector<std::pair<std::string, Step>> kSteps{
      {"traffic", traffic},
      {"cross_entropy", cross_entropy},
      {"kl_forward/T:1", divergence(DivergenceKind::kForward, 1)},
      {"kl_forward/T:2", divergence(DivergenceKind::kForward, 2)},
      {"kl_reverse/T:1", divergence(DivergenceKind::kReverse, 1)},
      {"jensen_shannon/T:1", divergence(DivergenceKind::kJensenShannon, 1)},
      {"top_k/k:64", top_k},
  };
  for (const std::size_t cols : {std::size_t{2048}, std::size_t{32000}}) {
    for (const auto& [name, step] : kSteps) {
      for (const Isa isa : available_isas()) {
        if (name == "traffic" && isa != best_isa()) continue;
        const std::string full =
            name + "/rows:512/vocabulary:" + std::to_string(cols) +
            "/isa:" + std::string(isa_name(isa));
        benchmark::RegisterBenchmark(
            full.c_str(),
            [&step = step, cols, isa](benchmark::State& state) {
              bench(state, 512, cols, step, isa);
            })
            ->MeasureProcessCPUTime()
            ->UseRealTime();
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace llmpress
