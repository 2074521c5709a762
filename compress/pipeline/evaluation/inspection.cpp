#include "compress/pipeline/evaluation/inspection.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "compress/model/block_weights.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/run/artifact_base.h"

namespace llmpress {
namespace {

double zero_fraction(const MatrixF& W) {
  return static_cast<double>(std::ranges::count(W.data(), 0.0f)) /
         static_cast<double>(std::max<std::size_t>(W.size(), 1));
}

// Of a block's Linear, by itself or in a stack.
bool is_part_of_linear(const std::string& tensor, const Architecture& arch) {
  const auto layer = layer_of(tensor, arch);
  return layer &&
         holds_linear(arch.block(*layer),
                      tensor.substr(arch.block_name(*layer).size() + 1));
}

// |A - B|_F / |B|_F; 0 for two zero matrices.
double relative_distance(const MatrixF& A, const MatrixF& B) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < A.size(); ++i) {
    const double a = A.data()[i], b = B.data()[i];
    difference += (a - b) * (a - b);
    norm += b * b;
  }
  if (difference == 0) return 0;
  return norm == 0 ? INFINITY : std::sqrt(difference / norm);
}

// The same where A is not 0, or infinite if it is 0 everywhere.
double distance_of_kept(const MatrixF& A, const MatrixF& B) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < A.size(); ++i) {
    const double a = A.data()[i], b = B.data()[i];
    if (a == 0) continue;
    difference += (a - b) * (a - b);
    norm += b * b;
  }
  return norm == 0 ? INFINITY : std::sqrt(difference / norm);
}

// Errors of an artifact's Linears against a base, block by block.
class BaseComparison {
 public:
  BaseComparison(const Checkpoint* base, const Architecture& arch,
                 Verification& result)
      : base_(base), arch_(arch), result_(result) {}

  // Of the block whose Linears are the last of the result's.
  void add(std::size_t layer, const BlockWeights& block) {
    if (base_ == nullptr || !same_shapes(layer, block)) return;
    const UnroundedBlock wanted = unrounded_block(
        read_block(*base_, arch_, layer), block, arch_.block(layer));
    for (const std::string& source : wanted.moved) ++moved_[source];
    const std::size_t first = result_.linears.size() - block.linears.size();
    for (std::size_t l = 0; l < block.linears.size(); ++l) {
      compare(dequantize(block.linears[l].weight), wanted.linears[l],
              result_.linears[first + l]);
    }
  }

  void finish() {
    for (const auto& [source, blocks] : moved_) {
      result_.notes.push_back(formatted(
          "scales were moved from {} into the Linears behind it in {} of {} "
          "blocks; errors are those of rounding the moved weights",
          source, blocks, arch_.layers));
    }
  }

 private:
  bool same_shapes(std::size_t layer, const BlockWeights& block) {
    bool same = true;
    for (std::size_t l = 0; l < block.linears.size(); ++l) {
      const PackedWeight& found = block.linears[l].weight;
      const PackedWeight base =
          read_block_linear(*base_, arch_, layer, l).weight;
      if (rows_of(base) == rows_of(found) && cols_of(base) == cols_of(found)) {
        continue;
      }
      result_.problems.push_back(arch_.linear_name(layer, l) +
                                 ": shape differs from the base's");
      same = false;
    }
    return same;
  }

  void compare(const MatrixF& found, const MatrixF& wanted,
               VerifiedLinear& linear) {
    constexpr double kUnrelated = 0.9;
    linear.relative_error = relative_distance(found, wanted);
    if (*linear.relative_error < kUnrelated ||
        distance_of_kept(found, wanted) < kUnrelated) {
      return;
    }
    result_.problems.push_back(formatted(
        "{}: relative error {:.4g} against the base; this is not its weight",
        linear.name, *linear.relative_error));
  }

  const Checkpoint* base_;
  const Architecture& arch_;
  Verification& result_;
  std::map<std::string, std::size_t> moved_;  // source -> blocks
};

}  // namespace

Inspection inspect(const Checkpoint& checkpoint, const Architecture& arch) {
  Inspection inspection{.path = checkpoint.path().string(),
                        .format = std::string(checkpoint.format()),
                        .model_type = arch.model_type,
                        .size = measure_model(checkpoint, arch)};
  for (const TensorInfo& info : checkpoint.tensors().tensors()) {
    if (is_part_of_linear(info.name, arch)) continue;
    std::size_t elements = 1;
    for (const std::size_t d : info.shape) elements *= d;
    inspection.tensors.push_back(
        {.name = info.name,
         .type = std::string(facts(info.dtype).name),
         .shape = info.shape,
         .bytes = info.bytes,
         .bits_per_weight = elements == 0
                                ? 0
                                : 8.0 * static_cast<double>(info.bytes) /
                                      static_cast<double>(elements)});
  }
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
      const PackedWeight weight =
          read_block_linear(checkpoint, arch, layer, l).weight;
      inspection.tensors.push_back(
          {.name = arch.linear_name(layer, l),
           .type = describe(weight),
           .shape = {rows_of(weight), cols_of(weight)},
           .bytes = stored_bytes(weight),
           .bits_per_weight = bits_per_weight(weight),
           .sparsity = zero_fraction(dequantize(weight)),
           .linear = true});
    }
  }
  return inspection;
}

std::string to_json(const Inspection& inspection) {
  nlohmann::ordered_json tensors = nlohmann::ordered_json::array();
  for (const InspectedTensor& t : inspection.tensors) {
    tensors.push_back({{"name", t.name},
                       {"type", t.type},
                       {"shape", t.shape},
                       {"bytes", t.bytes},
                       {"bits_per_weight", t.bits_per_weight},
                       {"sparsity", t.sparsity},
                       {"linear", t.linear}});
  }
  const ModelSize& size = inspection.size;
  return nlohmann::ordered_json(
             {{"path", inspection.path},
              {"format", inspection.format},
              {"model_type", inspection.model_type},
              {"chat_template", !inspection.chat_template.empty()},
              {"weight_bytes", size.weight_bytes},
              {"weights", size.weights},
              {"bits_per_weight", size.bits_per_weight()},
              {"linear_bytes", size.linear_bytes},
              {"linear_weights", size.linear_weights},
              {"linear_bits_per_weight", size.linear_bits_per_weight()},
              {"tensors", std::move(tensors)}})
      .dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

Verification verify(const Checkpoint& checkpoint, const Architecture& arch,
                    const Checkpoint* base, ThreadPool& pool,
                    const Progress& progress) {
  check_model(checkpoint, arch);
  Verification result{.path = checkpoint.path().string(),
                      .tensors = checkpoint.tensors().tensors().size()};
  std::optional<ArtifactBase> origin;
  if (base != nullptr) {
    origin.emplace(checkpoint, *base, pool);
    result.notes = origin->notes();
  }
  BaseComparison comparison(origin ? origin->checkpoint() : nullptr, arch,
                            result);
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    report(progress, {.phase = "verify",
                      .done = layer,
                      .total = arch.layers,
                      .detail = arch.block_name(layer)});
    const BlockWeights block = read_block(checkpoint, arch, layer);
    for (std::size_t l = 0; l < block.linears.size(); ++l) {
      const std::string name = arch.linear_name(layer, l);
      check(block.linears[l].weight, name);
      result.linears.push_back(
          {.name = name, .type = describe(block.linears[l].weight)});
    }
    comparison.add(layer, block);
  }
  comparison.finish();
  report(progress,
         {.phase = "verify", .done = arch.layers, .total = arch.layers});
  return result;
}

}  // namespace llmpress
