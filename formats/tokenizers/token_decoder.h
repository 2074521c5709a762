// The decoder of tokenizer.json: from the spelling of tokens to text. Known:
// Sequence, ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip, WordPiece,
// BPEDecoder.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/files/json_reader.h"
#include "formats/tokenizers/text_regex.h"
#include "formats/tokenizers/tokenizer.h"

namespace llmpress {

// GPT-2's 256 characters that stand for bytes: !..~, U+00A1..U+00AC and
// U+00AE..U+00FF for themselves, the other 68 bytes, in order, for U+0100
// onwards. So a space is U+0120.
char32_t byte_level_character(unsigned char byte);
std::optional<unsigned char> byte_of_character(char32_t character);
// Every byte of `text` by its character.
std::string byte_level_spelling(std::string_view text);
// The bytes that a byte-level spelling stands for; empty optional if it holds a
// character that stands for none.
std::optional<std::string> byte_level_bytes(std::string_view spelling);
// The byte that a token such as <0x0A> stands for.
std::optional<unsigned char> fallback_byte(std::string_view token);

struct Spelling {
  std::string text{};
  bool literal = false;  // an added token, which is written as it reads
};

// Those of `ids` in a vocabulary. Throws Error(kInvalidArgument) for an id that
// it does not have.
std::vector<Spelling> spell(std::span<const std::optional<Spelling>> vocabulary,
                            std::span<const TokenId> ids);

class TokenDecoder {
 public:
  explicit TokenDecoder(const JsonView& json);
  // What a tokenizer.json without decoder means for its kind of model.
  static TokenDecoder byte_level();
  static TokenDecoder metaspace(bool strips_prefix);
  static TokenDecoder joined_by_spaces();

  // Well-formed UTF-8: bytes that are not become U+FFFD.
  std::string decode(std::vector<Spelling> spellings) const;

 private:
  struct ByteLevel {};
  struct ByteFallback {};
  struct Fuse {};
  struct Metaspace {
    std::string replacement{};
    bool strips_prefix = true;
  };
  struct Replace {
    std::string from{}, to{};
  };
  struct ReplaceMatches {
    TextRegex pattern;
    std::string to{};
  };
  struct WordPiece {
    std::string prefix{};
    bool cleanup = true;  // no space in front of a full stop and the like
  };
  struct EndOfWord {
    std::string suffix{};
  };
  struct Join {};  // by spaces
  struct Strip {
    std::string content{};
    std::size_t start = 0, stop = 0;
  };
  using Step = std::variant<ByteLevel, ByteFallback, Fuse, Metaspace, Replace,
                            Strip, ReplaceMatches, WordPiece, EndOfWord, Join>;

  TokenDecoder() = default;
  void add(const JsonView& json);
  void add_replace(const JsonView& json);
  void add_metaspace(const JsonView& json);
  void add_strip(const JsonView& json);

  static void run(const ByteLevel&, std::vector<Spelling>& spellings);
  static void run(const ByteFallback&, std::vector<Spelling>& spellings);
  static void run(const Fuse&, std::vector<Spelling>& spellings);
  static void run(const Metaspace& step, std::vector<Spelling>& spellings);
  static void run(const Replace& step, std::vector<Spelling>& spellings);
  static void run(const Strip& step, std::vector<Spelling>& spellings);
  static void run(const ReplaceMatches& step, std::vector<Spelling>& spellings);
  static void run(const WordPiece& step, std::vector<Spelling>& spellings);
  static void run(const EndOfWord& step, std::vector<Spelling>& spellings);
  static void run(const Join& step, std::vector<Spelling>& spellings);

  std::vector<Step> steps_{};
};

}  // namespace llmpress
