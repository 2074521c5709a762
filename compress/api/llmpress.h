// The C++ interface of llmpress, for programs that link it:
//
//   find_package(llmpress REQUIRED)
//   target_link_libraries(my_program PRIVATE llmpress::llmpress)
//
//   #include <llmpress/llmpress.h>
//   llmpress::Engine engine;
//   const auto result = engine.run("w4a16_gptq.yaml", {.model = "my-model"});
//   const auto model = engine.open(result.artifacts[0].path);
//   std::cout << model.perplexity("text.txt").perplexity;
//
// Whatever a user, a file or a recipe can cause is an llmpress::Error
// (compress/core/error.h); bugs are other exceptions. Nothing is printed.
// Tensors are row-major float32. An engine and what it opened belong to one
// thread at a time; the engine spreads work over threads of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/error.h"

namespace llmpress {

// "0.1.0".
LLMPRESS_API std::string version();

struct EngineConfig {
  std::size_t threads = 0;  // 0: one for each processor
  // Instruction set of the kernels, for the whole process: "scalar", "avx2",
  // "avx512-vnni"; empty: the best there is.
  std::string isa{};
  // Called now and then while work goes on: "quantize", 3 of 22,
  // "model.layers.2". What it throws ends the work.
  std::function<void(std::string_view phase, std::size_t done,
                     std::size_t total, std::string_view detail)>
      progress{};
  std::function<void(const std::string& line)> log{};  // notes for people
};

// What the key of the same name in a recipe says; empty: the recipe's own.
struct RecipeChanges {
  std::filesystem::path model{}, output{};
  // "stages.0.quantize.weights.bits=3"; paths are relative to the recipe.
  std::vector<std::string> set{};
  bool resume = true;  // go on from the finished blocks of an interrupted run
  std::uint64_t memory_limit = 0;  // bytes; 0: none
};

struct PerplexityResult {
  double nll = 0, perplexity = 0, standard_error = 0;
  std::size_t scored_tokens = 0;
};

struct ArtifactResult {
  std::string name{};
  std::filesystem::path path{};
  std::size_t weight_bytes = 0;
  double bits_per_weight = 0;                    // over all weights
  std::optional<PerplexityResult> perplexity{};  // where the recipe evaluates
};

struct RunResult {
  std::vector<ArtifactResult> artifacts{};
  std::string report_json{};  // docs/cli.md, `run --json`
};

struct GenerationOptions {
  std::size_t max_new_tokens = 128;
  double temperature = 0;  // 0: greedy
  std::size_t top_k = 0;   // 0: off
  double top_p = 1;
  double repetition_penalty = 1;
  std::uint64_t seed = 0;
  bool stop_at_end_of_text = true;
};

// A checkpoint or artifact in memory, in its packed form.
class LLMPRESS_API Model {
 public:
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;
  ~Model();

  std::size_t layers() const;
  std::size_t hidden_size() const;
  std::size_t vocabulary_size() const;
  std::size_t weight_bytes() const;

  // With BOS in front if the tokenizer adds one.
  std::vector<std::uint32_t> encode(std::string_view text) const;
  std::string decode(std::span<const std::uint32_t> ids) const;

  // [ids.size(), vocabulary_size()].
  std::vector<float> logits(std::span<const std::uint32_t> ids) const;

  // The text that follows `prompt`; `on_token` sees each new token's id.
  std::string generate(
      std::string_view prompt, const GenerationOptions& options = {},
      const std::function<void(std::uint32_t)>& on_token = {}) const;

  // GPTQ's protocol: non-overlapping windows of `context` tokens, the first
  // `max_windows` of them (0: all). `text` is plain text, JSONL or HDF5 ids.
  PerplexityResult perplexity(const std::filesystem::path& text,
                              std::size_t context = 2048,
                              std::size_t max_windows = 0) const;

 private:
  friend class Engine;
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Threads and instruction set, shared by all that it does. Models that it
// opened must not outlive it.
class LLMPRESS_API Engine {
 public:
  explicit Engine(EngineConfig config = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  Model open(const std::filesystem::path& model) const;
  // Carries out a recipe file, as `llmpress run` does.
  RunResult run(const std::filesystem::path& recipe,
                const RecipeChanges& changes = {}) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llmpress
