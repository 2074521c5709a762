// A checkpoint whose weights are changed as they are read, one tensor at a
// time: how stages that act on the whole model (rotations, merged adapters,
// injected outliers) run in bounded memory and in front of every other stage.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "compress/model/architecture.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// Shapes of tensors stay as they are; Linears come back in float32. A value
// that the type of its tensor does not hold is refused as the tensor is read.
struct CheckpointEdits {
  // Whose Linears `linears` names: those of its blocks may lie in a tensor that
  // holds several, or transposed (LinearStorage). Null: each has its own.
  // Must outlive the overlay.
  const Architecture* arch = nullptr;
  // By module path: W [out, in] and the rest of the Linear, changed in place.
  std::map<std::string, std::function<void(MatrixF& W, LinearWeights& linear)>>
      linears{};
  // Those among `linears` whose bias changes too.
  std::set<std::string> biases{};
  // By full name: a floating tensor that is no Linear (of 1 and of more than 2
  // dimensions: one row).
  std::map<std::string, std::function<void(MatrixF& values)>> tensors{};
  // Linears that the checkpoint does not have, with the type they are stored
  // in.
  struct Added {
    DType dtype = DType::kF32;
    std::size_t out = 0, in = 0;
    std::function<MatrixF()> make{};
  };
  std::map<std::string, Added> added_linears{};
  // In which changed tensors are given; absent: as they were stored.
  std::optional<DType> dtype{};
  std::string config_json{};  // empty: as it is
};

// `base` must outlive the overlay.
std::unique_ptr<Checkpoint> overlay(const Checkpoint& base,
                                    CheckpointEdits edits);

// config.json with `key` set to true or false, in the configuration of a wrapped
// decoder ("text_config") too if it stands there.
std::string with_flag(const std::string& config_json, const std::string& key,
                      bool value);

}  // namespace llmpress
