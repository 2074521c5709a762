#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>

#include "compress/core/formatted.h"
#include "compress/core/heap_reuse.h"
#include "compress/model/model_source.h"
#include "compress/pipeline/adapters/adapter_beside.h"
#include "compress/pipeline/evaluation/evaluation.h"
#include "compress/pipeline/evaluation/evaluation_need.h"
#include "compress/pipeline/reports/run_report.h"
#include "compress/tool/adapter_arguments.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/model_ranks.h"
#include "compress/tool/option_checks.h"
#include "compress/tool/prepack_option.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

struct EvalArguments {
  SessionOptions session{};
  std::filesystem::path model{};
  std::vector<std::filesystem::path> candidates{};
  EvaluateConfig config{};
  AdapterArguments adapters{};
  MemoryOptions memory{};
  ModelRankOptions spread{};
  std::filesystem::path json{}, report{};
  bool prepack = false;
};

void add_evaluation_options(CLI::App& command, EvalArguments& arguments) {
  static const std::map<std::string, Protocol> kProtocols{
      {"windows", Protocol::kWindows},
      {"llama.cpp", Protocol::kLlamaCpp},
      {"strided", Protocol::kStrided}};
  static const std::map<std::string, KvCacheType> kKvCaches{
      {"f32", KvCacheType::kF32},
      {"int8", KvCacheType::kInt8},
      {"fp8", KvCacheType::kFp8},
      {"int4", KvCacheType::kInt4}};
  static const std::map<std::string, EvaluatedActivations> kActivations{
      {"stored", EvaluatedActivations::kStored},
      {"int8", EvaluatedActivations::kInt8}};
  EvaluateConfig& config = arguments.config;
  command.add_option("--text", config.text, "text to evaluate on")->required();
  command.add_option("--context", config.context, "tokens of a window")
      ->check(whole_number(2))
      ->capture_default_str();
  command
      .add_option("--protocol", config.protocol,
                  "windows (GPTQ's), llama.cpp or strided (Hugging Face's)")
      ->transform(CLI::CheckedTransformer(kProtocols))
      ->default_str("windows");
  command.add_option("--stride", config.stride, "of protocol strided")
      ->check(whole_number(1))
      ->capture_default_str();
  command
      .add_option("--max-windows", config.max_windows,
                  "evaluate the first K windows only (0: all)")
      ->check(whole_number());
  command
      .add_option("--kv-cache", config.kv_cache,
                  "storage of keys and values: f32, int8, fp8, int4")
      ->transform(CLI::CheckedTransformer(kKvCaches))
      ->default_str("f32");
  command.add_flag("--rotate-keys", config.rotate_keys,
                   "Hadamard transform of keys before they are stored");
  command
      .add_option("--activations", config.activations,
                  "stored, or int8: rounded by blocks of 128, for speed")
      ->transform(CLI::CheckedTransformer(kActivations))
      ->default_str("stored");
  command.add_option("--json", arguments.json,
                     "write the result as JSON to this file (-: stdout)");
  add_prepack_option(command, arguments.prepack);
  add_memory_options(command, arguments.memory);
  add_model_rank_options(command, arguments.spread);
  add_stall_limit(command, arguments.session);
  add_session_options(command, arguments.session);
}

std::vector<InputPath> inputs_of(const EvalArguments& arguments) {
  std::vector<InputPath> inputs{{"the model", arguments.model},
                                {"the evaluation text", arguments.config.text}};
  for (const std::filesystem::path& path : arguments.candidates) {
    inputs.push_back({"the model", path});
  }
  add_inputs(arguments.adapters, inputs);
  return inputs;
}

std::vector<OutputPath> outputs_of(const EvalArguments& arguments) {
  return {json_output(arguments.json),
          {"the report", arguments.report, OutputKind::kReport}};
}

// A model with everything that its evaluation needs.
struct LoadedModel {
  ModelSource source{};
  AdaptersBeside adapters{};
  std::unique_ptr<Decoder> decoder{};
  ModelUnderTest under_test{};
};

// `scratch`: the folder for states of a model that is streamed; empty: it is in
// memory.
LoadedModel load(const std::filesystem::path& path,
                 const EvalArguments& arguments, Session& session,
                 const std::filesystem::path& scratch, const ModelRanks& ranks,
                 const AdapterArguments& adapters = {}) {
  const EvaluateConfig& config = arguments.config;
  const bool streamed = !scratch.empty();
  LoadedModel model{.source =
                        open_model(path, streamed ? PackedLinears::kRead
                                                  : PackedLinears::kReadLater)};
  for (const std::string& note : model.source.checkpoint->notes()) {
    session.log(note);
  }
  std::string name = path.string();
  for (const auto& adapter : adapters.paths) name += " + " + adapter.string();
  if (!adapters.paths.empty()) {
    model.adapters =
        keep_beside(*model.source.checkpoint, *model.source.arch,
                    weighted(adapters), session.isa(), session.pool());
    for (const std::string& note : model.adapters.notes) session.log(note);
  }
  std::shared_ptr<const PrepackedWeights> prepacked;
  if (arguments.prepack) {
    prepacked =
        open_prepacked(*model.source.checkpoint, session.ranks(), session);
  }
  model.decoder = std::make_unique<Decoder>(
      model.adapters.checkpoint ? *model.adapters.checkpoint
                                : *model.source.checkpoint,
      Decoder::Options{.isa = session.isa(),
                       .kv = kv_format(config),
                       .progress = session.progress(),
                       .companion = model.adapters.companion,
                       .prepacked = prepacked,
                       .inputs = input_precision(config),
                       .pool = &session.pool(),
                       .streamed = streamed,
                       .tensor = ranks.tensor,
                       .stages = ranks.stages});
  model.under_test = {
      .name = name,
      .decoder = model.decoder.get(),
      .size = measure_model(*model.source.checkpoint, *model.source.arch),
      .scratch = scratch};
  return model;
}

// Where the states of models lie that are run block by block, because they do
// not fit into memory together; empty if they do. Throws Error(kResource) if
// that does not fit either. Beside adapters, which may put tokens in front of
// the text, and spread over ranks, a model is in memory.
std::filesystem::path scratch_of(const EvalArguments& arguments,
                                 Session& session,
                                 std::span<const std::filesystem::path> paths,
                                 std::size_t text_tokens) {
  const MemoryOptions& memory = arguments.memory;
  if (memory.limit == 0) return {};
  EvaluationNeed need{.loaded = kProgramBytes, .streamed = kProgramBytes};
  std::size_t most = 0;
  for (const std::filesystem::path& path : paths) {
    const ModelSource source = open_model(path, PackedLinears::kReadLater);
    const ModelSize size = measure_model(*source.checkpoint, *source.arch);
    const EvaluationNeed own = evaluation_need(
        *source.arch, size, 1, arguments.config.context, text_tokens);
    need.loaded +=
        loaded_on_rank(own, *source.arch, size, arguments.spread.pipeline,
                       arguments.spread.tensor_parallel);
    need.scratch += own.scratch;
    need.streamed += own.head;
    most = std::max(most, own.streamed - own.head);
  }
  need.streamed += most;
  if (need.loaded <= memory.limit) return {};
  const bool possible =
      arguments.adapters.paths.empty() && !arguments.spread.is_spread();
  const std::size_t least = possible ? need.streamed : need.loaded;
  if (least > memory.limit) {
    fail(ErrorCode::kResource,
         "--memory-limit {} MiB: this takes {} MiB, the smallest limit that "
         "would do",
         memory.limit >> 20, (least >> 20) + 1);
  }
  std::filesystem::path scratch = memory.scratch;
  if (scratch.empty()) scratch = std::filesystem::temp_directory_path();
  session.log(formatted(
      "models are run block by block: in memory they would take {} MiB, so {} "
      "MiB; a scratch file of about {} MiB in {}",
      need.loaded >> 20, need.streamed >> 20, need.scratch >> 20, scratch));
  return scratch;
}

// Before anything is read.
ModelRanks share_model(const EvalArguments& arguments, Session& session) {
  const bool has_adapters = !arguments.adapters.paths.empty();
  if (arguments.prepack) {
    check_prepack_possible(has_adapters, arguments.spread.tensor_parallel > 1,
                           session.isa());
  }
  return llmpress::share_model(session.ranks(), arguments.spread, has_adapters);
}

// The first rank writes for all.
std::unique_ptr<OutputGuard> guard_outputs(const EvalArguments& arguments,
                                           Session& session) {
  if (!session.ranks().is_first()) return nullptr;
  auto guard = std::make_unique<OutputGuard>(inputs_of(arguments),
                                             outputs_of(arguments));
  log_notes(*guard, session);
  return guard;
}

// Refuses before the weights are read what is too short for a window.
EvaluationText load_text(const EvaluateConfig& config,
                         const Tokenizer& tokenizer) {
  EvaluationText text = load_evaluation_text(config.text, tokenizer);
  (void)plan_windows(text, config);
  return text;
}

// Freed memory is kept where models are in memory, and goes back to the system
// where they are streamed.
std::unique_ptr<HeapReuse> choose_heap(const std::filesystem::path& scratch) {
  if (scratch.empty()) return std::make_unique<HeapReuse>();
  return_large_memory_at_once();
  return nullptr;
}

void eval(const EvalArguments& arguments) {
  Session session(arguments.session);
  const ModelRanks ranks = share_model(arguments, session);
  const auto guard = guard_outputs(arguments, session);
  (void)weighted(arguments.adapters);
  const ModelSource source = session.ranks().first_then_others(
      [&] { return open_model(arguments.model, PackedLinears::kReadLater); });
  const EvaluationText text = session.ranks().first_then_others(
      [&] { return load_text(arguments.config, *source.tokenizer); });
  const std::filesystem::path scratch =
      scratch_of(arguments, session, {&arguments.model, 1}, text.tokens.size());
  const auto reuse = choose_heap(scratch);
  const LoadedModel model = load(arguments.model, arguments, session, scratch,
                                 ranks, arguments.adapters);
  const EvaluationResult result =
      evaluate(model.under_test, text, arguments.config, session.pool(),
               session.progress(), ranks.copies);
  if (!session.ranks().is_first()) return;
  if (arguments.json != "-") {
    print("perplexity %.4f +- %.4f\n", result.perplexity,
          result.perplexity_stderr);
    print("nll        %.6f\n", result.nll);
    print(
        "scored     %zu tokens in %zu windows of %zu (%s), text of %zu "
        "tokens\n",
        result.scored_tokens, result.windows, result.context,
        result.protocol.c_str(), result.tokens);
    print("weights    %s, %.3f bits per weight (%.3f in the Linears)\n",
          human_bytes(result.size.weight_bytes).c_str(),
          result.size.bits_per_weight(), result.size.linear_bits_per_weight());
    print("speed      %.0f tokens/s\n", result.tokens_per_second);
  }
  if (!arguments.json.empty()) write_json(to_json(result), arguments.json);
}

void print_comparison(const Comparison& comparison) {
  print("%-32s %9s %8s %10s %20s %8s %9s %9s %9s %8s\n", "model", "bits/w",
        "bits/w", "size", "perplexity", "ratio", "KL mean", "KL p50", "KL p99",
        "top-1");
  print("%-32s %9s %8s\n", "", "(Linears)", "(all)");
  const auto row = [](const EvaluationResult& e) {
    print("%-32s %9.3f %8.3f %10s %10.4f +- %6.4f", e.model.c_str(),
          e.size.linear_bits_per_weight(), e.size.bits_per_weight(),
          human_bytes(e.size.weight_bytes).c_str(), e.perplexity,
          e.perplexity_stderr);
  };
  row(comparison.base);
  print("\n");
  for (const ComparedModel& model : comparison.models) {
    const Divergence& d = model.divergence;
    row(model.evaluation);
    print(" %8.4f %9.6f %9.6f %9.6f %7.2f%%\n", d.perplexity_ratio, d.kl_mean,
          d.kl_p50, d.kl_p99, 100 * d.top1_agreement);
  }
}

void compare_models(const EvalArguments& arguments) {
  Session session(arguments.session);
  const ModelRanks ranks = share_model(arguments, session);
  const auto guard = guard_outputs(arguments, session);
  const ModelSource source = session.ranks().first_then_others(
      [&] { return open_model(arguments.model, PackedLinears::kReadLater); });
  const EvaluationText text = session.ranks().first_then_others(
      [&] { return load_text(arguments.config, *source.tokenizer); });
  std::vector<std::filesystem::path> paths{arguments.model};
  paths.insert(paths.end(), arguments.candidates.begin(),
               arguments.candidates.end());
  const std::filesystem::path scratch =
      scratch_of(arguments, session, paths, text.tokens.size());
  const auto reuse = choose_heap(scratch);
  const LoadedModel base =
      load(arguments.model, arguments, session, scratch, ranks);
  std::vector<LoadedModel> loaded;
  std::vector<ModelUnderTest> candidates;
  for (const auto& path : arguments.candidates) {
    loaded.push_back(load(path, arguments, session, scratch, ranks));
    candidates.push_back(loaded.back().under_test);
    const Tokenizer& tokenizer = *loaded.back().source.tokenizer;
    if (load_evaluation_text(arguments.config.text, tokenizer).tokens !=
        text.tokens) {
      fail(ErrorCode::kInvalidInput,
           "{}: its tokenizer cuts the text differently from the base's; their "
           "perplexities cannot be compared",
           path);
    }
  }
  const Comparison comparison =
      compare(base.under_test, candidates, text, arguments.config,
              session.pool(), session.progress(), ranks.copies);
  if (!session.ranks().is_first()) return;
  if (arguments.json != "-") print_comparison(comparison);
  if (!arguments.json.empty()) write_json(to_json(comparison), arguments.json);
  if (!arguments.report.empty()) {
    write_report(report_of(comparison), arguments.report);
    print("report %s\n", (arguments.report / "report.html").c_str());
  }
}

}  // namespace

void add_eval_command(CLI::App& app, const CommandRanks& ranks) {
  auto arguments = std::make_shared<EvalArguments>();
  arguments->session.ranks = ranks;
  CLI::App* command =
      app.add_subcommand("eval", "perplexity of a model on a text");
  command->add_option("model", arguments->model, "model or artifact")
      ->required();
  add_evaluation_options(*command, *arguments);
  add_beside_options(*command, arguments->adapters);
  command->footer(
      "Example:\n  llmpress eval ./my-model --text wiki.txt --context 2048 "
      "--max-windows 50\n  llmpress eval ./my-model-w4 --adapter ./my-adapter "
      "--text wiki.txt");
  command->callback([arguments] { eval(*arguments); });
}

void add_compare_command(CLI::App& app, const CommandRanks& ranks) {
  auto arguments = std::make_shared<EvalArguments>();
  arguments->session.ranks = ranks;
  CLI::App* command = app.add_subcommand(
      "compare", "perplexity and divergence of models against a base");
  command->add_option("base", arguments->model, "the model to compare with")
      ->required();
  command
      ->add_option("candidates", arguments->candidates, "models or artifacts")
      ->required();
  add_evaluation_options(*command, *arguments);
  command->add_option("--report", arguments->report,
                      "write report.json, .md and .html into this folder");
  command->footer(
      "Example:\n  llmpress compare ./my-model ./my-model-w4 ./my-model-w8 "
      "--text wiki.txt --report out/report");
  command->callback([arguments] { compare_models(*arguments); });
}

}  // namespace llmpress
