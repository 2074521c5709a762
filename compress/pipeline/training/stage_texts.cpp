#include "compress/pipeline/training/stage_texts.h"

#include <filesystem>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/pipeline/training/training_text.h"

namespace llmpress {
namespace {

void check_size(const TrainingData& data, std::size_t wanted,
                const std::filesystem::path& path) {
  if (data.sequences() >= wanted) return;
  fail(ErrorCode::kInvalidInput,
       "{}: has {} sequences of {} tokens, wanted {}: give more text, or a "
       "smaller 'batch_size', 'accumulation' or 'sequence_length'",
       path, data.sequences(), data.sequence_length(), wanted);
}

}  // namespace

StageTexts::StageTexts(const TrainStage& stage, const Tokenizer& tokenizer)
    : stage_(stage) {
  if (stage.domains.empty()) {
    read_one(tokenizer);
  } else {
    read_domains(tokenizer);
  }
}

void StageTexts::read_one(const Tokenizer& tokenizer) {
  const TrainConfig& config = stage_.config;
  const TrainingText text = read_training_text(stage_.text, tokenizer);
  sha256_ = text.sha256;
  data_.emplace(text.documents, config.sequence_length);
  check_size(*data_, config.batch_size * config.accumulation, stage_.text);
  if (stage_.held_out.empty()) return;
  const TrainingText held_out = read_training_text(stage_.held_out, tokenizer);
  held_out_sha256_ = held_out.sha256;
  held_out_.emplace(held_out.documents, config.sequence_length);
  check_size(*held_out_, 1, stage_.held_out);
}

void StageTexts::read_domains(const Tokenizer& tokenizer) {
  const std::size_t length = stage_.config.sequence_length;
  std::vector<std::vector<TokenId>> all;
  for (const DomainConfig& config : stage_.domains) {
    TrainingText text = read_training_text(config.text, tokenizer);
    sha256_ += text.sha256;
    Domain domain{.data = TrainingData(text.documents, length)};
    check_size(domain.data, 1, config.text);
    for (auto& document : text.documents) all.push_back(std::move(document));
    if (!config.held_out.empty()) {
      const TrainingText held_out =
          read_training_text(config.held_out, tokenizer);
      held_out_sha256_ += held_out.sha256;
      domain.held_out.emplace(held_out.documents, length);
      check_size(*domain.held_out, 1, config.held_out);
    }
    domains_.push_back(std::move(domain));
  }
  data_.emplace(all, length);
  check_size(*data_, stage_.config.batch_size * stage_.config.accumulation,
             stage_.domains.front().text);
}

bool StageTexts::has_held_out() const {
  return held_out_ || (!domains_.empty() && domains_.front().held_out);
}

std::vector<TrainingDomain> StageTexts::domains() {
  std::vector<TrainingDomain> domains;
  for (std::size_t d = 0; d < domains_.size(); ++d) {
    const DomainConfig& config = stage_.domains[d];
    Domain& domain = domains_[d];
    domains.push_back(
        {.name = config.text.filename().string(),
         .data = &domain.data,
         .held_out = domain.held_out ? &*domain.held_out : nullptr,
         .weight = config.weight,
         .reference_loss = config.reference_loss});
  }
  return domains;
}

}  // namespace llmpress
