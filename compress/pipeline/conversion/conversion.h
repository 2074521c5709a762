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
#include "compress/pipeline/run/output_resume.h"
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
  // Linears that the format cannot hold as they are become what it holds that is
  // nearest (packed_forms.h); else they are refused.
  bool allow_lossy = false;
  Progress progress{};
  // From the Linears that were rounded; others are read again as fast.
  std::optional<OutputResume> resume{};
};

// Linears that were rounded from one type to another.
struct RoundedLinears {
  std::string from{}, to{};
  std::size_t linears = 0;
  double largest_error = 0;  // |W' - W|_F / |W|_F
  std::string largest{};     // whose
};

struct ConversionReport {
  std::size_t tensors = 0, linears = 0, bytes = 0;
  std::vector<RoundedLinears> rounded{};  // all others are exact
  std::size_t inputs_unrounded =
      0;  // Linears whose inputs are no longer rounded
  std::vector<std::string> notes{};  // Linears of another type than asked
};

// Lines of "name: value" for OutputResume.
std::string conversion_fingerprint(const std::filesystem::path& model,
                                   const ConversionOptions& options);

// Writes the model, reads it back and checks that it describes the same program
// and that every Linear that was not rounded has the same numbers. Throws
// Error(kUnsupported) for a Linear or a model that the format cannot hold.
ConversionReport convert_model(const Checkpoint& checkpoint,
                               const ConversionOptions& options,
                               ThreadPool& pool);

}  // namespace llmpress
