// The normalizer of tokenizer.json: what happens to a text before it is split.
// Known: Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, Strip,
// StripAccents, Nmt, Precompiled, ByteLevel, BertNormalizer.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/files/json_reader.h"
#include "formats/tokenizers/character_map.h"
#include "formats/tokenizers/text_regex.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {

class TextNormalizer {
 public:
  TextNormalizer() = default;  // changes nothing
  // Throws Error(kUnsupported) naming the place of an unknown type.
  explicit TextNormalizer(const JsonView& json);

  // Throws Error(kInvalidInput) naming the place if the text grows beyond what
  // any real normalizer makes of one.
  std::string apply(std::string_view text) const;
  // What the first step puts in front of every text; empty if nothing.
  std::string_view prefix() const;

 private:
  struct Prepend {
    std::string text{};
  };
  struct Replace {
    std::string from{}, to{};
  };
  struct ReplaceMatches {
    TextRegex pattern;
    std::string to{};
  };
  struct Strip {
    bool left = true, right = true;
  };
  // What happens to each character by itself.
  enum class Each { kLowercase, kStripAccents, kNmt };
  struct Bert {
    bool clean = true, spaces_ideographs = true;
    bool strips_accents = true, lowercase = true;
  };
  struct SpellBytes {};  // as GPT-2 (formats/tokenizers/token_decoder.h)
  using Step = std::variant<Prepend, Replace, ReplaceMatches, UnicodeForm,
                            Strip, Each, Bert, CharacterMap, SpellBytes>;
  // The steps of types without members; nullopt for any other.
  static std::optional<Step> simple_step(const std::string& type);
  void add(const JsonView& json);
  void add_replace(const JsonView& json);

  std::string run(const Prepend& step, const std::string& text,
                  std::size_t most_bytes) const;
  std::string run(const Replace& step, const std::string& text,
                  std::size_t most_bytes) const;
  std::string run(const ReplaceMatches& step, const std::string& text,
                  std::size_t most_bytes) const;
  std::string run(const UnicodeForm& step, const std::string& text,
                  std::size_t most_bytes) const;
  std::string run(const Strip& step, const std::string& text,
                  std::size_t most_bytes) const;
  std::string run(const Each& step, const std::string& text,
                  std::size_t most_bytes) const;
  std::string run(const Bert& step, const std::string& text,
                  std::size_t most_bytes) const;
  std::string run(const CharacterMap& step, const std::string& text,
                  std::size_t most_bytes) const;
  std::string run(const SpellBytes& step, const std::string& text,
                  std::size_t most_bytes) const;
  std::string replaced(std::string_view text,
                       const std::vector<TextRegex::Match>& matches,
                       std::string_view to, std::size_t most_bytes) const;
  void check_size(std::size_t bytes, std::size_t most_bytes) const;

  std::string place_{};
  std::vector<Step> steps_{};
};

std::string replace_all(std::string_view text, std::string_view from,
                        std::string_view to);

}  // namespace llmpress
