#include "compress/pipeline/training/learning_parts.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace llmpress {
namespace {

std::set<std::string> norm_names(const Architecture& arch) {
  std::set<std::string> names{arch.final_norm, arch.embedding_norm,
                              arch.layer_inputs.norm};
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (const NormSpec& norm : arch.block(layer).norms) {
      names.insert(arch.block_name(layer) + "." + norm.name);
    }
  }
  return names;
}

bool belongs(const std::string& tensor, LearningPart part,
             const std::set<std::string>& norms) {
  switch (part) {
    case LearningPart::kScales:
      return tensor.ends_with(".weight_scale");
    case LearningPart::kZeros:
      return tensor.ends_with(".weight_zero_point");
    case LearningPart::kNorms:
      return norms.contains(tensor.substr(0, tensor.rfind('.')));
    case LearningPart::kBiases:
      return tensor.ends_with(".bias");
  }
  return false;
}

}  // namespace

LearningChoice parts_that_learn(std::span<const LearningPart> parts,
                                const Architecture& arch) {
  if (parts.empty()) return {};
  return [named = std::vector(parts.begin(), parts.end()),
          norms = norm_names(arch)](const std::string& tensor) {
    return std::ranges::any_of(
        named, [&](LearningPart part) { return belongs(tensor, part, norms); });
  };
}

}  // namespace llmpress
