// UTF-8 and the few facts about Unicode that tokenizers ask for.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace llmpress {

// Offset of the first byte that is not part of well-formed UTF-8 (Unicode 15,
// table 3-7: no overlong forms, no surrogates), or text.size().
std::size_t valid_utf8_length(std::string_view text);

// Reads the character at `offset` of well-formed UTF-8 and moves past it.
char32_t next_utf8(std::string_view text, std::size_t& offset);
// Offset of the character that ends before `offset` > 0.
std::size_t previous_utf8(std::string_view text, std::size_t offset);
void append_utf8(std::string& text, char32_t character);

// Every ill-formed sequence becomes one U+FFFD (maximal subparts, as in
// Unicode 15, section 3.9, "substitution of maximal subparts").
std::string replace_invalid_utf8(std::string_view bytes);

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };
// `text` must be well-formed. Lines of ASCII are copied.
std::string normalize_unicode(std::string_view text, UnicodeForm form);

// Where the extended grapheme clusters (Unicode TR 29) of well-formed `text` end.
std::vector<std::size_t> grapheme_ends(std::string_view text);

enum class UnicodeCase { kUpper, kLower, kTitle };
// Of well-formed text, which may become longer: all of it, or, as a title, its
// first character and no other.
std::string map_case(std::string_view text, UnicodeCase to);
bool is_cased(char32_t character);
bool is_letter(char32_t character);

bool is_white_space(char32_t character);
// What \w matches by Unicode TS 18, annex C.
bool is_word_character(char32_t character);

}  // namespace llmpress
