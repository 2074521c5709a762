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
  // Times the learning rate: of what is measured in units of its own.
  float rate = 1;
  // Whether weight decay pulls it to 0, if it is a matrix: not what a weight is
  // measured by.
  bool decays = true;
};

}  // namespace llmpress
