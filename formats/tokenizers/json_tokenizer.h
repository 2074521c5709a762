// tokenizer.json. Kinds of models:
//
//   BPE        byte-level: GPT-2, Llama-3, Qwen: bytes spelled by 256
//              characters, words cut by a regular expression
//              metaspace: Llama-2, Mistral: U+2581 for a space, bytes
//              <0x00>..<0xFF> for characters outside the vocabulary
//   Unigram    T5, XLM-R and what is converted from SentencePiece
//   WordPiece  BERT
//   WordLevel  a word a token
//
// A text passes: added tokens, normalizer, added tokens that are looked for in
// normalized text, pre_tokenizer, model.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizers/added_tokens.h"
#include "formats/tokenizers/piece_model.h"
#include "formats/tokenizers/pre_tokenizer.h"
#include "formats/tokenizers/text_normalizer.h"
#include "formats/tokenizers/token_decoder.h"
#include "formats/tokenizers/tokenizer.h"
#include "formats/tokenizers/tokenizer_config.h"

namespace llmpress {

class JsonTokenizer final : public Tokenizer {
 public:
  // Throws Error(kUnsupported) or Error(kCorruptFile), with the place.
  JsonTokenizer(const JsonView& root, const TokenizerConfig& config);

  std::vector<TokenId> encode(std::string_view text) const override;
  std::string decode(std::span<const TokenId> ids) const override;
  std::size_t vocabulary_size() const override { return spellings_.size(); }

 private:
  // Set `model_`, and the vocabulary that it has.
  void read_model(const JsonView& model, const std::string& type);
  void read_vocabulary(const JsonView& model);
  void read_byte_pairs(const JsonView& model);
  void read_unigram(const JsonView& model);
  void read_words(const JsonView& model, bool pieces);
  std::optional<TokenId> unknown_token(const JsonView& model) const;
  void read_added_tokens(const JsonView& root, const TokenizerConfig& config);
  void read_decoder(const JsonView& root);
  void read_ends(const JsonView& root, const TokenizerConfig& config);
  std::optional<TokenId> id_of(const std::string& token) const;
  void add_spelling(TokenId id, const std::string& text, bool literal);

  bool byte_level_ = false, metaspace_ = false;  // of BPE
  TextNormalizer normalizer_{};
  PreTokenizer pre_tokenizer_{};
  AddedTokenFinder added_{}, normalized_added_{};
  Vocabulary vocabulary_{}, added_ids_{};
  std::vector<std::optional<Spelling>> spellings_{};  // by id
  std::unique_ptr<PieceModel> model_{};
  std::optional<TokenDecoder> decoder_{};
};

}  // namespace llmpress
