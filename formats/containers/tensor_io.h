// Named tensors in files: one reading and one writing interface over
// safetensors, sharded checkpoints and HDF5.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/dtype.h"
#include "compress/core/matrix.h"

namespace llmpress {

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::size_t> shape{};
  std::size_t bytes = 0;
  std::string file{};  // for messages: "model-00001-of-00002.safetensors"
};

// Bytes in a mapped file or in a buffer that `owner` keeps alive.
struct TensorBytes {
  std::span<const std::byte> bytes{};
  std::shared_ptr<const void> owner{};
};

class TensorReader {
 public:
  virtual ~TensorReader() = default;
  // Sorted by name.
  virtual std::span<const TensorInfo> tensors() const = 0;
  virtual TensorBytes read(const TensorInfo& info) const = 0;
  // File-level strings (safetensors __metadata__, HDF5 root attributes).
  virtual const std::map<std::string, std::string>& metadata() const = 0;

  const TensorInfo* find(std::string_view name) const;  // nullptr if absent
  // Throws Error(kInvalidInput, "<path>: tensor '<name>' is missing").
  const TensorInfo& require(std::string_view name) const;
};

// Floating tensor as float32. 1-D tensors come as one row. Throws
// Error(kInvalidInput) if it is not of the wanted shape (when given) or holds a
// NaN or infinity, naming the place.
MatrixF read_matrix(const TensorReader& reader, std::string_view name);
std::vector<float> read_vector(const TensorReader& reader,
                               std::string_view name, std::size_t size);

// A file of safetensors or of torch.save.
std::unique_ptr<TensorReader> open_tensor_file(
    const std::filesystem::path& path);

// Opens what `path` is: such a file, an .h5 file, a directory with
// model.safetensors, model.safetensors.index.json or, without them, weights of
// torch.save (torch_file.h).
std::unique_ptr<TensorReader> open_tensors(const std::filesystem::path& path);

// A tensor on its way out.
struct NamedTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::size_t> shape{};
  std::vector<std::byte> bytes{};
};

}  // namespace llmpress
