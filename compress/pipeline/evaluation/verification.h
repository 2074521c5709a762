// Whether a model or artifact is sound: all that can be found wrong, not only
// what is found first.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/model/architecture.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// kError: the model computes something else than was meant, or nothing.
// kWarning: what somebody who made the file should look at.
// kNote: how something was measured, or which of two statements counts.
enum class FindingKind { kError, kWarning, kNote };

struct Finding {
  FindingKind kind = FindingKind::kError;
  std::string place{};  // a tensor, a module or a file; empty: the whole
  std::string message{};
};

// "error: model.layers.0.mlp.up_proj: scales[3] is not finite".
std::string to_line(const Finding& finding);

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
  std::vector<VerifiedLinear> linears{};  // of the blocks, that could be read
  std::vector<Finding> findings{};

  std::size_t count(FindingKind kind) const;
};

// Reads every tensor: structure, shapes, finite scales and values, zero points
// (zero_points.h), what config.json and the files say of each other, tensors
// that nothing reads, the tokenizer and its chat template. `base` may be null;
// with it, a relative error near 1 is an error unless the weight is sparse and
// close to the base's where it is not zero.
Verification verify(const Checkpoint& checkpoint, const Architecture& arch,
                    const Checkpoint* base, ThreadPool& pool,
                    const Progress& progress = {});

std::string to_json(const Verification& verification);

}  // namespace llmpress
