#include "compress/api/llmpress.h"

#include <utility>

#include "compress/core/parallel.h"
#include "compress/kernels/isa_choice.h"
#include "compress/model/decoder.h"
#include "compress/model/generation.h"
#include "compress/model/model_source.h"
#include "compress/pipeline/evaluation/evaluation.h"
#include "compress/pipeline/run/run.h"
#include "recipes/recipe_parser.h"

namespace llmpress {
namespace {

PerplexityResult perplexity_of(const EvaluationResult& e) {
  return {.nll = e.nll,
          .perplexity = e.perplexity,
          .standard_error = e.perplexity_stderr,
          .scored_tokens = e.scored_tokens};
}

}  // namespace

struct Engine::State {
  EngineConfig config;
  Isa isa;
  ThreadPool pool;

  Progress progress() const {
    if (!config.progress) return {};
    return [this](const ProgressEvent& e) {
      config.progress(e.phase, e.done, e.total, e.detail);
    };
  }
  void log(const std::string& line) const {
    if (config.log) config.log(line);
  }
};

struct Model::State {
  ThreadPool* pool;  // the engine's
  Progress progress;
  std::string path;
  ModelSource source;
  std::unique_ptr<Decoder> decoder;
  ModelSize size;
};

std::string version() { return LLMPRESS_VERSION; }

Engine::Engine(EngineConfig config) {
  const std::size_t threads = config.threads;
  const Isa isa = choose_isa(config.isa);
  state_.reset(new State{std::move(config), isa, ThreadPool(threads)});
}
Engine::~Engine() = default;

Model Engine::open(const std::filesystem::path& model) const {
  auto state = std::make_unique<Model::State>(
      Model::State{.pool = &state_->pool,
                   .progress = state_->progress(),
                   .path = model.string(),
                   .source = open_model(model, PackedLinears::kReadLater),
                   .decoder = nullptr,
                   .size = {}});
  const Checkpoint& checkpoint = *state->source.checkpoint;
  for (const std::string& note : checkpoint.notes()) state_->log(note);
  state->decoder = std::make_unique<Decoder>(
      checkpoint, Decoder::Options{.isa = state_->isa,
                                   .progress = state_->progress(),
                                   .pool = &state_->pool});
  state->size = measure_model(checkpoint, *state->source.arch);
  return Model(std::move(state));
}

RunResult Engine::run(const std::filesystem::path& recipe,
                      const RecipeChanges& changes) const {
  const Recipe loaded = load_recipe(
      recipe,
      {.set = changes.set, .model = changes.model, .output = changes.output});
  const Isa isa =
      state_->config.isa.empty() ? choose_isa(loaded.isa) : state_->isa;
  const RunReport report = run_recipe(
      loaded,
      {.isa = isa,
       .resume = changes.resume,
       .memory_limit = changes.memory_limit,
       .progress = state_->progress(),
       .log = [this](const std::string& line) { state_->log(line); }},
      state_->pool);
  RunResult result{.report_json = to_json(report)};
  for (const VariantReport& v : report.variants) {
    result.artifacts.push_back({.name = v.name,
                                .path = v.output,
                                .weight_bytes = v.size.weight_bytes,
                                .bits_per_weight = v.size.bits_per_weight()});
    if (v.evaluation) {
      result.artifacts.back().perplexity = perplexity_of(*v.evaluation);
    }
  }
  return result;
}

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;
Model::~Model() = default;

std::size_t Model::layers() const { return state_->source.arch->layers; }
std::size_t Model::hidden_size() const { return state_->source.arch->hidden; }
std::size_t Model::vocabulary_size() const {
  return state_->source.arch->vocabulary;
}
std::size_t Model::weight_bytes() const { return state_->size.weight_bytes; }

std::vector<std::uint32_t> Model::encode(std::string_view text) const {
  return state_->source.tokenizer->encode_document(text);
}

std::string Model::decode(std::span<const std::uint32_t> ids) const {
  return state_->source.tokenizer->decode(ids);
}

std::vector<float> Model::logits(std::span<const std::uint32_t> ids) const {
  if (ids.empty()) return {};
  const Decoder& decoder = *state_->decoder;
  ThreadPool& pool = *state_->pool;
  const Segment all{ids.size(), 0, nullptr};
  const MatrixF hidden = decoder.forward(ids, {&all, 1}, pool);
  const MatrixF logits = decoder.ends().logits(hidden.view(), pool);
  return {logits.data().begin(), logits.data().end()};
}

std::string Model::generate(
    std::string_view prompt, const GenerationOptions& options,
    const std::function<void(std::uint32_t)>& on_token) const {
  const Tokenizer& tokenizer = *state_->source.tokenizer;
  std::vector<TokenId> ids = tokenizer.encode_document(prompt);
  GenerationConfig config{.max_new_tokens = options.max_new_tokens,
                          .temperature = options.temperature,
                          .top_k = options.top_k,
                          .top_p = options.top_p,
                          .repetition_penalty = options.repetition_penalty,
                          .seed = options.seed};
  if (options.stop_at_end_of_text) {
    config.stop = stop_tokens(state_->source, state_->path);
  }
  const GenerationResult result = llmpress::generate(
      *state_->decoder, ids, config, *state_->pool, on_token);
  // Decoded together: a token may be part of a character.
  if (tokenizer.adds_bos) ids.erase(ids.begin());
  const std::size_t prompt_bytes = tokenizer.decode(ids).size();
  ids.insert(ids.end(), result.tokens.begin(), result.tokens.end());
  return tokenizer.decode(ids).substr(prompt_bytes);
}

PerplexityResult Model::perplexity(const std::filesystem::path& text,
                                   std::size_t context,
                                   std::size_t max_windows) const {
  const EvaluationText loaded =
      load_evaluation_text(text, *state_->source.tokenizer);
  return perplexity_of(evaluate(
      {.name = state_->path,
       .decoder = state_->decoder.get(),
       .size = state_->size},
      loaded, {.text = text, .context = context, .max_windows = max_windows},
      *state_->pool, state_->progress));
}

}  // namespace llmpress
