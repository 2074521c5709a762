// Kinds of characters as the normalizers and pre-tokenizers of `tokenizers` see
// them. Some of its tables are of Unicode 8 or 9: a character that is newer, or
// of another kind since, is there still what it was, so that ids stay the same.
#pragma once

#include <string>

namespace llmpress {

// Category Cc, Cf or Co of Unicode 8, but not tab, line feed and return.
bool is_bert_control(char32_t character);
// Punctuation of ASCII, or a category P of Unicode 8.
bool is_bert_punctuation(char32_t character);
// The ideographs that BERT writes with spaces around; as there, U+2B820 to
// U+2B91F are none.
bool is_bert_ideograph(char32_t character);
bool is_nonspacing_mark(char32_t character);  // Mn of Unicode 8
bool is_combining_mark(char32_t character);   // M of Unicode 9
// What SentencePiece's nmt rules take out, and what they read as a space.
bool is_nmt_removed(char32_t character);
bool is_nmt_space(char32_t character);
bool is_numeric(char32_t character);  // N

// A number for the script: that of what scripts share is one, too; the same for
// hiragana, katakana and Han; kAnyScript for a space and what Unicode 9 does
// not know.
inline constexpr int kAnyScript = -1;
int script_of(char32_t character);

// In lower case, each character by itself (Unicode's unconditional mappings).
void append_lower(std::string& text, char32_t character);

}  // namespace llmpress
