// What is in a model or artifact, and whether it is sound.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/model/decoder.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// A Linear of the blocks, or another tensor that stands for itself.
struct InspectedTensor {
  std::string name{};
  std::string type{};  // "int4 g32 asym", "F32"
  std::vector<std::size_t> shape{};
  std::size_t bytes = 0;
  double bits_per_weight = 0;
  double sparsity = 0;
  bool linear = false;
};

struct Inspection {
  std::string path{}, format{}, model_type{};
  std::vector<InspectedTensor> tensors{};
  ModelSize size{};
  std::string chat_template{};  // the file that has it; empty: there is none
};

Inspection inspect(const Checkpoint& checkpoint, const Architecture& arch);
std::string to_json(const Inspection& inspection);

// One Linear of an artifact beside the base's.
struct VerifiedLinear {
  std::string name{}, type{};
  // |W - W_base|_F / |W_base|_F, W_base with the scales and rotations that
  // stages moved (artifact_base.h); absent without a base.
  std::optional<double> relative_error{};
};

struct Verification {
  std::string path{};
  std::size_t tensors = 0;
  std::vector<VerifiedLinear> linears{};
  // Relative errors near 1 say that a weight has nothing to do with the base's,
  // unless it is sparse and close to the base's where it is not zero.
  std::vector<std::string> problems{};
  std::vector<std::string> notes{};  // how errors were measured
};

// Reads every tensor: structure, shapes, finite scales and values. Throws Error
// for the first file that cannot be read; what can be read but is wrong is in
// `problems`. `base` may be null.
Verification verify(const Checkpoint& checkpoint, const Architecture& arch,
                    const Checkpoint* base, ThreadPool& pool,
                    const Progress& progress = {});

}  // namespace llmpress
