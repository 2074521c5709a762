#include "formats/tokenizers/character_kinds.h"

#include <unicode/uchar.h>
#include <unicode/uscript.h>

#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

bool is_newer_than(char32_t character, int version) {
  UVersionInfo age{};
  u_charAge(static_cast<UChar32>(character), age);
  return age[0] > version;
}

bool in_category(char32_t c, std::uint32_t mask, int newest_version) {
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & mask) != 0 &&
         !is_newer_than(c, newest_version);
}

bool between(char32_t c, char32_t first, char32_t last) {
  return c >= first && c <= last;
}

}  // namespace

bool is_bert_control(char32_t c) {
  if (c == '\t' || c == '\n' || c == '\r') return false;
  return in_category(c, U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK, 8);
}

bool is_bert_punctuation(char32_t c) {
  if (c < 0x80)
    return c > ' ' && c < 0x7F && u_isalnum(static_cast<int>(c)) == 0;
  if (c == 0x166D || c == 0x111C9) return true;  // So and Mn since
  return in_category(c, U_GC_P_MASK, 8);
}

bool is_bert_ideograph(char32_t c) {
  return between(c, 0x4E00, 0x9FFF) || between(c, 0x3400, 0x4DBF) ||
         between(c, 0x20000, 0x2A6DF) || between(c, 0x2A700, 0x2B81F) ||
         between(c, 0x2B920, 0x2CEAF) || between(c, 0xF900, 0xFAFF) ||
         between(c, 0x2F800, 0x2FA1F);
}

bool is_nonspacing_mark(char32_t c) {
  if (c == 0x1734) return true;  // Mc since
  if (between(c, 0x1885, 0x1886) || c == 0xA9BD || c == 0x111C9) return false;
  return in_category(c, U_GC_MN_MASK, 8);
}

bool is_combining_mark(char32_t c) {
  if (between(c, 0x1CF2, 0x1CF3)) return true;  // Lo since
  if (c == 0x111C9) return false;
  return in_category(c, U_GC_M_MASK, 9);
}

bool is_nmt_removed(char32_t c) {
  return between(c, 0x01, 0x08) || c == 0x0B || between(c, 0x0E, 0x1F) ||
         c == 0x7F || c == 0x8F || c == 0x9F;
}

bool is_nmt_space(char32_t c) {
  return c == '\t' || c == '\n' || c == 0x0C || c == '\r' || c == 0x1680 ||
         between(c, 0x200B, 0x200F) || between(c, 0x2028, 0x2029) ||
         c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
}

bool is_numeric(char32_t c) {
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_N_MASK) != 0;
}

int script_of(char32_t c) {
  constexpr char32_t kProlongedSound = 0x30FC;  // of hiragana and katakana
  if (c == ' ' || is_newer_than(c, 9)) return kAnyScript;
  if (c == kProlongedSound) return USCRIPT_HAN;
  UErrorCode status = U_ZERO_ERROR;
  const UScriptCode script =
      uscript_getScript(static_cast<UChar32>(c), &status);
  if (U_FAILURE(status) || script == USCRIPT_UNKNOWN) return kAnyScript;
  const bool kana = script == USCRIPT_HIRAGANA || script == USCRIPT_KATAKANA;
  return kana ? USCRIPT_HAN : script;
}

void append_lower(std::string& text, char32_t c) {
  if (c == 0x130) {  // the only one whose lower case has two characters
    text += "i\xCC\x87";
    return;
  }
  append_utf8(text, static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))));
}

}  // namespace llmpress
