// Perplexity and divergence of models on a text.
//
//   nll = mean over scored positions of -ln p(token | window so far)
//   perplexity = exp(nll); its standard error is perplexity * sd(-ln p) /
//   sqrt(n) KL at a position = sum_v p_base(v) ln(p_base(v) / p_candidate(v))
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/core/ranks.h"
#include "compress/model/decoder.h"
#include "compress/pipeline/evaluation/evaluation_text.h"
#include "recipes/recipe.h"

namespace llmpress {

// The storage of keys and values that a recipe names.
KvType kv_type(KvCacheType type);
KvFormat kv_format(const EvaluateConfig& config);
InputPrecision input_precision(const EvaluateConfig& config);

struct EvaluationResult {
  std::string model{}, text{}, text_sha256{}, tokenizer_sha256{};
  std::string protocol{}, kv_cache{}, activations{};
  std::size_t tokens = 0;  // in the text
  std::size_t scored_tokens = 0;
  std::size_t windows = 0, context = 0, stride = 0;
  double nll = 0, perplexity = 0, perplexity_stderr = 0;
  ModelSize size{};
  double seconds = 0, tokens_per_second = 0;  // tokens run through the model
};

// How far a candidate's predictions are from the base's, over the same
// positions.
struct Divergence {
  double kl_mean = 0, kl_stderr = 0, kl_p50 = 0, kl_p99 = 0, kl_max = 0;
  double top1_agreement = 0;    // fraction of positions with the same argmax
  double perplexity_ratio = 1;  // candidate / base
};

struct ModelUnderTest {
  std::string name{};
  const Decoder* decoder = nullptr;
  ModelSize size{};
  // Of a streamed decoder: the folder for the states between its blocks.
  std::filesystem::path scratch{};
};

struct ComparedModel {
  EvaluationResult evaluation{};
  Divergence divergence{};
};

struct Comparison {
  EvaluationResult base{};
  std::vector<ComparedModel> models{};
};

// Throws Error(kNumeric) naming the first window and block whose output is not
// finite. `ranks`: who has the same models and takes windows in turn; all get
// the same result. Collective.
EvaluationResult evaluate(const ModelUnderTest& model,
                          const EvaluationText& text,
                          const EvaluateConfig& config, ThreadPool& pool,
                          const Progress& progress = {},
                          const Ranks& ranks = {});

// All models on the same windows; a model's seconds are its own forward passes,
// on several ranks those of the one that took longest. Throws
// Error(kInvalidInput) if the vocabularies differ.
Comparison compare(const ModelUnderTest& base,
                   std::span<const ModelUnderTest> candidates,
                   const EvaluationText& text, const EvaluateConfig& config,
                   ThreadPool& pool, const Progress& progress = {},
                   const Ranks& ranks = {});

}  // namespace llmpress
