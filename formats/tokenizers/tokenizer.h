// Text to token ids and back, from the files of a Hugging Face folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmpress {

using TokenId = std::uint32_t;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Ids of `text` (UTF-8) without BOS or EOS. Special tokens written in the
  // text are recognised as in the reference tokenizers. Throws
  // Error(kInvalidInput) if `text` is not UTF-8 or has a character that the
  // vocabulary cannot spell.
  virtual std::vector<TokenId> encode(std::string_view text) const = 0;
  // Well-formed UTF-8: bytes that are none become U+FFFD. Special tokens are
  // written out. The space that a tokenizer of Llama-2's kind puts in front of
  // a text is taken away again, so that decode(encode(text)) == text: to show
  // what was generated, decode prompt and answer together. Throws
  // Error(kInvalidArgument) if an id is not in the vocabulary.
  virtual std::string decode(std::span<const TokenId> ids) const = 0;
  virtual std::size_t vocabulary_size() const = 0;  // largest id + 1

  std::optional<TokenId> bos_id{}, eos_id{};
  bool adds_bos = false;  // whether the tokenizer itself puts BOS in front
  std::string sha256{};   // of the file it was read from
  // "sentencepiece", "bpe byte-level", "bpe metaspace", "bpe", "unigram",
  // "wordpiece", "wordlevel"
  std::string kind{};

  // BOS in front if the tokenizer adds one, then encode(text).
  std::vector<TokenId> encode_document(std::string_view text) const;
};

// Contents of the files beside tokenizer.json or tokenizer.model; empty: not
// there. special_tokens_map.json and added_tokens.json count where
// tokenizer_config.json has no added_tokens_decoder, as in transformers.
struct TokenizerSideFiles {
  std::string config{};          // tokenizer_config.json
  std::string special_tokens{};  // special_tokens_map.json
  std::string added_tokens{};    // added_tokens.json
};

// From a directory: tokenizer.json if there, otherwise (also if tokenizer.json
// is of a kind this version does not know) tokenizer.model. Or from one such
// file. Whether BOS is added is said by tokenizer.json's post_processor if it
// has one; without it SentencePiece and Llama-2's kind add BOS unless
// tokenizer_config.json's add_bos_token is false. EOS is never added. Ids are
// those of transformers 4.57 (of a tokenizer.model: its Python class; 5 puts no
// space in front of a text that begins with one). Throws
// Error(kInvalidInput) if there is no tokenizer, kUnsupported for a kind this
// version does not know, kCorruptFile with the place otherwise.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);

// The same from wherever files lie: `content_of` a name, empty where there is
// no such file. `origin` is the name of the folder in messages.
using FileContents = std::function<std::string(const std::string& name)>;
std::unique_ptr<Tokenizer> tokenizer_from_files(const FileContents& content_of,
                                                const std::string& origin);

// From the contents of tokenizer.json, or of tokenizer.model.
std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view json,
                                               const TokenizerSideFiles& beside,
                                               const std::string& origin);
std::unique_ptr<Tokenizer> tokenizer_from_sentencepiece(
    std::string_view model, const TokenizerSideFiles& beside,
    const std::string& origin);

}  // namespace llmpress
