#include "compress/pipeline/calibration_text.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "compress/core/error.h"
#include "compress/core/rng.h"
#include "formats/artifact_writer.h"
#include "formats/hdf5_tables.h"

namespace llmpress {
namespace {

// The documents of a JSONL file: field `text` of the object on each line.
std::vector<std::string> read_jsonl(const std::filesystem::path& path) {
  std::vector<std::string> documents;
  std::istringstream lines(read_file(path));
  std::size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("text") ||
        !json["text"].is_string()) {
      throw Error(ErrorCode::kInvalidInput,
                  path.string() + ":" + std::to_string(number) +
                      ": expected a JSON object with a string field 'text'");
    }
    documents.push_back(json["text"].get<std::string>());
  }
  return documents;
}

// The whole text as one stream of ids.
std::vector<TokenId> read_stream(const std::filesystem::path& path,
                                 const Tokenizer& tokenizer) {
  const std::string extension = path.extension().string();
  if (extension == ".h5" || extension == ".hdf5")
    return read_token_table(path).ids;
  if (extension != ".jsonl") return tokenizer.encode_document(read_file(path));
  std::vector<TokenId> stream;
  for (const std::string& document : read_jsonl(path)) {
    const auto ids = tokenizer.encode_document(document);
    stream.insert(stream.end(), ids.begin(), ids.end());
  }
  return stream;
}

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

void check_ids(std::span<const TokenId> ids, const Tokenizer& tokenizer,
               const std::string& origin) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= tokenizer.vocabulary_size()) {
      throw Error(ErrorCode::kInvalidInput,
                  origin + ": token id " + std::to_string(ids[i]) +
                      " at position " + std::to_string(i) +
                      " is not in the tokenizer's vocabulary of " +
                      std::to_string(tokenizer.vocabulary_size()));
    }
  }
}

}  // namespace

std::size_t CalibrationSet::tokens() const {
  return sequences.empty() ? 0 : sequences.size() * sequences.front().size();
}

CalibrationSet load_calibration(const CalibrationConfig& config,
                                const Tokenizer& tokenizer) {
  const std::string origin = config.text.string();
  const std::vector<TokenId> stream = read_stream(config.text, tokenizer);
  check_ids(stream, tokenizer, origin);
  const std::size_t length = config.sequence_length;
  if (stream.size() < length) {
    throw Error(ErrorCode::kInvalidInput,
                origin + ": " + std::to_string(stream.size()) +
                    " tokens, shorter than one calibration sequence of " +
                    std::to_string(length) +
                    "; give a longer text or a smaller sequence_length");
  }
  CalibrationSet set{.text_tokens = stream.size()};
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
        origin + " holds " + std::to_string(set.sequences.size()) +
        " sequences of " + std::to_string(length) + " tokens, fewer than the " +
        std::to_string(config.samples) + " asked for; all are used");
  }
  return set;
}

}  // namespace llmpress
