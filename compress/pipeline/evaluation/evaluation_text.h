// A text to evaluate on, and the windows that a protocol cuts it into.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "formats/tokenizers/tokenizer.h"
#include "recipes/recipe.h"

namespace llmpress {

// A text as token ids, with what a report must say about it.
struct EvaluationText {
  std::vector<TokenId> tokens{};
  std::string path{};
  std::string text_sha256{}, tokenizer_sha256{};
  std::optional<TokenId> bos{};
};
// As token_stream.h reads it.
EvaluationText load_evaluation_text(const std::filesystem::path& path,
                                    const Tokenizer& tokenizer);

// One forward pass: tokens [begin, begin + length) of the text, of which the
// predictions of positions [score_from, length) are scored (position i is
// predicted from the positions before it).
struct EvaluationWindow {
  std::size_t begin = 0, length = 0, score_from = 1;
  bool bos_first = false;  // the first token is replaced by BOS
};

// The windows of a protocol:
//   windows    non-overlapping, tail dropped, positions 1..N-1 scored (GPTQ)
//   llama.cpp  non-overlapping, first token replaced by BOS, the second half
//   scored strided    windows every `stride` tokens, each position scored once
//   (Hugging Face)
// Throws Error(kInvalidInput) if the text is shorter than one window.
std::vector<EvaluationWindow> plan_windows(const EvaluationText& text,
                                           const EvaluateConfig& config);

// Tokens that run through a model together, in windows of so many; rows of
// logits that there are of each model at a time.
std::size_t evaluation_batch_tokens(std::size_t window);
inline constexpr std::size_t kEvaluatedLogitRows = 256;

}  // namespace llmpress
