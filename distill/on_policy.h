// Texts that the student writes itself, for a teacher to judge: on-policy
// distillation (GKD, arXiv:2306.13649, Algorithm 1). No gradient passes through
// the writing.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/model/training/trainable_model.h"
#include "distill/training_data.h"

namespace llmpress {

struct WritingConfig {
  double share = 0;         // of the passes
  std::size_t prompt = 32;  // tokens of each part of a text that stay
  double temperature = 1;
  std::size_t vocabulary = 0;    // tokens from 0 on that may be written
  std::vector<TokenId> stops{};  // a part ends with one of them
};

// Whether the student writes this one: of all draws that share, by the draw
// alone. Batches without a draw are never written.
bool is_written(const TrainingBatch& batch, double share);

// The batch with every part (TokenBatch::sequences) written anew behind its
// first `prompt` tokens, or all but its last where it is shorter; drawn from the
// student's softmax by the batch's draw. Targets are the written tokens alone.
// Cost: a forward pass of every part, token by token, with a cache of keys and
// values in float32.
TrainingBatch written_batch(const TrainableModel& student,
                            const TrainingBatch& batch,
                            const WritingConfig& config, ThreadPool& pool);

}  // namespace llmpress
