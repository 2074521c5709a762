#include "compress/calibration/calibration_text.h"

#include "compress/calibration/token_stream.h"
#include "compress/core/formatted.h"
#include "compress/core/rng.h"
#include "formats/checkpoints/artifact_writer.h"

namespace llmpress {
namespace {

std::vector<std::size_t> window_offsets(const CalibrationConfig& config,
                                        std::size_t available) {
  const std::size_t length = config.sequence_length;
  std::vector<std::size_t> offsets;
  if (config.sampling == Sampling::kSequential) {
    const std::size_t windows = std::min(config.samples, available / length);
    for (std::size_t i = 0; i < windows; ++i) offsets.push_back(i * length);
    return offsets;
  }
  Rng rng(config.seed);
  for (std::size_t i = 0; i < config.samples; ++i) {
    offsets.push_back(rng.below(available - length + 1));
  }
  return offsets;
}

}  // namespace

std::size_t CalibrationSet::tokens() const {
  return sequences.empty() ? 0 : sequences.size() * sequences.front().size();
}

CalibrationSet load_calibration(const CalibrationConfig& config,
                                const Tokenizer& tokenizer) {
  const std::string origin = config.text.string();
  const std::vector<TokenId> stream =
      read_token_stream(config.text, tokenizer).ids;
  const std::size_t length = config.sequence_length;
  if (stream.size() < length) {
    fail(ErrorCode::kInvalidInput,
         "{}: {} tokens, shorter than one calibration sequence of {}; give a "
         "longer text or a smaller sequence_length",
         origin, stream.size(), length);
  }
  CalibrationSet set{.text_tokens = stream.size(),
                     .experts = config.experts,
                     .expert_min_tokens = config.expert_min_tokens};
  std::string bytes;
  for (const std::size_t offset : window_offsets(config, stream.size())) {
    const auto begin = stream.begin() + static_cast<std::ptrdiff_t>(offset);
    set.sequences.emplace_back(begin,
                               begin + static_cast<std::ptrdiff_t>(length));
    const auto& ids = set.sequences.back();
    bytes.append(reinterpret_cast<const char*>(ids.data()),
                 ids.size() * sizeof(TokenId));
  }
  set.sha256 = sha256_hex(bytes);
  if (set.sequences.size() < config.samples) {
    set.notes.push_back(
        formatted("{} holds {} sequences of {} tokens, fewer than the {} asked "
                  "for; all are used",
                  origin, set.sequences.size(), length, config.samples));
  }
  return set;
}

}  // namespace llmpress
