// Where the octets of a tensor lie as they are, for whoever reads them without
// this process.
#pragma once

#include <cstddef>
#include <filesystem>

#include "formats/containers/tensor_io.h"

namespace llmpress {

struct FileRange {
  std::filesystem::path file{};  // empty: nowhere
  std::size_t begin = 0;
};

// A TensorReader whose tensors lie so.
class PlacedTensors {
 public:
  virtual ~PlacedTensors() = default;
  virtual FileRange place_of(const TensorInfo& info) const = 0;
};

// Nowhere if the reader is none of those, or what it gives is made as it is read.
FileRange place_of(const TensorReader& reader, const TensorInfo& info);

}  // namespace llmpress
