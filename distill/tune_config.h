// Which adapter is trained beside a frozen model: one table row a setting
// (setting.h). How it is trained is TrainConfig's.
#pragma once

#include <cstddef>
#include <span>

#include "compress/core/setting.h"
#include "compress/kernels/activations.h"

namespace llmpress {

enum class AdapterKind {
  kLora,         // arXiv:2106.09685, B A scaled by alpha / rank
  kRsLora,       // arXiv:2312.03732, by alpha / sqrt(rank)
  kDora,         // arXiv:2402.09353, as LoRA, and a norm of every row
  kPrefix,       // arXiv:2101.00190, keys and values before every text
  kPrompt,       // arXiv:2104.08691, rows of the stream before every text
  kBottleneck,   // arXiv:1902.00751, small MLPs behind Linears
  kDiffPruning,  // arXiv:2012.07463, a sparse difference of the weights
};

// What virtual tokens begin as.
enum class VirtualStart {
  kText,    // what the model makes of the first tokens of the text
  kRandom,  // normal numbers of deviation 1, as PEFT begins
};

// Behind which of the Linears that add to the stream bottlenecks stand.
enum class BottleneckPlace {
  kHoulsby,   // all: attention's and the MLP's (arXiv:1902.00751)
  kPfeiffer,  // the MLP's (arXiv:2005.00052)
};

struct TuneConfig {
  AdapterKind method = AdapterKind::kLora;
  std::size_t rank = 8;
  double alpha = 16;
  std::size_t seed = 0;  // of what begins at random
  std::size_t virtual_tokens = 16;
  VirtualStart start = VirtualStart::kText;
  std::size_t bottleneck_size = 32;
  Activation activation = Activation::kRelu;
  BottleneckPlace placement = BottleneckPlace::kHoulsby;
  double keep = 0.01;     // of the numbers of the weights that may differ
  double penalty = 1;     // of open gates
  double gate_rate = 10;  // times the learning rate

  // Factors beside Linears: what LoraConfig says.
  bool is_low_rank() const;
  // Tokens before every text.
  bool is_virtual() const;

  double scaling() const;
  bool operator==(const TuneConfig&) const = default;
};

std::span<const Setting<TuneConfig>> tune_settings();

}  // namespace llmpress
