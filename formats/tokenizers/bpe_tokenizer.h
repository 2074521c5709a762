// tokenizer.json of the BPE kinds:
//
//   byte-level  GPT-2, Llama-3, Qwen: bytes spelled by 256 characters, words
//   cut
//               by a regular expression
//   metaspace   Llama-2, Mistral: U+2581 for a space, bytes <0x00>..<0xFF> for
//               characters outside the vocabulary
//
// A text passes: added tokens, normalizer, added tokens that are looked for in
// normalized text, pre_tokenizer, model.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizers/added_tokens.h"
#include "formats/tokenizers/bpe_model.h"
#include "formats/tokenizers/pre_tokenizer.h"
#include "formats/tokenizers/text_normalizer.h"
#include "formats/tokenizers/token_decoder.h"
#include "formats/tokenizers/tokenizer.h"
#include "formats/tokenizers/tokenizer_config.h"

namespace llmpress {

class BpeTokenizer final : public Tokenizer {
 public:
  // Throws Error(kUnsupported) or Error(kCorruptFile), with the place.
  BpeTokenizer(const JsonView& root, const TokenizerConfig& config);

  std::vector<TokenId> encode(std::string_view text) const override;
  std::string decode(std::span<const TokenId> ids) const override;
  std::size_t vocabulary_size() const override { return spellings_.size(); }

 private:
  void read_model(const JsonView& model);
  void read_added_tokens(const JsonView& root, const TokenizerConfig& config);
  void read_decoder(const JsonView& root);
  void read_ends(const JsonView& root, const TokenizerConfig& config);
  std::optional<TokenId> id_of(const std::string& token) const;
  void add_spelling(TokenId id, const std::string& text, bool literal);

  bool metaspace_ = false;
  TextNormalizer normalizer_{};
  PreTokenizer pre_tokenizer_{};
  AddedTokenFinder added_{}, normalized_added_{};
  BpeModel::Vocabulary vocabulary_{}, added_ids_{};
  std::vector<std::optional<Spelling>> spellings_{};  // by id
  std::unique_ptr<BpeModel> model_{};
  std::optional<TokenDecoder> decoder_{};
};

}  // namespace llmpress
