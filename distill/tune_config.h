// Which adapter is trained beside a frozen model: one table row a setting
// (setting.h). How it is trained is TrainConfig's.
#pragma once

#include <cstddef>
#include <span>

#include "compress/core/setting.h"

namespace llmpress {

enum class AdapterKind {
  kLora,    // arXiv:2106.09685, B A scaled by alpha / rank
  kRsLora,  // arXiv:2312.03732, by alpha / sqrt(rank)
  kDora,    // arXiv:2402.09353, as LoRA, and a norm of every row
  kPrefix,  // arXiv:2101.00190, keys and values before every text
  kPrompt,  // arXiv:2104.08691, rows of the stream before every text
};

// What virtual tokens begin as.
enum class VirtualStart {
  kText,    // what the model makes of the first tokens of the text
  kRandom,  // normal numbers of deviation 1, as PEFT begins
};

struct TuneConfig {
  AdapterKind method = AdapterKind::kLora;
  std::size_t rank = 8;
  double alpha = 16;
  std::size_t seed = 0;  // of what begins at random
  std::size_t virtual_tokens = 16;
  VirtualStart start = VirtualStart::kText;

  // Factors beside Linears: what LoraConfig says.
  bool is_low_rank() const;
  // Tokens before every text.
  bool is_virtual() const;

  double scaling() const;
  bool operator==(const TuneConfig&) const = default;
};

std::span<const Setting<TuneConfig>> tune_settings();

}  // namespace llmpress
