#include "compress/pipeline/inspection.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "compress/core/error.h"

namespace llmpress {
namespace {

double zero_fraction(const MatrixF& W) {
  return static_cast<double>(std::ranges::count(W.data(), 0.0f)) /
         static_cast<double>(std::max<std::size_t>(W.size(), 1));
}

bool part_of_linear(const std::string& tensor, const std::string& linear) {
  return tensor.starts_with(linear + ".");
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

}  // namespace

Inspection inspect(const Checkpoint& checkpoint, const Architecture& arch) {
  Inspection inspection{.path = checkpoint.path().string(),
                        .format = std::string(checkpoint.format()),
                        .model_type = arch.model_type,
                        .size = measure_model(checkpoint, arch)};
  const std::vector<std::string> names = arch.linear_names();
  for (const TensorInfo& info : checkpoint.tensors().tensors()) {
    const bool covered = std::ranges::any_of(names, [&](const auto& name) {
      return part_of_linear(info.name, name);
    });
    if (covered) continue;
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
  for (const std::string& name : names) {
    const LinearWeights linear = checkpoint.read_linear(name);
    inspection.tensors.push_back(
        {.name = name,
         .type = describe(linear.weight),
         .shape = {rows_of(linear.weight), cols_of(linear.weight)},
         .bytes = stored_bytes(linear.weight),
         .bits_per_weight = bits_per_weight(linear.weight),
         .sparsity = zero_fraction(dequantize(linear.weight)),
         .linear = true});
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
                    const Checkpoint* base, const Progress& progress) {
  check_model(checkpoint, arch);
  Verification result{.path = checkpoint.path().string(),
                      .tensors = checkpoint.tensors().tensors().size()};
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    (void)read_block(checkpoint, arch, layer);  // norms and shapes
  }
  const std::vector<std::string> names = arch.linear_names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    report(progress, {.phase = "verify",
                      .done = i,
                      .total = names.size(),
                      .detail = names[i]});
    const LinearWeights linear = checkpoint.read_linear(names[i]);
    check(linear.weight, names[i]);
    VerifiedLinear verified{.name = names[i], .type = describe(linear.weight)};
    if (base != nullptr) {
      const MatrixF wanted = dequantize(base->read_linear(names[i]).weight);
      const MatrixF found = dequantize(linear.weight);
      if (wanted.rows() != found.rows() || wanted.cols() != found.cols()) {
        result.problems.push_back(names[i] + ": shape differs from the base's");
      } else {
        verified.relative_error = relative_distance(found, wanted);
        if (*verified.relative_error > 1) {
          result.problems.push_back(
              names[i] + ": relative error " +
              std::to_string(*verified.relative_error) +
              " against the base; this is not the same weight");
        }
      }
    }
    result.linears.push_back(std::move(verified));
  }
  report(progress,
         {.phase = "verify", .done = names.size(), .total = names.size()});
  return result;
}

}  // namespace llmpress
