// A tensor of the folder out of the parts that it is in GGUF (gguf_parts.h).
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "formats/containers/gguf.h"
#include "formats/containers/tensor_io.h"
#include "formats/gguf/gguf_change.h"

namespace llmpress {

struct GgufPiece {
  std::size_t tensor = 0;  // index in GgufFile::tensors()
  GgufChange change = GgufChange::kNone;
};

// Of the type of the pieces if they are plain numbers of the same, else F32.
// Throws Error(kInvalidInput) where shapes do not fit, or a piece is missing.
TensorInfo joined_info(const GgufFile& file, const std::string& name,
                       std::span<const GgufPiece> pieces,
                       const GgufRowSizes& sizes);
std::vector<std::byte> read_joined(const GgufFile& file, const TensorInfo& info,
                                   std::span<const GgufPiece> pieces,
                                   const GgufRowSizes& sizes);

}  // namespace llmpress
