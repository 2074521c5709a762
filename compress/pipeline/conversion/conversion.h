// A model in another format: every tensor and every packed Linear as it is, code
// for code, or a refusal that says why. Nothing is calibrated. With a type the
// Linears are rounded to it on the way, as llama.cpp's quantizer would.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "compress/core/ggml/ggml_type.h"
#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

struct ConversionOptions {
  std::filesystem::path output{};
  std::string format{};
  // Of the Linears of blocks; absent: as they are. Only "gguf" takes blocks.
  std::optional<GgmlType> type{};
  // Of the embedding and the head; absent: of fewer bits than q6_K the head (or
  // the embedding that is one) has q6_K, as in llama.cpp.
  std::optional<GgmlType> ends_type{};
  Progress progress{};
};

struct ConversionReport {
  std::size_t tensors = 0, linears = 0, bytes = 0;
  std::vector<std::string> notes{};  // Linears of another type than asked
};

// Writes the model, reads it back and, where its config.json had to be made
// anew, checks that it describes the same program. Throws Error(kUnsupported)
// for a Linear or a model that the format cannot hold.
ConversionReport convert_model(const Checkpoint& checkpoint,
                               const ConversionOptions& options,
                               ThreadPool& pool);

// The same numbers as another packed type has them: q4_0, q5_0 and q8_0 are
// symmetric integers in groups of 32, mxfp4 is MXFP4. nullopt: no other has them.
std::optional<PackedWeight> unpacked_from_blocks(const GgmlWeight& weight);

}  // namespace llmpress
