// The pre_tokenizer of tokenizer.json: cuts a text into the pieces inside which
// byte pairs are merged. Known: Sequence, Split, Digits, Metaspace, ByteLevel
// (last, as everywhere).
//
// GPT-2's ByteLevel cuts by the expression of its paper's code:
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// The bytes stay bytes here: the model knows the 256 characters that stand for
// them in the vocabulary.
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

  bool byte_level() const { return byte_level_; }
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
  using Step = std::variant<Split, Metaspace, PrefixSpace>;

  void add(const JsonView& json);
  void add_split(const JsonView& json);
  void add_metaspace(const JsonView& json);
  static Behavior behavior_of(const JsonView& json);
  static void split_by(const Split& step, std::string_view piece,
                       TextPieces& out);
  static void metaspace(const Metaspace& step, std::string_view piece,
                        bool at_start, TextPieces& out);

  std::vector<Step> steps_{};
  bool byte_level_ = false;
};

}  // namespace llmpress
