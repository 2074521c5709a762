// Checkpoints of training as files, one a name:
//
//   <directory>/<name>.safetensors   weights and the optimizer's states in
//                                    float32 (or as 8-bit codes), in order;
//                                    the progress as JSON in its metadata
#pragma once

#include <filesystem>
#include <string>

#include "distill/trainer.h"

namespace llmpress {

class FileTrainingStore final : public TrainingStore {
 public:
  explicit FileTrainingStore(std::filesystem::path directory);
  // Throws Error(kIo).
  void save(const std::string& name, const TrainingProgress& progress,
            std::span<const Parameter> parameters,
            std::span<const OptimizerState> states) override;
  // Throws Error(kCorruptFile) for a file that does not fit the model.
  bool load(const std::string& name, TrainingProgress& progress,
            std::span<const Parameter> parameters,
            std::span<OptimizerState> states) override;

 private:
  std::filesystem::path path_of(const std::string& name) const;
  std::filesystem::path directory_;
};

}  // namespace llmpress
