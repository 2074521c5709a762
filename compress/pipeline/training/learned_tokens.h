// The virtual tokens of a `tune` stage: what they begin as, and what they
// learned.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"
#include "compress/model/architecture.h"
#include "compress/model/kv_prefix.h"
#include "compress/model/training/parameter.h"
#include "distill/tune_config.h"
#include "formats/adapters/virtual_tokens.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

struct TokensStart {
  const TuneConfig* config = nullptr;
  const Checkpoint* base = nullptr;
  const Architecture* arch = nullptr;
  std::span<const TokenId> text{};
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
};

// By layer. VirtualStart::kText: keys and values that the model has of the
// first tokens of the text, which the paper finds better than random ones
// (arXiv:2101.00190, section 7.4).
std::vector<BlockPrefix> first_prefix(const TokensStart& start);
// [virtual tokens, hidden]; kText: rows of their embedding.
MatrixF first_prompt(const TokensStart& start);

// As PEFT stores them.
VirtualTokens learned_prefix(std::span<const Parameter> parameters,
                             const Architecture& arch);
VirtualTokens learned_prompt(std::span<const Parameter> parameters,
                             const Architecture& arch);

}  // namespace llmpress
