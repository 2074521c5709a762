// The loss of the texts that a training job is judged by.
#pragma once

#include <vector>

#include "distill/trainer.h"

namespace llmpress {

struct EvaluatedLosses {
  LossTerms all{};                // the mean over all scored tokens
  std::vector<double> domains{};  // cross-entropy of each; empty: one text
};

// Of the first sequences of the held-out text, else of the text, or of those of
// each domain.
EvaluatedLosses evaluated_losses(const TrainingJob& job, ThreadPool& pool);

// Whether these are texts of their own.
bool evaluates_held_out(const TrainingJob& job);

}  // namespace llmpress
