// A LoRA adapter from two checkpoints of one architecture: each Linear's
// difference, as far as a rank or an energy reaches (lora/extract.h), written
// as a PEFT folder. What is changed but is no Linear, or not within the rank,
// is reported, never passed over in silence.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "compress/core/dtype.h"
#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/model/architecture.h"
#include "formats/checkpoints/checkpoint.h"
#include "lora/extract.h"

namespace llmpress {

struct AdapterExtractOptions {
  std::filesystem::path output{};
  ExtractConfig config{};
  DType dtype = DType::kF32;  // of the adapter's tensors
  // Changed tensors that are no Linear of a block (embedding, head, norms) and
  // changed biases go into the adapter whole, as modules_to_save and biases.
  bool save_others = false;
  Progress progress{};
};

struct ExtractedLayer {
  std::string name{};
  std::size_t out = 0, in = 0;
  std::size_t rank = 0;  // 0: unchanged
  // |W' - W|_F, the same over |W|_F, and the part of its square that the
  // factors keep.
  double change_norm = 0, relative_change = 0, captured_energy = 1;
};

struct ExtractReport {
  std::vector<ExtractedLayer> layers{};  // Linears of the blocks
  std::vector<std::string> saved{};      // whole, because save_others
  std::vector<std::string> left_out{};   // changed, and not in the adapter
  // Of all Linears together.
  double captured_energy = 1;
};

// `arch` of both. Throws Error(kInvalidInput) if a shape or the architectures
// differ or nothing does, kNumeric if a weight is not finite.
ExtractReport extract_adapter(const Checkpoint& base, const Checkpoint& tuned,
                              const Architecture& arch,
                              const AdapterExtractOptions& options,
                              ThreadPool& pool);

std::string to_json(const ExtractReport& report);

}  // namespace llmpress
