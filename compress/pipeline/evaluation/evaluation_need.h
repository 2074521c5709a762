// What evaluating models takes of memory, before they are loaded.
#pragma once

#include <cstddef>

#include "compress/model/architecture.h"
#include "compress/model/model_check.h"

namespace llmpress {

// The program itself, its threads and a tokenizer, as measured.
inline constexpr std::size_t kProgramBytes = std::size_t{36} << 20;

// What evaluating so many models of this shape takes, beside the program: with
// all of them in memory, and block by block (Decoder::Options::streamed). Bytes.
struct EvaluationNeed {
  std::size_t loaded = 0, streamed = 0, scratch = 0;
  std::size_t models = 0;  // of what is loaded, their weights
  std::size_t head = 0;    // of what is streamed, as each model has one
};
EvaluationNeed evaluation_need(const Architecture& arch,
                               const ModelSize& stored, std::size_t models,
                               std::size_t window_tokens,
                               std::size_t scored_tokens);

// What one rank takes of `whole`, the need of one model in memory, where its
// blocks are spread over `stages` ranks in stretches and the rows of its Linears
// and its head over `rows`. Each rank has both ends. Bytes.
std::size_t loaded_on_rank(const EvaluationNeed& whole,
                           const Architecture& arch, const ModelSize& stored,
                           std::size_t stages, std::size_t rows);

}  // namespace llmpress
