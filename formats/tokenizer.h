// Text to token ids and back, from the files of a Hugging Face folder.
#pragma once

#include <cstdint>
#include <filesystem>
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
  // Ids of `text` (UTF-8) without BOS or EOS. Special tokens written in the text
  // are recognised as in the reference tokenizers.
  virtual std::vector<TokenId> encode(std::string_view text) const = 0;
  virtual std::string decode(std::span<const TokenId> ids) const = 0;
  virtual std::size_t vocabulary_size() const = 0;  // largest id + 1

  std::optional<TokenId> bos_id{}, eos_id{};
  bool adds_bos = false;  // whether the tokenizer itself puts BOS in front
  std::string sha256{};   // of the file it was read from
  std::string kind{};     // "sentencepiece", "bpe byte-level", "bpe metaspace"

  // BOS in front if the tokenizer adds one, then encode(text).
  std::vector<TokenId> encode_document(std::string_view text) const;
};

// From a directory: tokenizer.json if there, otherwise tokenizer.model, with
// tokenizer_config.json deciding BOS (add_bos_token, bos_token). Or from one
// such file. Throws Error(kInvalidInput) if there is none, kUnsupported for a
// kind this version does not know, kCorruptFile with the place otherwise.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);

}  // namespace llmpress
