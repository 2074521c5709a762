// Calibration sequences: windows of token ids from plain text, JSONL or HDF5.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "formats/tokenizer.h"
#include "recipes/recipe.h"

namespace llmpress {

struct CalibrationSet {
  // [samples][sequence_length], all of one length.
  std::vector<std::vector<TokenId>> sequences{};
  std::size_t text_tokens = 0;  // in the whole text
  std::string sha256{};         // of the ids as little-endian u32
  std::vector<std::string> notes{};

  std::size_t tokens() const;
};

// Plain text is tokenized whole, BOS in front if the tokenizer adds one; a
// JSONL file is its documents (field `text`) one after another, each with its
// BOS; an .h5 file holds ids already (dataset `input_ids`). Sampling
// `sequential` takes the first windows, `random` takes windows at uniformly
// drawn offsets. Throws Error(kInvalidInput) if the text is shorter than one
// sequence. Fewer windows than asked for are a note.
CalibrationSet load_calibration(const CalibrationConfig& config,
                                const Tokenizer& tokenizer);

}  // namespace llmpress
