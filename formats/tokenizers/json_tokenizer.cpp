#include "formats/tokenizers/json_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/tokenizers/bpe_model.h"
#include "formats/tokenizers/post_processor.h"
#include "formats/tokenizers/unicode_text.h"
#include "formats/tokenizers/unigram_model.h"
#include "formats/tokenizers/word_models.h"

namespace llmpress {
namespace {

constexpr std::string_view kMetaspace = "\xE2\x96\x81";  // U+2581

std::pair<std::string, std::string> read_pair(const JsonView& merge) {
  if (merge.is_array()) {
    const auto items = merge.items();
    if (items.size() != 2) merge.corrupt("a merge has two tokens");
    return {items[0].text(), items[1].text()};
  }
  const std::string& text = merge.text();
  const std::size_t space = text.find(' ');
  if (space == std::string::npos || space != text.rfind(' ') || space == 0 ||
      space + 1 == text.size()) {
    merge.corrupt("found '" + text + "', wanted two tokens and a space");
  }
  return {text.substr(0, space), text.substr(space + 1)};
}

std::vector<BpeMerge> read_merges(const JsonView& json,
                                  const Vocabulary& vocabulary,
                                  const std::string& inner_prefix) {
  std::vector<BpeMerge> merges;
  for (const JsonView& merge : json.items()) {
    if (merge.is_string() && merge.text().starts_with("#version")) continue;
    const auto [left, right] = read_pair(merge);
    const auto id = [&](const std::string& token) {
      const auto found = vocabulary.find(token);
      if (found == vocabulary.end()) {
        merge.corrupt("token '" + token + "' is not in /model/vocab");
      }
      return found->second;
    };
    if (!right.starts_with(inner_prefix)) {
      merge.corrupt("token '" + right + "' is not inside a word");
    }
    merges.push_back({.left = id(left),
                      .right = id(right),
                      .result = id(left + right.substr(inner_prefix.size()))});
  }
  return merges;
}

// Settings that change the ids and are not known here.
void refuse_settings(const JsonView& model) {
  if (const auto dropout = model.find("dropout")) {
    if (dropout->number() != 0) {
      dropout->unsupported("ids would be random");
    }
  }
}

// Files older than the key are told apart by what only one kind has.
std::string type_of(const JsonView& model) {
  const char* const guess = model.find("merges") ? "BPE"
                            : model.find("max_input_chars_per_word")
                                ? "WordPiece"
                                : "";
  return model.text_or("type", guess);
}

}  // namespace

JsonTokenizer::JsonTokenizer(const JsonView& root,
                             const TokenizerConfig& config) {
  const JsonView model = root.at("model");
  const std::string type = type_of(model);
  if (const auto json = root.find("normalizer")) {
    normalizer_ = TextNormalizer(*json);
  }
  if (const auto json = root.find("pre_tokenizer")) {
    pre_tokenizer_ = PreTokenizer(*json);
  }
  read_model(model, type);
  read_added_tokens(root, config);
  read_decoder(root);
  read_ends(root, config);
}

void JsonTokenizer::read_model(const JsonView& model, const std::string& type) {
  if (type == "BPE") {
    read_vocabulary(model);
    read_byte_pairs(model);
  } else if (type == "Unigram") {
    read_unigram(model);
  } else if (type == "WordPiece" || type == "WordLevel") {
    read_vocabulary(model);
    read_words(model, type == "WordPiece");
  } else {
    model.unsupported("model '" + type +
                      "' is not known (known: BPE, Unigram, WordPiece, "
                      "WordLevel)");
  }
}

void JsonTokenizer::read_vocabulary(const JsonView& model) {
  for (const auto& [token, view] : model.at("vocab").members()) {
    const auto id = static_cast<TokenId>(view.natural(kLargestTokenId));
    if (id < spellings_.size() && spellings_[id]) {
      view.corrupt(
          formatted("id {} is already that of '{}'", id, spellings_[id]->text));
    }
    vocabulary_.emplace(token, id);
    add_spelling(id, token, false);
  }
  if (vocabulary_.empty()) model.at("vocab").corrupt("is empty");
}

std::optional<TokenId> JsonTokenizer::unknown_token(
    const JsonView& model) const {
  const auto token = model.find("unk_token");
  if (!token) return std::nullopt;
  const auto id = id_of(token->text());
  if (!id && !token->text().empty()) {
    token->corrupt("'" + token->text() + "' is not in /model/vocab");
  }
  return id;
}

void JsonTokenizer::read_byte_pairs(const JsonView& model) {
  refuse_settings(model);
  byte_level_ = pre_tokenizer_.byte_level();
  metaspace_ =
      !byte_level_ &&
      (pre_tokenizer_.has_metaspace() || normalizer_.prefix() == kMetaspace ||
       normalizer_.apply(" ").find(kMetaspace) != std::string::npos);
  kind = byte_level_ ? "bpe byte-level" : metaspace_ ? "bpe metaspace" : "bpe";
  BpeModelConfig config{
      .byte_fallback = model.bool_or("byte_fallback", false),
      .fuse_unknown = model.bool_or("fuse_unk", false),
      .ignore_merges = model.bool_or("ignore_merges", false),
      .inner_prefix = model.text_or("continuing_subword_prefix", ""),
      .end_suffix = model.text_or("end_of_word_suffix", ""),
      .unknown = unknown_token(model),
      .origin = model.place()};
  // Bytes stay bytes where every one is a symbol.
  config.byte_level =
      byte_level_ && config.inner_prefix.empty() && config.end_suffix.empty();
  if (!config.byte_level) pre_tokenizer_.spell_bytes();
  std::vector<BpeMerge> merges =
      read_merges(model.at("merges"), vocabulary_, config.inner_prefix);
  model_ = std::make_unique<BpeModel>(vocabulary_, merges, std::move(config));
}

void JsonTokenizer::read_unigram(const JsonView& model) {
  kind = "unigram";
  pre_tokenizer_.spell_bytes();
  std::vector<UnigramPiece> pieces;
  for (const JsonView& entry : model.at("vocab").items()) {
    const auto pair = entry.items();
    if (pair.size() != 2) entry.corrupt("wanted a token and its score");
    constexpr std::size_t kLongest = 4096;  // looking for it is bounded work
    const std::string& text = pair[0].text();
    if (text.size() > kLongest) pair[0].corrupt("is longer than 4096 bytes");
    const double score = pair[1].number();
    if (!std::isfinite(score)) pair[1].corrupt("is not finite");
    const auto id = static_cast<TokenId>(pieces.size());
    if (id > kLargestTokenId) entry.corrupt("too many tokens");
    pieces.push_back({text, score});
    vocabulary_[text] = id;
    add_spelling(id, text, false);
  }
  if (pieces.empty()) model.at("vocab").corrupt("is empty");
  UnigramConfig config{.byte_fallback = model.bool_or("byte_fallback", false),
                       .origin = model.place()};
  if (const auto unknown = model.find("unk_id")) {
    config.unknown = static_cast<TokenId>(unknown->natural(pieces.size() - 1));
  }
  model_ = std::make_unique<UnigramModel>(pieces, std::move(config));
}

void JsonTokenizer::read_words(const JsonView& model, bool pieces) {
  kind = pieces ? "wordpiece" : "wordlevel";
  pre_tokenizer_.spell_bytes();
  WordConfig config{.unknown = unknown_token(model),
                    .prefix = model.text_or("continuing_subword_prefix", "##"),
                    .origin = model.place()};
  if (const auto most = model.find("max_input_chars_per_word")) {
    config.most_characters = most->natural(1'000'000);
  }
  if (pieces) {
    model_ = std::make_unique<WordPieceModel>(vocabulary_, std::move(config));
  } else {
    model_ = std::make_unique<WordLevelModel>(vocabulary_, std::move(config));
  }
}

void JsonTokenizer::add_spelling(TokenId id, const std::string& text,
                                 bool literal) {
  if (spellings_.size() <= id) spellings_.resize(std::size_t{id} + 1);
  spellings_[id] = Spelling{.text = text, .literal = literal};
}

std::optional<TokenId> JsonTokenizer::id_of(const std::string& token) const {
  for (const auto* table : {&added_ids_, &vocabulary_}) {
    const auto found = table->find(token);
    if (found != table->end()) return found->second;
  }
  return std::nullopt;
}

void JsonTokenizer::read_added_tokens(const JsonView& root,
                                      const TokenizerConfig& config) {
  std::vector<AddedToken> tokens;
  if (const auto list = root.find("added_tokens")) {
    for (const JsonView& entry : list->items()) {
      const auto id =
          static_cast<TokenId>(entry.at("id").natural(kLargestTokenId));
      tokens.push_back(read_added_token(entry, id));
    }
  }
  merge_added_tokens(tokens, config);
  std::vector<AddedToken> plain, normalized;
  for (AddedToken& token : tokens) {
    const auto place = [&] {
      return root.place() + ": added token '" + token.content + "'";
    };
    const auto own = id_of(token.content);
    if (own && *own != token.id) {
      fail(ErrorCode::kCorruptFile,
           "{}: found id {}, wanted {} as in /model/vocab", place(), token.id,
           *own);
    }
    if (!own && token.id < spellings_.size() && spellings_[token.id]) {
      fail(ErrorCode::kCorruptFile, "{}: id {} is already that of '{}'",
           place(), token.id, spellings_[token.id]->text);
    }
    add_spelling(token.id, token.content, true);
    added_ids_[token.content] = token.id;
    if (token.normalized) {
      token.content = normalizer_.apply(token.content);
      normalized.push_back(std::move(token));
    } else {
      plain.push_back(std::move(token));
    }
  }
  added_ = AddedTokenFinder(std::move(plain));
  normalized_added_ = AddedTokenFinder(std::move(normalized));
}

void JsonTokenizer::read_decoder(const JsonView& root) {
  if (const auto json = root.find("decoder")) {
    decoder_ = TokenDecoder(*json);
  } else if (byte_level_) {
    decoder_ = TokenDecoder::byte_level();
  } else if (!metaspace_) {
    decoder_ = TokenDecoder::joined_by_spaces();
  } else {
    decoder_ = TokenDecoder::metaspace(pre_tokenizer_.adds_prefix() ||
                                       !normalizer_.prefix().empty());
  }
}

void JsonTokenizer::read_ends(const JsonView& root,
                              const TokenizerConfig& config) {
  PostProcessor wanted;
  const auto processor = root.find("post_processor");
  if (processor) wanted = read_post_processor(*processor);
  bos_id = config.bos ? id_of(*config.bos) : wanted.first;
  if (!bos_id && !config.bos && metaspace_) bos_id = id_of("<s>");
  eos_id = config.eos ? id_of(*config.eos) : std::nullopt;
  if (!eos_id && !config.eos && metaspace_) eos_id = id_of("</s>");
  if (wanted.first && bos_id != wanted.first) {
    processor->unsupported(
        formatted("token {} before the text is not the BOS token of {}",
                  *wanted.first, config.origin));
  }
  // As transformers 5, which drops add_bos_token where it has tokenizer.json
  // (tokenization_utils_base.py), and 4.57 but for Llama's and Gemma's classes,
  // which add BOS by themselves.
  adds_bos = processor ? wanted.first.has_value()
                       : metaspace_ && config.add_bos.value_or(true);
  if (adds_bos && !bos_id) {
    if (config.add_bos) {
      fail(ErrorCode::kInvalidInput,
           "{}: add_bos_token is true, but the BOS token {}", config.origin,
           config.bos ? "'" + *config.bos + "' is unknown" : "is not named");
    }
    adds_bos = false;
  }
  if (wanted.first &&
      (*wanted.first >= spellings_.size() || !spellings_[*wanted.first])) {
    processor->corrupt(
        formatted("token {} is not in the vocabulary", *wanted.first));
  }
}

std::vector<TokenId> JsonTokenizer::encode(std::string_view text) const {
  if (const std::size_t valid = valid_utf8_length(text); valid < text.size()) {
    fail(ErrorCode::kInvalidInput, "text: byte {} is not UTF-8", valid);
  }
  std::vector<TokenId> ids;
  const PieceEncoder encode_piece = model_->encoder();
  for (const auto& part : added_.split(text)) {
    if (part.id) {
      ids.push_back(*part.id);
      continue;
    }
    bool at_start = part.text.data() == text.data();
    const std::string normalized = normalizer_.apply(part.text);
    for (const auto& inner : normalized_added_.split(normalized)) {
      if (inner.id) {
        ids.push_back(*inner.id);
      } else {
        const TextPieces pieces = pre_tokenizer_.split(inner.text, at_start);
        for (const std::string_view piece : pieces.pieces) {
          encode_piece(piece, ids);
        }
      }
      at_start = false;
    }
  }
  return ids;
}

std::string JsonTokenizer::decode(std::span<const TokenId> ids) const {
  return decoder_->decode(spell(spellings_, ids));
}

}  // namespace llmpress
