#include "compress/pipeline/training/learned_weights.h"

#include <algorithm>
#include <cassert>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace llmpress {
namespace {

using Values = std::map<std::string, std::span<const float>>;

// Moves the weight and bias of a Linear from `values` to `edits`.
void take_linear(const std::string& name, Values& values,
                 CheckpointEdits& edits) {
  const auto weight = values.find(name + ".weight");
  if (weight == values.end()) return;
  std::span<const float> bias;
  if (const auto found = values.find(name + ".bias"); found != values.end()) {
    bias = found->second;
    edits.biases.insert(name);
    values.erase(found);
  }
  edits.linears[name] = [w = weight->second, bias](MatrixF& W,
                                                   LinearWeights& linear) {
    assert(w.size() == W.size());
    std::ranges::copy(w, W.data().begin());
    if (!bias.empty()) linear.bias.assign(bias.begin(), bias.end());
  };
  values.erase(weight);
}

}  // namespace

CheckpointEdits learned_weights(const Architecture& arch,
                                std::span<const Parameter> parameters) {
  Values values;
  for (const Parameter& parameter : parameters) {
    values[parameter.name] = parameter.value;
  }
  CheckpointEdits edits{.arch = &arch};
  for (const std::string& linear : arch.linear_names()) {
    take_linear(linear, values, edits);
  }
  for (const auto& [name, value] : values) {
    edits.tensors[name] = [v = value](MatrixF& rows) {
      assert(v.size() == rows.size());
      std::ranges::copy(v, rows.data().begin());
    };
  }
  return edits;
}

}  // namespace llmpress
