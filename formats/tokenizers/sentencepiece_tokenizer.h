// tokenizer.model: Kudo and Richardson 2018, arXiv:1808.06226, read and run by
// libsentencepiece. Its own normalization (white space, NFKC) is done as the
// file says, so that text of a model with remove_extra_whitespaces does not
// come back as it was.
//
// The library knows special tokens only as ids: as in the reference tokenizers
// they are found in the text first, and each stretch between them is a text of
// its own.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/tokenizers/added_tokens.h"
#include "formats/tokenizers/token_decoder.h"
#include "formats/tokenizers/tokenizer.h"
#include "formats/tokenizers/tokenizer_config.h"

namespace llmpress {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  // `model`: the content of the file, named `origin` in messages. Throws
  // Error(kCorruptFile) if the library does not take it.
  SentencePieceTokenizer(std::string_view model, const TokenizerConfig& config,
                         const std::string& origin);
  ~SentencePieceTokenizer() override;

  std::vector<TokenId> encode(std::string_view text) const override;
  std::string decode(std::span<const TokenId> ids) const override;
  std::size_t vocabulary_size() const override { return spellings_.size(); }

 private:
  struct Processor;

  void read_pieces();
  void read_special_tokens(const TokenizerConfig& config);
  std::optional<TokenId> id_of(const std::string& token) const;

  std::string origin_;
  std::unique_ptr<Processor> processor_;
  // Of the texts after the first, where those get no space in front.
  std::unique_ptr<Processor> continuing_;
  AddedTokenFinder special_{};
  std::vector<std::optional<Spelling>> spellings_{};  // by id
  std::unordered_map<std::string, TokenId> added_{};  // not in the file
  std::optional<TokenDecoder> decoder_{};
};

}  // namespace llmpress
