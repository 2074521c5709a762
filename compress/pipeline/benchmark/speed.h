// How fast a model runs on this machine, beside what the machine can do.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/kernels/machine_limits.h"
#include "compress/model/decoder.h"

namespace llmpress {

struct SpeedConfig {
  std::vector<std::size_t> prompts{512};  // tokens; a row of the table each
  std::size_t generate = 64;              // tokens after one token; 0: none
  std::vector<std::size_t> batches{1};    // sequences side by side
  std::size_t repetitions = 5;
};

// Of tokens a second over the repetitions.
struct SpeedSpread {
  double median = 0, lowest = 0, highest = 0;
};

struct SpeedRow {
  enum class Kind { kPrompt, kGenerate };
  Kind kind = Kind::kPrompt;
  std::size_t tokens = 0;  // of each sequence
  std::size_t sequences = 1;
  SpeedSpread speed{};
  // Of the median, over what the machine can do: bytes of weights read for a
  // token over the read bandwidth for kGenerate of one sequence; operations of
  // the Linears over the float32 peak (the int8 peak where a model rounds its
  // activations) otherwise.
  double of_limit = 0;
};

struct SpeedReport {
  std::string model{}, processor{}, isa{};
  std::size_t threads = 0;
  MachineLimits limits{};
  double load_seconds = 0;         // checkpoint to prepared kernels
  double first_token_seconds = 0;  // a prompt of one token, the first call
  // Of the prepared weights that one token reads: of experts only the chosen
  // ones, of the embedding nothing.
  std::size_t bytes_per_token = 0;
  double operations_per_token = 0;  // two a weight of these
  bool integer_activations = false;
  std::size_t weight_bytes = 0, cache_bytes_per_token = 0;
  std::size_t peak_memory_bytes = 0;
  std::vector<SpeedRow> rows{};
};

// Runs the rows one after another. Prompts longer than the model's positions
// are refused (kInvalidArgument). Throws Error(kCancelled) from `progress`.
SpeedReport measure_speed(const Decoder& decoder, const SpeedConfig& config,
                          Isa isa, ThreadPool& pool, const Progress& progress);

// "AMD EPYC 9R45", as the system names it; empty where it does not.
std::string processor_name();

std::string to_json(const SpeedReport& report);

}  // namespace llmpress
