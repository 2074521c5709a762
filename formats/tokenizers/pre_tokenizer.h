// The pre_tokenizer of tokenizer.json: cuts a text into the pieces inside which
// a model makes its tokens. Known: Sequence, Split, Digits, Metaspace,
// ByteLevel, Whitespace, WhitespaceSplit, Punctuation, BertPreTokenizer,
// CharDelimiterSplit, UnicodeScripts.
//
// GPT-2's ByteLevel cuts by the expression of its paper's code:
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// Where it comes last, bytes may stay bytes: a model of byte pairs knows the 256
// characters that stand for them in the vocabulary.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/files/json_reader.h"
#include "formats/tokenizers/text_regex.h"

namespace llmpress {

// Pieces of a text; `owned` holds the ones that the text does not contain.
struct TextPieces {
  std::vector<std::string_view> pieces{};
  std::deque<std::string> owned{};
};

class PreTokenizer {
 public:
  PreTokenizer() = default;  // one piece: the text
  // Throws Error(kUnsupported) naming the place of an unknown type.
  explicit PreTokenizer(const JsonView& json);

  // Whether the last step spells bytes by characters. It does so only after
  // spell_bytes(); otherwise its bytes stay bytes.
  bool byte_level() const { return byte_level_; }
  void spell_bytes();
  bool has_metaspace() const;
  // Whether a space, or what stands for it, is put in front of a text.
  bool adds_prefix() const;

  // `text` must outlive the pieces. `at_start`: nothing of the document stands
  // before it.
  TextPieces split(std::string_view text, bool at_start) const;

 private:
  enum class Behavior {
    kRemoved,
    kIsolated,
    kMergedWithPrevious,
    kMergedWithNext,
    kContiguous
  };
  enum class Prefix { kNever, kFirst, kAlways };
  struct Split {
    TextRegex pattern;
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
  };
  struct Metaspace {
    std::string replacement{};
    Prefix prefix = Prefix::kAlways;
    bool split = true;
  };
  struct PrefixSpace {};
  struct SpellBytes {};
  struct Words {};    // runs of \w and of what is neither \w nor white space
  struct Scripts {};  // runs of one script
  // Every character of a kind is a match.
  struct CharacterSplit {
    bool (*is_match)(char32_t) = nullptr;
    char32_t character = 0;  // where is_match is not set
    Behavior behavior = Behavior::kIsolated;
  };
  using Step = std::variant<Split, Metaspace, PrefixSpace, SpellBytes, Words,
                            Scripts, CharacterSplit>;
  struct Span {
    std::size_t begin = 0, end = 0;
    bool match = false;
  };

  void add(const JsonView& json);
  bool add_simple(const JsonView& json);
  void add_byte_level(const JsonView& json);
  void add_delimiter(const JsonView& json);
  void add_split(const JsonView& json);
  void add_metaspace(const JsonView& json);
  static Behavior behavior_of(const JsonView& json);
  static std::vector<Span> cover(std::string_view text, const Split& step);
  static std::vector<Span> cover(std::string_view text,
                                 const CharacterSplit& step);
  static void split_by(const std::vector<Span>& spans, Behavior behavior,
                       std::string_view piece, TextPieces& out);

  static void run(const Split& step, std::string_view piece, bool at_start,
                  TextPieces& out);
  static void run(const CharacterSplit& step, std::string_view piece,
                  bool at_start, TextPieces& out);
  static void run(const Metaspace& step, std::string_view piece, bool at_start,
                  TextPieces& out);
  static void run(const PrefixSpace& step, std::string_view piece,
                  bool at_start, TextPieces& out);
  static void run(const SpellBytes& step, std::string_view piece, bool at_start,
                  TextPieces& out);
  static void run(const Words& step, std::string_view piece, bool at_start,
                  TextPieces& out);
  static void run(const Scripts& step, std::string_view piece, bool at_start,
                  TextPieces& out);

  std::vector<Step> steps_{};
  bool byte_level_ = false;
};

}  // namespace llmpress
