// The matrices of a checkpoint whose architecture is not known: what can be
// said of them by name and shape alone.
//
// `<module>.weight` [out, in], or the packed form of one, is taken for a Linear
// that a class or an expression selects, unless
//   its name has "embed" or ends in wte, wpe        an embedding
//   its name ends in lm_head or head                a head
//   a part of its name is router or gate, or the
//   last one shared_expert_gate                     a router
//   no part of its name is a number (of a block) and
//   it has as many rows as the vocabulary           an embedding or a head
// Those are selected by name alone. Never selected are norms (last name with
// "norm"), tables of biases (last name that ends in "bias"), matrices beside a
// bias that is not one number a row (they may be transposed), codes without
// scales, and tensors of three dimensions, of which no loader takes packed
// slices.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "compress/pipeline/run/stage_check.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

struct TensorModules {
  std::vector<Module> modules{};                  // by name
  std::map<std::string, std::string> reserved{};  // module -> "a router", ...
  std::map<std::string, std::string> passed{};    // tensor -> why no stage may

  // The module whose weight the tensor is a part of; its bias stands for
  // itself. nullptr: none.
  const Module* owner(std::string_view tensor) const;
};

// Throws Error(kUnsupported) for stored forms that mean nothing once
// quantization_config is written anew.
TensorModules find_modules(const Checkpoint& checkpoint);

}  // namespace llmpress
