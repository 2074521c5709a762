#include "distill/memory_store.h"

#include <algorithm>

namespace llmpress {

void MemoryStore::save(const std::string& name,
                       const TrainingProgress& progress,
                       std::span<const Parameter> parameters,
                       std::span<const OptimizerState> states) {
  Saved& to = saved_[name];
  to.progress = progress;
  to.values.clear();
  for (const Parameter& p : parameters) {
    to.values.emplace_back(p.value.begin(), p.value.end());
  }
  to.states.assign(states.begin(), states.end());
}

bool MemoryStore::load(const std::string& name, TrainingProgress& progress,
                       std::span<const Parameter> parameters,
                       std::span<OptimizerState> states) {
  const auto found = saved_.find(name);
  if (found == saved_.end()) return false;
  progress = found->second.progress;
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    std::ranges::copy(found->second.values[p], parameters[p].value.begin());
  }
  std::ranges::copy(found->second.states, states.begin());
  return true;
}

}  // namespace llmpress
