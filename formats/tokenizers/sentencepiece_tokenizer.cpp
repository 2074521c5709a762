#include "formats/tokenizers/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <limits>
#include <unordered_set>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/tokenizers/sentencepiece_check.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

constexpr std::string_view kMetaspace = "\xE2\x96\x81";  // U+2581

// Of "file.cc(232) [condition] reason".
std::string reason_of(const sentencepiece::util::Status& status) {
  const std::string message = status.error_message();
  const std::size_t bracket = message.find("] ");
  const std::string reason =
      bracket == std::string::npos ? message : message.substr(bracket + 2);
  return reason.empty() ? "it cannot be parsed" : reason;
}

std::optional<TokenId> optional_id(int id) {
  if (id < 0) return std::nullopt;
  return static_cast<TokenId>(id);
}

}  // namespace

struct SentencePieceTokenizer::Processor {
  sentencepiece::SentencePieceProcessor library{};

  Processor(std::string_view model, const std::string& origin) {
    const auto status =
        library.LoadFromSerializedProto({model.data(), model.size()});
    if (!status.ok()) {
      fail(ErrorCode::kCorruptFile, "{}: not a SentencePiece model: {}", origin,
           reason_of(status));
    }
  }
};

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

SentencePieceTokenizer::SentencePieceTokenizer(std::string_view model,
                                               const TokenizerConfig& config,
                                               const std::string& origin)
    : origin_(origin) {
  check_sentencepiece_model(model, origin);
  processor_ = std::make_unique<Processor>(model, origin);
  kind = "sentencepiece";
  if (!config.legacy) {
    // A message field that appears twice is merged (protobuf's wire format), so
    // this overrides one setting:
    // | 3: normalizer_spec | 2 bytes | 3: add_dummy_prefix | false |
    continuing_ = std::make_unique<Processor>(
        std::string(model) + std::string("\x1A\x02\x18\x00", 4), origin);
  }
  read_pieces();
  read_special_tokens(config);
  const auto& library = processor_->library;
  bos_id = config.bos ? id_of(*config.bos) : optional_id(library.bos_id());
  eos_id = config.eos ? id_of(*config.eos) : optional_id(library.eos_id());
  adds_bos = config.add_bos.value_or(bos_id.has_value());
  if (adds_bos && !bos_id) {
    fail(ErrorCode::kInvalidInput,
         "{}: add_bos_token is true, but there is no '{}' token", config.origin,
         config.bos.value_or("BOS"));
  }
}

void SentencePieceTokenizer::read_pieces() {
  const auto& library = processor_->library;
  bool strips_prefix = false;
  for (int id = 0; id < library.GetPieceSize(); ++id) {
    const std::string& piece = library.IdToPiece(id);
    const bool literal = library.IsControl(id) || library.IsUnknown(id);
    spellings_.emplace_back(Spelling{.text = piece, .literal = literal});
    // The library takes the space in front away if it puts one there.
    if (!strips_prefix && !literal && piece.size() > kMetaspace.size() &&
        piece.starts_with(kMetaspace)) {
      strips_prefix = !library.DecodeIds(std::vector<int>{id}).starts_with(' ');
    }
  }
  if (spellings_.empty()) {
    fail(ErrorCode::kCorruptFile, "{}: no pieces", origin_);
  }
  decoder_ = TokenDecoder::metaspace(strips_prefix);
}

std::optional<TokenId> SentencePieceTokenizer::id_of(
    const std::string& token) const {
  const auto added = added_.find(token);
  if (added != added_.end()) return added->second;
  const auto& library = processor_->library;
  const int id = library.PieceToId(token);
  if (id < 0 || id >= library.GetPieceSize() ||
      library.IdToPiece(id) != token) {
    return std::nullopt;
  }
  return static_cast<TokenId>(id);
}

void SentencePieceTokenizer::read_special_tokens(
    const TokenizerConfig& config) {
  const auto& library = processor_->library;
  std::vector<AddedToken> tokens;
  std::unordered_set<std::string> known;
  const auto add = [&](const std::string& content) {
    const auto id =
        known.insert(content).second ? id_of(content) : std::nullopt;
    if (id) tokens.push_back({.id = *id, .content = content, .special = true});
  };
  for (const int id : {library.unk_id(), library.bos_id(), library.eos_id()}) {
    if (id >= 0) add(library.IdToPiece(id));
  }
  for (const auto& name : {config.bos, config.eos}) {
    if (name) add(*name);
  }
  for (const std::string& name : config.special) add(name);
  merge_added_tokens(tokens, config);
  for (const AddedToken& token : tokens) {
    const auto own = id_of(token.content);
    if (own == token.id) continue;
    if (own || (token.id < spellings_.size() && spellings_[token.id])) {
      fail(ErrorCode::kCorruptFile,
           "{}: added token '{}': id {} is not the one of {}", config.origin,
           token.content, token.id, origin_);
    }
    if (spellings_.size() <= token.id) {
      spellings_.resize(std::size_t{token.id} + 1);
    }
    spellings_[token.id] = Spelling{.text = token.content, .literal = true};
    added_[token.content] = token.id;
  }
  special_ = AddedTokenFinder(std::move(tokens));
}

std::vector<TokenId> SentencePieceTokenizer::encode(
    std::string_view text) const {
  if (const std::size_t valid = valid_utf8_length(text); valid < text.size()) {
    fail(ErrorCode::kInvalidInput, "text: byte {} is not UTF-8", valid);
  }
  // Positions are int in the library, and a space becomes three bytes.
  if (text.size() > std::numeric_limits<int>::max() / 4) {
    fail(ErrorCode::kInvalidInput,
         "text: {} bytes are too many for SentencePiece at once", text.size());
  }
  std::vector<TokenId> ids;
  std::vector<int> part_ids;
  for (const auto& part : special_.split(text)) {
    if (part.id) {
      ids.push_back(*part.id);
      continue;
    }
    const bool first = part.text.data() == text.data();
    const Processor& processor =
        first || !continuing_ ? *processor_ : *continuing_;
    const auto status = processor.library.Encode(
        {part.text.data(), part.text.size()}, &part_ids);
    if (!status.ok()) {
      fail(ErrorCode::kInvalidInput, "{}: {}", origin_, reason_of(status));
    }
    for (const int id : part_ids) ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

std::string SentencePieceTokenizer::decode(std::span<const TokenId> ids) const {
  return decoder_->decode(spell(spellings_, ids));
}

}  // namespace llmpress
