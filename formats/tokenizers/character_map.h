// The character map of SentencePiece (precompiled_charsmap), as it stands in a
// tokenizer.model and in the "Precompiled" normalizer of a tokenizer.json:
//   | u32 size of the trie | trie, units of u32 | strings, each ends in NUL |
// The trie is a double array (Aoe 1989) as Darts-clone makes it. A unit is
//   | 31: is a value | 10..30: offset | 9: offset is << 8 | 8: has a leaf |
//   | 0..7: label |
// From the node at p its child by byte c stands at (p ^ offset(p)) ^ c, and its
// leaf, whose lower 31 bits are a place in the strings, at p ^ offset(p).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llmpress {

class CharacterMap {
 public:
  // Throws Error(kCorruptFile, "<place>: its character map ...") for a map that
  // points outside itself, goes in a circle, replaces by more than 1024 bytes,
  // or has more than 32 keys that begin alike: libsentencepiece keeps so many
  // matches of one place in a text on its stack.
  CharacterMap(std::string_view map, std::string place);

  // What `tokenizers` makes of a text: each grapheme of less than 6 bytes, else
  // each of its characters, is replaced as a whole by what the map has for its
  // shortest beginning. `text` must be well-formed. Throws Error(kInvalidInput)
  // if it grows to more than `most_bytes`.
  std::string apply(std::string_view text, std::size_t most_bytes) const;

 private:
  [[noreturn]] void corrupt(const std::string& what) const;
  std::size_t base_of(std::size_t at, std::uint32_t unit) const;
  void check_strings() const;
  void check_leaf(std::size_t base) const;
  void check_trie(std::size_t root) const;
  std::optional<std::string_view> replacement(std::string_view chunk) const;
  void append(std::string& out, std::string_view grapheme) const;

  std::string place_;
  std::vector<std::uint32_t> units_{};
  std::string strings_{};
};

}  // namespace llmpress
