// Every method on one large layer, with the memory that it takes beyond its
// inputs (the weight, and the statistics it asked for).
#include <benchmark/benchmark.h>

#include <functional>
#include <string>

#include "bench/quantizers/peak_memory.h"
#include "compress/core/rng.h"
#include "quantizers/awq.h"
#include "quantizers/method.h"
#include "quantizers/rotation.h"
#include "quantizers/smoothquant.h"

namespace llmpress {
namespace {

constexpr std::size_t kOut = 4096, kIn = 11008, kRows = 4096;

ThreadPool& pool() {
  static ThreadPool instance;
  return instance;
}

struct Layer {
  MatrixF W{kOut, kIn};
  InputStats stats{};        // all of them
  InputStats light_stats{};  // without the second moment
};

void fill(MatrixF& m, std::uint64_t seed) {
  Rng rng(seed);
  for (float& x : m.data()) {
    x = static_cast<float>(rng.uniform() + rng.uniform() + rng.uniform() - 1.5);
  }
}

Layer& layer() {
  static Layer instance = [] {
    Layer l;
    fill(l.W, 1);
    MatrixF X(kRows, kIn);
    fill(X, 2);
    InputStatsCollector collector(
        kIn,
        {.second_moment = true, .channel_moments = true, .sample_rows = true},
        kRows);
    collector.add(X.view(), pool());
    l.stats = collector.finish();
    l.light_stats.abs_max = l.stats.abs_max;
    l.light_stats.abs_mean = l.stats.abs_mean;
    l.light_stats.square_mean = l.stats.square_mean;
    l.light_stats.sample_rows = l.stats.sample_rows;
    return l;
  }();
  return instance;
}

void measure(benchmark::State& state, const std::function<void()>& body) {
  layer();
  std::size_t peak = 0;
  for (auto _ : state) {
    const PeakMemory memory;
    body();
    peak = std::max(peak, memory.growth());
  }
  state.counters["peak_MiB"] = static_cast<double>(peak) / (1 << 20);
}

// With the statistics that a run would have collected, so that the output error
// is measured with the second moment only where the method needed it.
void quantize(benchmark::State& state, const QuantizeConfig& config) {
  const QuantizerMethod& method = find_quantizer_method(config.method);
  measure(state, [&] {
    const bool full = method.needs(config).second_moment;
    const QuantizeResult result =
        method.quantize({.W = layer().W.view(),
                         .stats = full ? &layer().stats : &layer().light_stats,
                         .config = &config,
                         .pool = &pool(),
                         .name = "down_proj"});
    benchmark::DoNotOptimize(result.output_error);
    state.SetLabel(describe(result.weight));
  });
}

QuantizeConfig named(const char* method, const WeightScheme& weights = {}) {
  return {.method = method, .weights = weights};
}

void add(const std::string& name,
         const std::function<void(benchmark::State&)>& body) {
  benchmark::RegisterBenchmark(
      ("method/" + name + "/out:4096/in:11008").c_str(), body)
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime()
      ->Iterations(1);
}

void add(const std::string& name, const QuantizeConfig& config) {
  add(name, [config](benchmark::State& state) { quantize(state, config); });
}

[[maybe_unused]] const bool registered = [] {
  const WeightScheme int8{.bits = 8, .group_size = -1, .symmetric = true};
  add("rtn", named("rtn"));
  add("rtn_mse", named("rtn", {.range = RangeSearch::kMse}));
  add("imatrix", named("imatrix"));
  add("gptq", named("gptq"));
  QuantizeConfig gptq = named("gptq");
  gptq.gptq.act_order = true;
  add("gptq_act_order", gptq);
  add("awq_clip_and_round", named("awq"));
  add("smoothquant_round", named("smoothquant", int8));
  add("llm_int8", named("llm_int8", int8));
  add("hqq", named("hqq", {.group_size = 64}));
  add("nf4", named("nf4", {.type = WeightType::kNf4, .group_size = 64}));
  add("nf4_dq", named("nf4", {.type = WeightType::kNf4,
                              .group_size = 64,
                              .double_quant = true}));
  add("fp8", named("rtn", {.type = WeightType::kFp8E4M3,
                           .group_size = -1,
                           .scale_dtype = DType::kF32}));
  add("mxfp4", named("rtn", {.type = WeightType::kMxfp4}));
  add("nvfp4", named("rtn", {.type = WeightType::kNvfp4}));
  add("awq_scales", [](benchmark::State& state) {
    measure(state, [] {
      const Consumers consumers = {layer().W.view()};
      benchmark::DoNotOptimize(
          search_awq_scales(
              consumers, layer().stats.abs_mean, named("awq"),
              sample_objective(consumers, layer().stats.sample_rows.view(),
                               pool()),
              pool())
              .error);
    });
  });
  add("smoothquant_scales", [](benchmark::State& state) {
    measure(state, [] {
      const QuantizeConfig config = named("smoothquant");
      benchmark::DoNotOptimize(
          find_smooth_scales({layer().W.view()}, layer().stats, config, pool())
              .s.data());
    });
  });
  add("rotate_input", [](benchmark::State& state) {
    measure(state, [] {
      MatrixF W = layer().W;
      rotate_input_in_place(W.view(), random_rotation(kIn, 1), pool());
      benchmark::DoNotOptimize(W.data().data());
    });
  });
  return true;
}();

}  // namespace
}  // namespace llmpress
