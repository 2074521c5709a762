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

// The values of that name, taken out; empty: there are none.
std::span<const float> take(const std::string& name, Values& values) {
  const auto found = values.find(name);
  if (found == values.end()) return {};
  const std::span<const float> taken = found->second;
  values.erase(found);
  return taken;
}

// Moves the weight and bias of a Linear from `values` to `edits`.
void take_linear(const std::string& name, Values& values,
                 CheckpointEdits& edits) {
  const auto weight = take(name + ".weight", values);
  const auto bias = take(name + ".bias", values);
  if (weight.empty() && bias.empty()) return;
  if (!bias.empty()) edits.biases.insert(name);
  edits.linears[name] = [weight, bias](MatrixF& W, LinearWeights& linear) {
    assert(weight.empty() || weight.size() == W.size());
    if (!weight.empty()) std::ranges::copy(weight, W.data().begin());
    if (!bias.empty()) linear.bias.assign(bias.begin(), bias.end());
  };
}

}  // namespace

CheckpointEdits learned_weights(const Architecture& arch,
                                std::span<const Parameter> parameters,
                                const PackedByName& packed) {
  Values values;
  for (const Parameter& parameter : parameters) {
    const std::string& name = parameter.name;
    if (packed.contains(name.substr(0, name.rfind('.')))) continue;
    values[name] = parameter.value;
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
