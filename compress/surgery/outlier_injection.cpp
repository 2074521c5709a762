#include "compress/surgery/outlier_injection.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

// Indices of the `count` largest |gain|; of equal ones the first.
std::vector<std::size_t> largest(const std::vector<float>& gain,
                                 std::size_t count) {
  std::vector<std::size_t> order(gain.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    return std::abs(gain[a]) > std::abs(gain[b]);
  });
  order.resize(count);
  return order;
}

void scale_channels(MatrixF& rows, const std::vector<std::size_t>& channels,
                    float factor) {
  for (std::size_t r = 0; r < rows.rows(); ++r) {
    for (const std::size_t c : channels) rows(r, c) *= factor;
  }
}

}  // namespace

CheckpointEdits inject_outliers(const Checkpoint& checkpoint,
                                const Architecture& arch,
                                const InjectOutliersStage& stage) {
  if (stage.channels > arch.hidden) {
    fail(ErrorCode::kInvalidArgument, "{}: inject_outliers: {} channels of {}",
         stage.position.to_string(), stage.channels, arch.hidden);
  }
  const auto factor = static_cast<float>(stage.factor);
  CheckpointEdits edits{.arch = &arch};
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    const BlockSpec& block = arch.block(layer);
    for (const ScaleGroup& group : block.scale_groups) {
      if (group.source_norm.empty()) continue;
      const NormSpec& norm =
          *std::ranges::find(block.norms, group.source_norm, &NormSpec::name);
      const std::string name = arch.block_name(layer) + "." + norm.name;
      auto gain =
          read_vector(checkpoint.tensors(), name + ".weight", norm.width);
      for (float& g : gain) g += norm.offset;
      const auto channels = largest(gain, std::min(stage.channels, norm.width));
      edits.tensors[name + ".weight"] = [channels, factor,
                                         offset = norm.offset](MatrixF& gains) {
        for (float& g : gains.data()) g += offset;
        scale_channels(gains, channels, factor);
        for (float& g : gains.data()) g -= offset;
      };
      if (norm.bias) {
        edits.tensors[name + ".bias"] = [channels, factor](MatrixF& bias) {
          scale_channels(bias, channels, factor);
        };
      }
      for (const std::size_t consumer : group.consumers) {
        edits.linears[arch.linear_name(layer, consumer)] =
            [channels, factor](MatrixF& W, LinearWeights&) {
              scale_channels(W, channels, 1 / factor);
            };
      }
    }
  }
  return edits;
}

}  // namespace llmpress
