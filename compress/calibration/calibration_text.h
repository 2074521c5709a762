// Calibration sequences: windows of a text's token ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "formats/tokenizers/tokenizer.h"
#include "recipes/recipe.h"

namespace llmpress {

struct CalibrationSet {
  // [samples][sequence_length], all of one length.
  std::vector<std::vector<TokenId>> sequences{};
  std::size_t text_tokens = 0;  // in the whole text
  std::string sha256{};         // of the ids as little-endian u32
  ExpertPolicy experts = ExpertPolicy::kNearest;
  std::size_t expert_min_tokens = 0;
  std::vector<std::string> notes{};

  std::size_t tokens() const;
};

// Of the text as token_stream.h reads it. Sampling `sequential` takes the first
// windows, `random` takes windows at uniformly drawn offsets. Throws
// Error(kInvalidInput) if the text is shorter than one sequence. Fewer windows
// than asked for are a note.
CalibrationSet load_calibration(const CalibrationConfig& config,
                                const Tokenizer& tokenizer);

}  // namespace llmpress
