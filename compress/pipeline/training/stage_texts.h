// The texts that a stage trains and evaluates on: one, or several domains.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "distill/domains.h"
#include "distill/training_data.h"
#include "formats/tokenizers/tokenizer.h"
#include "recipes/recipe.h"

namespace llmpress {

class StageTexts {
 public:
  // Throws Error(kInvalidInput) naming a text that has too few sequences for a
  // batch.
  StageTexts(const TrainStage& stage, const Tokenizer& tokenizer);

  // Of several domains all together: for sizes and first tokens.
  TrainingData& data() { return *data_; }
  // Null: none, or that of domains.
  const TrainingData* held_out() const {
    return held_out_ ? &*held_out_ : nullptr;
  }
  bool has_held_out() const;
  // Of the files; those of several domains one behind another.
  const std::string& sha256() const { return sha256_; }
  const std::string& held_out_sha256() const { return held_out_sha256_; }
  // Points into this; empty: one text.
  std::vector<TrainingDomain> domains();

 private:
  struct Domain {
    TrainingData data;
    std::optional<TrainingData> held_out{};
  };
  void read_one(const Tokenizer& tokenizer);
  void read_domains(const Tokenizer& tokenizer);

  const TrainStage& stage_;
  std::string sha256_{}, held_out_sha256_{};
  std::optional<TrainingData> data_{}, held_out_{};
  std::vector<Domain> domains_{};
};

}  // namespace llmpress
