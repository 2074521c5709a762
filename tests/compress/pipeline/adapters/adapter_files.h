// PEFT folders as a trainer would leave them, and what they mean, written
// without our own writer.
#pragma once

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/rng.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"
#include "tests/lora/random_lora.h"

namespace llmpress {

class AdapterFiles {
 public:
  // `config` members beside peft_type: "\"r\": 2, \"lora_alpha\": 4".
  explicit AdapterFiles(std::string config) : config_(std::move(config)) {}

  AdapterFiles& add(const std::string& name, std::vector<std::size_t> shape,
                    std::span<const float> values, DType dtype = DType::kF32) {
    tensors_.push_back(float_tensor("base_model.model." + name, dtype,
                                    std::move(shape), values));
    return *this;
  }
  AdapterFiles& linear(const std::string& module, const LoraDelta& delta) {
    matrix(module + ".lora_A.weight", delta.A);
    matrix(module + ".lora_B.weight", delta.B);
    if (!delta.magnitude.empty()) {
      vector(module + ".lora_magnitude_vector", delta.magnitude);
    }
    if (!delta.bias.empty()) vector(module + ".lora_B.bias", delta.bias);
    return *this;
  }
  AdapterFiles& embedding(const std::string& module, const LoraDelta& delta) {
    matrix(module + ".lora_embedding_A", delta.A);
    matrix(module + ".lora_embedding_B", delta.B);
    if (!delta.magnitude.empty()) {
      vector(module + ".lora_magnitude_vector", delta.magnitude);
    }
    return *this;
  }
  AdapterFiles& matrix(const std::string& name, const MatrixF& M) {
    return add(name, {M.rows(), M.cols()}, M.data());
  }
  AdapterFiles& vector(const std::string& name, std::span<const float> v) {
    return add(name, {v.size()}, v);
  }

  std::filesystem::path write(const std::filesystem::path& folder) const {
    std::filesystem::create_directories(folder);
    write_file_atomically(folder / "adapter_config.json",
                          "{\"peft_type\": \"LORA\", " + config_ + "}");
    write_file_atomically(folder / "adapter_model.safetensors",
                          write_safetensors(tensors_, {{"format", "pt"}}));
    return folder;
  }

 private:
  std::string config_;
  std::vector<NamedTensor> tensors_{};
};

// A of rank r and B of size 0.3, so that the change is of the size of the tiny
// models' weights.
inline LoraDelta sized_lora(std::size_t out, std::size_t in, std::size_t r,
                            double scaling, bool dora, Rng& rng) {
  LoraDelta delta = random_lora(out, in, r, dora, rng);
  for (float& b : delta.B.data()) b *= 0.3f;
  delta.scaling = scaling;
  return delta;
}

// |a - b| over the largest |b|.
inline double relative_difference(const MatrixF& a, const MatrixF& b) {
  double largest = 0, difference = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(b.data()[i])));
    difference = std::max(
        difference, std::fabs(static_cast<double>(a.data()[i]) - b.data()[i]));
  }
  return difference / largest;
}

}  // namespace llmpress
