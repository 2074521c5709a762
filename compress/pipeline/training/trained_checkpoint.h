// A model with what it learned, written as a checkpoint that later stages read
// like any other: dense, or with the Linears packed that learned as codes.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "compress/core/progress.h"
#include "compress/model/training/trainable_model.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

struct TrainedCheckpointJob {
  const Checkpoint* student = nullptr;  // that training began with
  TrainableModel* model = nullptr;
  std::filesystem::path output{};
  std::map<std::string, std::string> files{};  // by name, beside the model
  Progress progress{};
};

// Whole or not at all. Dense tensors keep their types.
void write_trained(const TrainedCheckpointJob& job);

}  // namespace llmpress
