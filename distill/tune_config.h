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
};

struct TuneConfig {
  AdapterKind method = AdapterKind::kLora;
  std::size_t rank = 8;
  double alpha = 16;
  std::size_t seed = 0;  // of A

  double scaling() const;
  bool operator==(const TuneConfig&) const = default;
};

std::span<const Setting<TuneConfig>> tune_settings();

}  // namespace llmpress
