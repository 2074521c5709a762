// The adapter of a `tune` stage, whatever its method: made before training,
// written after it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"
#include "compress/model/architecture.h"
#include "compress/model/training/difference_linear.h"
#include "compress/model/training/trainable_block.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/tokenizers/tokenizer.h"
#include "recipes/recipe.h"

namespace llmpress {

// Throws Error with the stage's place for what is known to fail before
// training: as adapters_of(), or kUnsupported for virtual tokens that the model
// cannot have.
void check_adapter(const TuneStage& stage, const Architecture& arch);

// Numbers of an adapter that check_adapter() let pass.
std::size_t adapter_numbers(const TuneStage& stage, const Architecture& arch);

// Whether the adapter can become a part of the model's weights.
bool can_be_merged(AdapterKind kind);

struct AdapterStart {
  const TuneStage* stage = nullptr;
  const Checkpoint* base = nullptr;
  const Architecture* arch = nullptr;
  std::span<const TokenId> text{};  // of which virtual tokens may begin
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
  // Filled in with those of the model when it is made; must outlive that.
  std::vector<DifferenceLinear*>* differences = nullptr;
};

// Adds the adapter to what learns. Throws Error(kInvalidInput) for a text
// shorter than the virtual tokens.
void add_adapter(const AdapterStart& start, ModelLearning& learning);

// Numbers of all Linears that a difference may keep.
std::size_t kept_numbers(const TuneStage& stage, const Architecture& arch);

struct LearnedAdapter {
  const TuneStage* stage = nullptr;
  const Architecture* arch = nullptr;
  std::span<const Parameter> parameters{};
  std::string base_model{};
  std::map<std::string, std::string> files{};  // by name, beside the adapter
};
// A folder that `--adapter` takes; whole or not at all.
void write_learned_adapter(const LearnedAdapter& adapter,
                           const std::filesystem::path& output);

}  // namespace llmpress
