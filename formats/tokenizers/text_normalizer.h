// The normalizer of tokenizer.json: what happens to a text before it is split.
// Known: Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/files/json_reader.h"
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
  using Step = std::variant<Prepend, Replace, ReplaceMatches, UnicodeForm>;
  void add(const JsonView& json);
  std::string apply_step(const Step& step, const std::string& text,
                         std::size_t most_bytes) const;

  std::string place_{};
  std::vector<Step> steps_{};
};

std::string replace_all(std::string_view text, std::string_view from,
                        std::string_view to);

}  // namespace llmpress
