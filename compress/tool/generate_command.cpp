#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "compress/core/formatted.h"
#include "compress/core/heap_reuse.h"
#include "compress/model/generation.h"
#include "compress/model/model_source.h"
#include "compress/pipeline/adapters/adapter_beside.h"
#include "compress/tool/adapter_arguments.h"
#include "compress/tool/chat.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/model_ranks.h"
#include "compress/tool/option_checks.h"
#include "compress/tool/prepack_option.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

struct GenerateArguments {
  SessionOptions session{};
  std::filesystem::path model{};
  std::string prompt{}, system{};
  GenerationConfig config{};
  AdapterArguments adapters{};
  ModelRankOptions spread{};
  bool ignore_eos = false;
  bool chat = false;
  bool prepack = false;
  InputPrecision inputs = InputPrecision::kExact;
};

// Prints text as its tokens come; a token may be part of a character, so what
// is printed is what the decoded text has gained.
class StreamPrinter {
 public:
  StreamPrinter(const Tokenizer& tokenizer, std::vector<TokenId> prompt)
      : tokenizer_(tokenizer), ids_(std::move(prompt)) {
    printed_ = tokenizer_.decode(ids_);
    prompt_bytes_ = printed_.size();
  }

  // What the user gave, in front of what is generated.
  void print_prompt() const { print_generated(printed_); }
  std::string generated() const { return printed_.substr(prompt_bytes_); }

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
  std::size_t prompt_bytes_ = 0;
};

// Generates and prints; returns the text.
std::string generate_one(const Decoder& decoder, const Tokenizer& tokenizer,
                         const std::vector<TokenId>& prompt,
                         const GenerateArguments& arguments, Session& session) {
  std::vector<TokenId> shown = prompt;
  if (!arguments.chat && tokenizer.adds_bos) {
    shown.erase(shown.begin());  // no text of the user's
  }
  StreamPrinter printer(tokenizer, std::move(shown));
  if (!arguments.chat) printer.print_prompt();
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
  return printer.generated();
}

// Of the first rank's stdin, on all of them; none at its end.
std::optional<std::string> read_line(const Ranks& ranks) {
  std::string line;
  const bool more = !ranks.is_first() || std::getline(std::cin, line);
  // A mark in front: an empty line is no end.
  const std::string sent = ranks.broadcast(more ? ">" + line : "");
  return sent.empty() ? std::nullopt : std::optional(sent.substr(1));
}

// One answer to the prompt, or one to each line of stdin.
void hold_conversation(const Decoder& decoder, const ModelSource& source,
                       const Ranks& ranks, GenerateArguments& arguments,
                       Session& session) {
  Chat chat(arguments.model, *source.tokenizer);
  const auto end = chat.turn_end();
  if (end && !arguments.ignore_eos) arguments.config.stop.push_back(*end);
  if (!arguments.system.empty()) chat.add("system", arguments.system);
  const auto answer = [&](const std::string& question) {
    chat.add("user", question);
    chat.add("assistant", generate_one(decoder, *source.tokenizer,
                                       chat.prompt(), arguments, session));
  };
  if (!arguments.prompt.empty()) {
    answer(arguments.prompt);
    return;
  }
  while (const auto line = read_line(ranks)) {
    if (!line->empty()) answer(*line);
  }
}

// Of ranks that share the model; the first alone where none is shared.
std::optional<ModelRanks> share_model(const GenerateArguments& arguments,
                                      Session& session) {
  const Ranks& ranks = session.ranks();
  if (!arguments.spread.is_spread()) {
    return ranks.is_first() ? std::optional(ModelRanks{}) : std::nullopt;
  }
  ModelRanks shared = llmpress::share_model(ranks, arguments.spread,
                                            !arguments.adapters.paths.empty());
  // One copy of the model is enough for one text.
  const bool is_first_copy = shared.copies.is_first();
  return is_first_copy ? std::optional(std::move(shared)) : std::nullopt;
}

void generate_text(GenerateArguments& arguments) {
  Session session(arguments.session);
  const std::optional<ModelRanks> ranks = share_model(arguments, session);
  if (!ranks) return;
  if (arguments.prepack) {
    check_prepack_possible(!arguments.adapters.paths.empty(),
                           ranks->tensor.is_spread(), session.isa());
  }
  const HeapReuse reuse;
  const ModelSource source =
      open_model(arguments.model, PackedLinears::kReadLater);
  for (const std::string& note : source.checkpoint->notes()) session.log(note);
  const AdaptersBeside adapters =
      keep_beside(*source.checkpoint, *source.arch,
                  weighted(arguments.adapters), session.isa(), session.pool());
  for (const std::string& note : adapters.notes) session.log(note);
  std::shared_ptr<const PrepackedWeights> prepacked;
  if (arguments.prepack) {
    prepacked = open_prepacked(*source.checkpoint, ranks->model, session);
  }
  const Decoder decoder(*adapters.checkpoint,
                        Decoder::Options{.isa = session.isa(),
                                         .progress = session.progress(),
                                         .companion = adapters.companion,
                                         .prepacked = prepacked,
                                         .inputs = arguments.inputs,
                                         .pool = &session.pool(),
                                         .tensor = ranks->tensor,
                                         .stages = ranks->stages});
  if (!arguments.ignore_eos) {
    arguments.config.stop = stop_tokens(source, arguments.model);
  }
  if (arguments.chat) {
    hold_conversation(decoder, source, ranks->model, arguments, session);
    return;
  }
  const Tokenizer& tokenizer = *source.tokenizer;
  generate_one(decoder, tokenizer, tokenizer.encode_document(arguments.prompt),
               arguments, session);
}

}  // namespace

void add_generate_command(CLI::App& app, const CommandRanks& ranks) {
  auto arguments = std::make_shared<GenerateArguments>();
  arguments->session.ranks = ranks;
  CLI::App* command =
      app.add_subcommand("generate", "continue a text with the packed kernels");
  GenerationConfig& config = arguments->config;
  command->add_option("model", arguments->model, "model or artifact")
      ->required();
  CLI::Option* const prompt = command->add_option(
      "--prompt,-p", arguments->prompt,
      "text to continue; with --chat, what to answer, else each line of stdin");
  CLI::Option* const chat = command->add_flag(
      "--chat", arguments->chat, "answer, by the model's chat template");
  command
      ->add_option("--system", arguments->system,
                   "with --chat, what stands before the conversation")
      ->needs(chat);
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
  add_prepack_option(*command, arguments->prepack);
  add_beside_options(*command, arguments->adapters);
  add_model_rank_options(*command, arguments->spread);
  add_stall_limit(*command, arguments->session);
  add_session_options(*command, arguments->session);
  command->footer(
      "Example:\n  llmpress generate ./my-model-w4 --prompt \"Once upon a "
      "time\" -n 100 --temperature 0.8 --seed 1\n  llmpress generate "
      "./my-model-w4 --adapter ./my-adapter --prompt \"Once upon a time\"\n"
      "  llmpress generate ./my-model-w4 --chat --system \"Be brief.\" "
      "--prompt \"What is a prime?\"");
  command->callback([arguments, prompt] {
    if (!arguments->chat && prompt->empty()) {
      throw CLI::RequiredError("--prompt");
    }
    generate_text(*arguments);
  });
}

}  // namespace llmpress
