#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace llmpress {

// Numbers of a model that learn, wherever they lie, and their gradient.
struct Parameter {
  std::string name{};  // as its tensor: "model.layers.0.mlp.up_proj.weight"
  std::vector<std::size_t> shape{};
  std::span<float> value{}, gradient{};  // of the product of the shape
};

}  // namespace llmpress
