#include "formats/tokenizers/unicode_text.h"

#include <unicode/ubrk.h>
#include <unicode/ucasemap.h>
#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/ustring.h>
#include <unicode/utext.h>

#include <algorithm>
#include <cassert>
#include <limits>
#include <memory>
#include <vector>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

struct Sequence {
  std::size_t length =
      1;  // bytes of the longest well-formed prefix, at least 1
  bool complete = false;
};

// Table 3-7 of Unicode 15: which second bytes may follow each first byte.
Sequence sequence_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return static_cast<unsigned char>(text[i]);
  };
  const unsigned first = byte(at);
  if (first < 0x80) return {1, true};
  if (first < 0xC2 || first > 0xF4) return {1, false};
  const std::size_t wanted = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  unsigned low = 0x80, high = 0xBF;
  if (first == 0xE0) low = 0xA0;
  if (first == 0xED) high = 0x9F;
  if (first == 0xF0) low = 0x90;
  if (first == 0xF4) high = 0x8F;
  std::size_t length = 1;
  while (length < wanted && at + length < text.size() &&
         byte(at + length) >= low && byte(at + length) <= high) {
    ++length;
    low = 0x80;
    high = 0xBF;
  }
  return {length, length == wanted};
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x80;
  });
}

const UNormalizer2* normalizer(UnicodeForm form) {
  UErrorCode status = U_ZERO_ERROR;
  const UNormalizer2* instance = nullptr;
  switch (form) {
    case UnicodeForm::kNfc:
      instance = unorm2_getNFCInstance(&status);
      break;
    case UnicodeForm::kNfd:
      instance = unorm2_getNFDInstance(&status);
      break;
    case UnicodeForm::kNfkc:
      instance = unorm2_getNFKCInstance(&status);
      break;
    case UnicodeForm::kNfkd:
      instance = unorm2_getNFKDInstance(&status);
      break;
  }
  if (U_FAILURE(status)) {
    fail(ErrorCode::kIo, "Unicode normalization: {}", u_errorName(status));
  }
  return instance;
}

[[noreturn]] void refuse(UErrorCode status) {
  fail(ErrorCode::kInvalidInput, "Unicode normalization: {}",
       u_errorName(status));
}

void append_normalized(std::string& out, std::string_view line,
                       const UNormalizer2* form) {
  // No form makes a text longer than 18 times (Unicode TR 15, section 9).
  if (line.size() > std::numeric_limits<std::int32_t>::max() / 54) {
    fail(ErrorCode::kInvalidInput,
         "Unicode normalization: a line of {} bytes is too long", line.size());
  }
  UErrorCode status = U_ZERO_ERROR;
  std::vector<UChar> source(line.size()), normalized(line.size());
  std::int32_t length = 0;
  u_strFromUTF8(source.data(), static_cast<std::int32_t>(source.size()),
                &length, line.data(), static_cast<std::int32_t>(line.size()),
                &status);
  if (U_FAILURE(status)) refuse(status);
  source.resize(static_cast<std::size_t>(length));
  for (int attempt = 0; attempt < 2; ++attempt) {
    status = U_ZERO_ERROR;
    length = unorm2_normalize(
        form, source.data(), static_cast<std::int32_t>(source.size()),
        normalized.data(), static_cast<std::int32_t>(normalized.size()),
        &status);
    if (status != U_BUFFER_OVERFLOW_ERROR) break;
    normalized.resize(static_cast<std::size_t>(length));
  }
  if (U_FAILURE(status)) refuse(status);
  const std::size_t before = out.size();
  out.resize(before + 3 * static_cast<std::size_t>(length));
  std::int32_t bytes = 0;
  u_strToUTF8(out.data() + before,
              static_cast<std::int32_t>(out.size() - before), &bytes,
              normalized.data(), length, &status);
  if (U_FAILURE(status)) refuse(status);
  out.resize(before + static_cast<std::size_t>(bytes));
}

}  // namespace

std::size_t valid_utf8_length(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const Sequence sequence = sequence_at(text, at);
    if (!sequence.complete) return at;
    at += sequence.length;
  }
  return at;
}

char32_t next_utf8(std::string_view text, std::size_t& offset) {
  assert(offset < text.size());
  const auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[offset + i]));
  };
  const char32_t first = byte(0);
  std::size_t length = 1;
  char32_t character = first;
  if (first >= 0xF0) {
    length = 4;
    character = (first & 7) << 18 | (byte(1) & 63) << 12 | (byte(2) & 63) << 6 |
                (byte(3) & 63);
  } else if (first >= 0xE0) {
    length = 3;
    character = (first & 15) << 12 | (byte(1) & 63) << 6 | (byte(2) & 63);
  } else if (first >= 0x80) {
    length = 2;
    character = (first & 31) << 6 | (byte(1) & 63);
  }
  offset += length;
  return character;
}

std::size_t previous_utf8(std::string_view text, std::size_t offset) {
  assert(offset > 0);
  do {
    --offset;
  } while (offset > 0 &&
           (static_cast<unsigned char>(text[offset]) & 0xC0) == 0x80);
  return offset;
}

void append_utf8(std::string& text, char32_t character) {
  const auto put = [&](char32_t byte) { text += static_cast<char>(byte); };
  if (character < 0x80) {
    put(character);
    return;
  }
  if (character < 0x800) {
    put(0xC0 | character >> 6);
  } else {
    if (character < 0x10000) {
      put(0xE0 | character >> 12);
    } else {
      put(0xF0 | character >> 18);
      put(0x80 | (character >> 12 & 63));
    }
    put(0x80 | (character >> 6 & 63));
  }
  put(0x80 | (character & 63));
}

std::string replace_invalid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (std::size_t at = 0; at < bytes.size();) {
    const Sequence sequence = sequence_at(bytes, at);
    if (sequence.complete) {
      text += bytes.substr(at, sequence.length);
    } else {
      text += "\xEF\xBF\xBD";
    }
    at += sequence.length;
  }
  return text;
}

std::string normalize_unicode(std::string_view text, UnicodeForm form) {
  const UNormalizer2* const instance = normalizer(form);
  std::string out;
  out.reserve(text.size());
  // A line feed neither composes nor reorders: lines are independent.
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t feed = text.find('\n', at);
    const std::size_t end =
        feed == std::string_view::npos ? text.size() : feed + 1;
    const std::string_view line = text.substr(at, end - at);
    if (is_ascii(line)) {
      out += line;
    } else {
      append_normalized(out, line, instance);
    }
    at = end;
  }
  return out;
}

namespace {

void check_status(UErrorCode status) {
  if (U_SUCCESS(status)) return;
  fail(ErrorCode::kIo, "Unicode tables: {}", u_errorName(status));
}

// Of a line, or of a part of one that begins with a grapheme.
void append_grapheme_ends(UBreakIterator* breaks, std::string_view line,
                          std::size_t base, std::vector<std::size_t>& ends) {
  UErrorCode status = U_ZERO_ERROR;
  const std::unique_ptr<UText, decltype(&utext_close)> text(
      utext_openUTF8(nullptr, line.data(),
                     static_cast<std::int64_t>(line.size()), &status),
      &utext_close);
  check_status(status);
  ubrk_setUText(breaks, text.get(), &status);
  check_status(status);
  ubrk_first(breaks);
  for (std::int32_t end = ubrk_next(breaks); end != UBRK_DONE;
       end = ubrk_next(breaks)) {
    ends.push_back(base + static_cast<std::size_t>(end));
  }
}

}  // namespace

std::vector<std::size_t> grapheme_ends(std::string_view text) {
  UErrorCode status = U_ZERO_ERROR;
  const std::unique_ptr<UBreakIterator, decltype(&ubrk_close)> breaks(
      ubrk_open(UBRK_CHARACTER, "", nullptr, 0, &status), &ubrk_close);
  check_status(status);
  std::vector<std::size_t> ends;
  for (std::size_t at = 0; at < text.size();) {  // no grapheme goes over a line
    const std::size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    if (end - at > std::numeric_limits<std::int32_t>::max()) {
      fail(ErrorCode::kInvalidInput,
           "Unicode graphemes: a line of {} bytes is too long", end - at);
    }
    append_grapheme_ends(breaks.get(), text.substr(at, end - at), at, ends);
    at = end;
  }
  return ends;
}

std::string map_case(std::string_view text, UnicodeCase to) {
  if (text.size() > std::numeric_limits<std::int32_t>::max() / 16) {
    fail(ErrorCode::kInvalidInput, "Unicode case: a text of {} bytes",
         text.size());
  }
  UErrorCode status = U_ZERO_ERROR;
  const std::unique_ptr<UCaseMap, decltype(&ucasemap_close)> map(
      ucasemap_open("",
                    to == UnicodeCase::kTitle ? U_TITLECASE_WHOLE_STRING : 0,
                    &status),
      &ucasemap_close);
  check_status(status);
  const auto size = static_cast<std::int32_t>(text.size());
  std::string out(text.size(), '\0');
  for (int attempt = 0; attempt < 2; ++attempt) {
    status = U_ZERO_ERROR;
    const auto room = static_cast<std::int32_t>(out.size());
    const auto map_all =
        to == UnicodeCase::kUpper ? ucasemap_utf8ToUpper : ucasemap_utf8ToLower;
    const std::int32_t length =
        to == UnicodeCase::kTitle
            ? ucasemap_utf8ToTitle(map.get(), out.data(), room, text.data(),
                                   size, &status)
            : map_all(map.get(), out.data(), room, text.data(), size, &status);
    out.resize(static_cast<std::size_t>(length));
    if (status != U_BUFFER_OVERFLOW_ERROR) break;
  }
  check_status(status);
  return out;
}

bool is_cased(char32_t character) {
  return u_hasBinaryProperty(static_cast<UChar32>(character), UCHAR_CASED);
}

bool is_letter(char32_t character) {
  return (U_GET_GC_MASK(static_cast<UChar32>(character)) & U_GC_L_MASK) != 0;
}

bool is_white_space(char32_t character) {
  return u_isUWhiteSpace(static_cast<UChar32>(character));
}

bool is_word_character(char32_t character) {
  const auto c = static_cast<UChar32>(character);
  return u_isUAlphabetic(c) || u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL) ||
         (U_GET_GC_MASK(c) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0;
}

}  // namespace llmpress
