#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "compress/model/generation.h"
#include "compress/model/model_source.h"
#include "compress/pipeline/adapters/adapter_beside.h"
#include "compress/tool/adapter_arguments.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/option_checks.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

struct GenerateArguments {
  SessionOptions session{};
  std::filesystem::path model{};
  std::string prompt{};
  GenerationConfig config{};
  AdapterArguments adapters{};
  bool ignore_eos = false;
  InputPrecision inputs = InputPrecision::kExact;
};

// Prints text as its tokens come; a token may be part of a character, so what
// is printed is what the decoded text has gained.
class StreamPrinter {
 public:
  StreamPrinter(const Tokenizer& tokenizer, std::vector<TokenId> prompt)
      : tokenizer_(tokenizer), ids_(std::move(prompt)) {
    if (tokenizer.adds_bos) ids_.erase(ids_.begin());  // no text of the user's
    printed_ = tokenizer_.decode(ids_);
    print_generated(printed_);
  }

  void add(TokenId id) {
    ids_.push_back(id);
    std::string text = tokenizer_.decode(ids_);
    const bool whole =
        !text.ends_with("\xEF\xBF\xBD");  // U+FFFD: cut character
    if (!whole || text.size() < printed_.size()) return;
    print_generated(std::string_view(text).substr(printed_.size()));
    std::fflush(stdout);
    printed_ = std::move(text);
  }

 private:
  const Tokenizer& tokenizer_;
  std::vector<TokenId> ids_;
  std::string printed_;
};

void generate_text(GenerateArguments& arguments) {
  Session session(arguments.session);
  const ModelSource source = open_model(arguments.model);
  for (const std::string& note : source.checkpoint->notes()) session.log(note);
  const Tokenizer& tokenizer = *source.tokenizer;
  const AdaptersBeside adapters =
      keep_beside(*source.checkpoint, *source.arch,
                  weighted(arguments.adapters), session.isa(), session.pool());
  for (const std::string& note : adapters.notes) session.log(note);
  const Decoder decoder(*adapters.checkpoint,
                        Decoder::Options{.isa = session.isa(),
                                         .progress = session.progress(),
                                         .companion = adapters.companion,
                                         .inputs = arguments.inputs,
                                         .pool = &session.pool()});
  const auto prompt = tokenizer.encode_document(arguments.prompt);
  if (!arguments.ignore_eos) {
    arguments.config.stop = stop_tokens(source, arguments.model);
  }
  StreamPrinter printer(tokenizer, prompt);
  const GenerationResult result =
      generate(decoder, prompt, arguments.config, session.pool(),
               [&](TokenId id) { printer.add(id); });
  if (arguments.config.beams > 1) {
    for (const TokenId id : result.tokens) printer.add(id);
  }
  print("\n");
  const auto per_second = [](std::size_t tokens, double seconds) {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
  };
  char line[128];
  std::snprintf(line, sizeof(line),
                "prompt %zu tokens, %.0f tokens/s; generated %zu tokens, %.1f "
                "tokens/s",
                prompt.size(), per_second(prompt.size(), result.prompt_seconds),
                result.tokens.size(),
                per_second(result.tokens.size(), result.decode_seconds));
  session.log(line);
}

}  // namespace

void add_generate_command(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* command =
      app.add_subcommand("generate", "continue a text with the packed kernels");
  GenerationConfig& config = arguments->config;
  command->add_option("model", arguments->model, "model or artifact")
      ->required();
  command->add_option("--prompt,-p", arguments->prompt, "text to continue")
      ->required();
  command->add_option("-n,--max-new-tokens", config.max_new_tokens)
      ->check(whole_number())
      ->capture_default_str();
  command->add_option("--temperature", config.temperature, "0: greedy")
      ->check(real_number(0, 1e6))
      ->capture_default_str();
  command->add_option("--top-k", config.top_k, "0: off")
      ->check(whole_number())
      ->capture_default_str();
  command->add_option("--top-p", config.top_p)
      ->check(real_number(1e-9, 1))
      ->capture_default_str();
  command->add_option("--repetition-penalty", config.repetition_penalty)
      ->check(real_number(1e-6, 1e6))
      ->capture_default_str();
  command->add_option("--beams", config.beams, "beam search if above 1")
      ->check(whole_number(1))
      ->capture_default_str();
  command->add_option("--seed", config.seed)
      ->check(any_seed())
      ->capture_default_str();
  command->add_flag("--ignore-eos", arguments->ignore_eos,
                    "go on after the end-of-text token");
  add_activations_option(*command, arguments->inputs);
  add_beside_options(*command, arguments->adapters);
  add_session_options(*command, arguments->session);
  command->footer(
      "Example:\n  llmpress generate ./my-model-w4 --prompt \"Once upon a "
      "time\" -n 100 --temperature 0.8 --seed 1\n  llmpress generate "
      "./my-model-w4 --adapter ./my-adapter --prompt \"Once upon a time\"");
  command->callback([arguments] { generate_text(*arguments); });
}

}  // namespace llmpress
