// Experts as mlx-lm stores them: the tensors of a Linear of all experts in one,
// [experts, ...] in front of each shape:
//   model.layers.0.mlp.experts.3.gate_proj.scales        of transformers
//   model.layers.0.mlp.switch_mlp.gate_proj.scales [3]   here
// Which models have them, and how their modules are called, is one row a
// model_type; other models that mlx-lm changes on loading in more ways are
// refused by name.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/containers/tensor_io.h"

namespace llmpress {

struct StackNames {
  std::string_view model_type;
  std::string_view module = "switch_mlp";
  bool numbered = false;  // transformers has w1, w3, w2 for gate, up, down
};

// Of config.json's model_type; nullptr: no experts, or none that are known.
const StackNames* find_stack_names(const std::string& config_json);

// `reader` gives the tensors of each expert under its own name. Throws
// Error(kUnsupported) for stacks of a model that is not known, kCorruptFile for
// tensors that are no stacks.
void unstack_experts(std::unique_ptr<TensorReader>& reader,
                     const std::string& config_json, const std::string& where);

// The module of the stack that the Linear of an expert lies in; nothing if it is
// of no expert.
struct ExpertPlace {
  std::string stack{};  // "model.layers.0.mlp.switch_mlp.gate_proj"
  std::size_t expert = 0;
};
std::optional<ExpertPlace> place_of_expert(const StackNames& names,
                                           std::string_view linear);

// Puts experts that come one by one into stacks, of one block at a time.
class ExpertStacker {
 public:
  using Put = std::function<void(const NamedTensor&)>;
  explicit ExpertStacker(Put put) : put_(std::move(put)) {}

  // `tensors` of the Linear `linear`, by the names that they have in it. Throws
  // Error(kUnsupported) if experts of a stack are not alike or come apart.
  void add(const ExpertPlace& place, const std::string& linear,
           const std::vector<NamedTensor>& tensors);
  void finish();  // what is gathered goes out

 private:
  void put_stack(const std::string& name, std::vector<NamedTensor>& experts);

  Put put_;
  std::string block_{};  // what is in front of the stacks that are gathered
  std::map<std::string, std::vector<NamedTensor>> stacks_{};
  std::vector<std::string> done_{};
};

}  // namespace llmpress
