#include <CLI/CLI.hpp>
#include <chrono>
#include <map>
#include <memory>

#include "compress/core/formatted.h"
#include "compress/core/heap_reuse.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/benchmark/speed.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/option_checks.h"
#include "compress/tool/prepack_option.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

struct BenchArguments {
  SessionOptions session{};
  std::filesystem::path model{}, json{};
  SpeedConfig config{};
  KvType kv = KvType::kF32;
  InputPrecision inputs = InputPrecision::kExact;
  bool prepack = false;
};

void print_report(const SpeedReport& report) {
  constexpr double kGiga = 1e-9;
  print(
      "%s, %zu threads, %s: reads %.1f GB/s, %.0f GFLOP/s in float32, %.0f "
      "GOP/s in int8\n",
      report.processor.empty() ? "this machine" : report.processor.c_str(),
      report.threads, report.isa.c_str(), report.limits.read_bytes * kGiga,
      report.limits.float_operations * kGiga,
      report.limits.octet_operations * kGiga);
  print("%s: weights %s, a token reads %s; cache %s a token; peak memory %s\n",
        report.model.c_str(), human_bytes(report.weight_bytes).c_str(),
        human_bytes(report.bytes_per_token).c_str(),
        human_bytes(report.cache_bytes_per_token).c_str(),
        human_bytes(report.peak_memory_bytes).c_str());
  print("loaded in %.2f s, first token %.3f s later\n", report.load_seconds,
        report.first_token_seconds);
  print("%-10s %9s %7s %10s %21s  %s\n", "", "sequences", "tokens", "tokens/s",
        "lowest to highest", "of the machine");
  for (const SpeedRow& row : report.rows) {
    const bool prompt = row.kind == SpeedRow::Kind::kPrompt;
    const bool reads = !prompt && row.sequences == 1;
    print("%-10s %9zu %7zu %10.2f %10.2f %10.2f  %.0f %% of %s\n",
          prompt ? "prompt" : "generate", row.sequences, row.tokens,
          row.speed.median, row.speed.lowest, row.speed.highest,
          100 * row.of_limit,
          reads                        ? "read bandwidth"
          : report.integer_activations ? "int8 peak"
                                       : "float32 peak");
  }
}

void bench(const BenchArguments& arguments) {
  Session session(arguments.session);
  const HeapReuse reuse;
  std::vector<OutputPath> outputs;
  if (!arguments.json.empty()) outputs.push_back(json_output(arguments.json));
  const OutputGuard guard({{"the model", arguments.model}}, outputs);
  log_notes(guard, session);
  std::shared_ptr<const PrepackedWeights> prepacked;
  if (arguments.prepack) {  // made before the clock starts
    check_prepack_possible(false, false, session.isa());
    (void)open_prepacked(*open_checkpoint(arguments.model), {}, session);
  }
  const auto start = std::chrono::steady_clock::now();
  const auto checkpoint = open_checkpoint(arguments.model);
  if (arguments.prepack) prepacked = open_prepacked(*checkpoint, {}, session);
  const Decoder decoder(*checkpoint, {.isa = session.isa(),
                                      .kv = {.type = arguments.kv},
                                      .progress = session.progress(),
                                      .companion = nullptr,
                                      .prepacked = prepacked,
                                      .inputs = arguments.inputs,
                                      .pool = &session.pool()});
  const std::chrono::duration<double> loaded =
      std::chrono::steady_clock::now() - start;
  SpeedReport report = measure_speed(decoder, arguments.config, session.isa(),
                                     session.pool(), session.progress());
  report.load_seconds = loaded.count();
  if (arguments.json.empty()) {
    print_report(report);
  } else {
    write_json(to_json(report), arguments.json);
  }
}

}  // namespace

void add_bench_command(CLI::App& app) {
  static const std::map<std::string, KvType> kKvCaches{{"f32", KvType::kF32},
                                                       {"int8", KvType::kInt8},
                                                       {"fp8", KvType::kFp8},
                                                       {"int4", KvType::kInt4}};
  auto arguments = std::make_shared<BenchArguments>();
  SpeedConfig& config = arguments->config;
  CLI::App* command = app.add_subcommand(
      "bench", "speed of a model on this machine, beside the machine's own");
  command->add_option("model", arguments->model, "model or artifact")
      ->required();
  command
      ->add_option("-p,--prompt-tokens", config.prompts,
                   "lengths of prompts, with commas between")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(whole_number(1))
      ->capture_default_str();
  command
      ->add_option("-n,--generate-tokens", config.generate,
                   "tokens to generate one by one (0: none)")
      ->check(whole_number())
      ->capture_default_str();
  command
      ->add_option("-b,--batch", config.batches,
                   "sequences side by side, with commas between")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(whole_number(1, 4096))
      ->capture_default_str();
  command->add_option("-r,--repetitions", config.repetitions, "of every figure")
      ->check(whole_number(1))
      ->capture_default_str();
  command
      ->add_option("--kv-cache", arguments->kv,
                   "storage of keys and values: f32, int8, fp8, int4")
      ->transform(CLI::CheckedTransformer(kKvCaches))
      ->default_str("f32");
  add_activations_option(*command, arguments->inputs);
  add_prepack_option(*command, arguments->prepack);
  command->add_option("--json", arguments->json,
                      "write the result as JSON to this file (-: stdout)");
  add_session_options(*command, arguments->session);
  command->footer(
      "Example:\n  llmpress bench ./my-model-w4 -p 512 -n 64 -b 1,4,16");
  command->callback([arguments] { bench(*arguments); });
}

}  // namespace llmpress
