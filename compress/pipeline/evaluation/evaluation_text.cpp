#include "compress/pipeline/evaluation/evaluation_text.h"

#include <algorithm>
#include <utility>

#include "compress/calibration/token_stream.h"
#include "compress/core/error.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

// Tokens of one forward pass, as the rows of logits: large enough for the matrix
// products, small enough for the caches of a small model.
constexpr std::size_t kBatchTokens = 4096;

std::size_t checked_context(const EvaluationText& text,
                            const EvaluateConfig& config) {
  if (config.context < 2) {
    throw Error(ErrorCode::kInvalidArgument,
                "evaluate: context must be at least 2 tokens");
  }
  if (text.tokens.size() < config.context) {
    fail(ErrorCode::kInvalidInput,
         "{}: {} tokens, shorter than one window of {}", text.path,
         text.tokens.size(), config.context);
  }
  return config.context;
}

// Hugging Face's sliding window: each window scores what the one before it has
// not, the last one ends with the text.
std::vector<EvaluationWindow> strided_windows(std::size_t tokens,
                                              std::size_t context,
                                              std::size_t stride) {
  if (stride == 0 || stride > context) {
    fail(ErrorCode::kInvalidArgument,
         "evaluate: stride must be between 1 and the context of {}", context);
  }
  std::vector<EvaluationWindow> windows;
  std::size_t scored_to = 1;  // the first token has no prediction
  for (std::size_t begin = 0; scored_to < tokens; begin += stride) {
    const std::size_t end = std::min(begin + context, tokens);
    windows.push_back({.begin = begin,
                       .length = end - begin,
                       .score_from = scored_to - begin});
    scored_to = end;
  }
  return windows;
}

}  // namespace

EvaluationText load_evaluation_text(const std::filesystem::path& path,
                                    const Tokenizer& tokenizer) {
  TokenStream text = read_token_stream(path, tokenizer);
  return {.tokens = std::move(text.ids),
          .path = path.string(),
          .text_sha256 = std::move(text.sha256),
          .tokenizer_sha256 = tokenizer.sha256,
          .bos = tokenizer.bos_id};
}

std::vector<EvaluationWindow> plan_windows(const EvaluationText& text,
                                           const EvaluateConfig& config) {
  const std::size_t context = checked_context(text, config);
  std::vector<EvaluationWindow> windows;
  if (config.protocol == Protocol::kStrided) {
    windows = strided_windows(text.tokens.size(), context, config.stride);
  } else {
    const bool llama_cpp = config.protocol == Protocol::kLlamaCpp;
    for (std::size_t begin = 0; begin + context <= text.tokens.size();
         begin += context) {
      // llama-perplexity scores positions first + 1 .. n_ctx - 1 with first =
      // n_ctx / 2, and puts BOS in front where the tokenizer has one.
      windows.push_back({.begin = begin,
                         .length = context,
                         .score_from = llama_cpp ? context / 2 + 1 : 1,
                         .bos_first = llama_cpp && text.bos.has_value()});
    }
  }
  if (config.max_windows != 0 && windows.size() > config.max_windows) {
    windows.resize(config.max_windows);
  }
  return windows;
}

std::size_t evaluation_batch_tokens(std::size_t window) {
  return std::max<std::size_t>(1, kBatchTokens / window) * window;
}

}  // namespace llmpress
