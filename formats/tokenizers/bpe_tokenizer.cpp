#include "formats/tokenizers/bpe_tokenizer.h"

#include <algorithm>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/tokenizers/unicode_text.h"

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
                                  const BpeModel::Vocabulary& vocabulary) {
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
    merges.push_back(
        {.left = id(left), .right = id(right), .result = id(left + right)});
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
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto affix = model.find(name);
    if (affix && !affix->text().empty()) {
      affix->unsupported("'" + affix->text() + "' is not known");
    }
  }
}

// The first token that post_processor puts before a text.
struct Template {
  bool known = false;  // whether there is one
  std::optional<TokenId> first{};
};

TokenId special_id(const JsonView& processor, const JsonView& special) {
  const std::string& name = special.at("id").text();
  const auto ids = processor.at("special_tokens").at(name).at("ids").items();
  if (ids.size() != 1) special.unsupported("wanted one id for '" + name + "'");
  return static_cast<TokenId>(ids[0].natural(kLargestTokenId));
}

void read_template(const JsonView& processor, Template& out) {
  const JsonView type = processor.at("type");
  if (type.text() == "Sequence") {
    for (const JsonView& step : processor.at("processors").items()) {
      read_template(step, out);
    }
    return;
  }
  if (type.text() == "ByteLevel") return;  // changes offsets only
  if (type.text() != "TemplateProcessing") {
    type.unsupported("post-processor '" + type.text() +
                     "' is not known (known: Sequence, ByteLevel, "
                     "TemplateProcessing)");
  }
  out.known = true;
  for (const JsonView& item : processor.at("single").items()) {
    if (item.find("Sequence")) break;
    if (out.first) item.unsupported("more than one token before the text");
    out.first = special_id(processor, item.at("SpecialToken"));
  }
}

}  // namespace

BpeTokenizer::BpeTokenizer(const JsonView& root,
                           const TokenizerConfig& config) {
  const JsonView model = root.at("model");
  // Files older than the key are told apart by what only BPE has.
  const std::string type =
      model.text_or("type", model.find("merges") ? "BPE" : "");
  if (type != "BPE") {
    model.unsupported("model '" + type + "' is not known (known: BPE)");
  }
  if (const auto json = root.find("normalizer")) {
    normalizer_ = TextNormalizer(*json);
  }
  if (const auto json = root.find("pre_tokenizer")) {
    pre_tokenizer_ = PreTokenizer(*json);
  }
  metaspace_ =
      !pre_tokenizer_.byte_level() &&
      (pre_tokenizer_.has_metaspace() || normalizer_.prefix() == kMetaspace ||
       normalizer_.apply(" ").find(kMetaspace) != std::string::npos);
  kind = pre_tokenizer_.byte_level() ? "bpe byte-level"
         : metaspace_                ? "bpe metaspace"
                                     : "bpe";
  read_model(model);
  read_added_tokens(root, config);
  read_decoder(root);
  read_ends(root, config);
}

void BpeTokenizer::read_model(const JsonView& model) {
  refuse_settings(model);
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
  BpeModelConfig config{.byte_level = pre_tokenizer_.byte_level(),
                        .byte_fallback = model.bool_or("byte_fallback", false),
                        .fuse_unknown = model.bool_or("fuse_unk", false),
                        .ignore_merges = model.bool_or("ignore_merges", false),
                        .origin = model.place()};
  if (const auto unknown = model.find("unk_token")) {
    config.unknown = id_of(unknown->text());
    if (!config.unknown && !unknown->text().empty()) {
      unknown->corrupt("'" + unknown->text() + "' is not in /model/vocab");
    }
  }
  model_ = std::make_unique<BpeModel>(
      vocabulary_, read_merges(model.at("merges"), vocabulary_),
      std::move(config));
}

void BpeTokenizer::add_spelling(TokenId id, const std::string& text,
                                bool literal) {
  if (spellings_.size() <= id) spellings_.resize(std::size_t{id} + 1);
  spellings_[id] = Spelling{.text = text, .literal = literal};
}

std::optional<TokenId> BpeTokenizer::id_of(const std::string& token) const {
  for (const auto* table : {&added_ids_, &vocabulary_}) {
    const auto found = table->find(token);
    if (found != table->end()) return found->second;
  }
  return std::nullopt;
}

void BpeTokenizer::read_added_tokens(const JsonView& root,
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

void BpeTokenizer::read_decoder(const JsonView& root) {
  if (const auto json = root.find("decoder")) {
    decoder_ = TokenDecoder(*json);
  } else if (pre_tokenizer_.byte_level()) {
    decoder_ = TokenDecoder::byte_level();
  } else {
    decoder_ = TokenDecoder::metaspace(pre_tokenizer_.adds_prefix() ||
                                       !normalizer_.prefix().empty());
  }
}

void BpeTokenizer::read_ends(const JsonView& root,
                             const TokenizerConfig& config) {
  Template wanted;
  const auto processor = root.find("post_processor");
  if (processor) read_template(*processor, wanted);
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

std::vector<TokenId> BpeTokenizer::encode(std::string_view text) const {
  if (const std::size_t valid = valid_utf8_length(text); valid < text.size()) {
    fail(ErrorCode::kInvalidInput, "text: byte {} is not UTF-8", valid);
  }
  std::vector<TokenId> ids;
  BpeModel::Scratch scratch;
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
          model_->encode(piece, scratch, ids);
        }
      }
      at_start = false;
    }
  }
  return ids;
}

std::string BpeTokenizer::decode(std::span<const TokenId> ids) const {
  return decoder_->decode(spell(spellings_, ids));
}

}  // namespace llmpress
