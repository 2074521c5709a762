#include "formats/tokenizers/token_decoder.h"

#include <array>
#include <limits>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/tokenizers/text_normalizer.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

constexpr std::string_view kMetaspace = "\xE2\x96\x81";  // U+2581
constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

constexpr std::array<char32_t, 256> kByteCharacters = [] {
  std::array<char32_t, 256> table{};
  char32_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    table[b] = stands_for_itself(b) ? static_cast<char32_t>(b) : next++;
  }
  return table;
}();

constexpr std::array<int, 0x144> kBytesOfCharacters = [] {
  std::array<int, 0x144> table{};
  for (int& byte : table) byte = -1;
  for (unsigned b = 0; b < 256; ++b) {
    table[kByteCharacters[b]] = static_cast<int>(b);
  }
  return table;
}();
static_assert(kByteCharacters[0xAD] == 0x143);  // the last of the 68

}  // namespace

char32_t byte_level_character(unsigned char byte) {
  return kByteCharacters[byte];
}

std::optional<unsigned char> byte_of_character(char32_t character) {
  if (character >= kBytesOfCharacters.size()) return std::nullopt;
  const int byte = kBytesOfCharacters[character];
  if (byte < 0) return std::nullopt;
  return static_cast<unsigned char>(byte);
}

std::string byte_level_spelling(std::string_view text) {
  std::string spelling;
  for (const char c : text) {
    append_utf8(spelling, byte_level_character(static_cast<unsigned char>(c)));
  }
  return spelling;
}

std::optional<std::string> byte_level_bytes(std::string_view spelling) {
  std::string bytes;
  for (std::size_t at = 0; at < spelling.size();) {
    const auto byte = byte_of_character(next_utf8(spelling, at));
    if (!byte) return std::nullopt;
    bytes += static_cast<char>(*byte);
  }
  return bytes;
}

std::optional<unsigned char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') {
    return std::nullopt;
  }
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  const int high = digit(token[3]), low = digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<unsigned char>(high * 16 + low);
}

TokenDecoder::TokenDecoder(const JsonView& json) { add(json); }

std::vector<Spelling> spell(std::span<const std::optional<Spelling>> vocabulary,
                            std::span<const TokenId> ids) {
  std::vector<Spelling> spellings;
  spellings.reserve(ids.size());
  for (const TokenId id : ids) {
    if (id >= vocabulary.size() || !vocabulary[id]) {
      fail(ErrorCode::kInvalidArgument,
           "decode: id {} is not in the vocabulary of {}", id,
           vocabulary.size());
    }
    spellings.push_back(*vocabulary[id]);
  }
  return spellings;
}

TokenDecoder TokenDecoder::byte_level() {
  TokenDecoder decoder;
  decoder.steps_ = {ByteLevel{}};
  return decoder;
}

TokenDecoder TokenDecoder::metaspace(bool strips_prefix) {
  TokenDecoder decoder;
  decoder.steps_ = {Replace{std::string(kMetaspace), " "}, ByteFallback{},
                    Fuse{}};
  if (strips_prefix) decoder.steps_.emplace_back(Strip{" ", 1, 0});
  return decoder;
}

TokenDecoder TokenDecoder::joined_by_spaces() {
  TokenDecoder decoder;
  decoder.steps_ = {Join{}};
  return decoder;
}

void TokenDecoder::add(const JsonView& json) {
  const JsonView type = json.at("type");
  if (type.text() == "Sequence") {
    for (const JsonView& step : json.at("decoders").items()) add(step);
  } else if (type.text() == "ByteLevel") {
    steps_.emplace_back(ByteLevel{});
  } else if (type.text() == "ByteFallback") {
    steps_.emplace_back(ByteFallback{});
  } else if (type.text() == "Fuse") {
    steps_.emplace_back(Fuse{});
  } else if (type.text() == "Metaspace") {
    add_metaspace(json);
  } else if (type.text() == "Replace") {
    add_replace(json);
  } else if (type.text() == "Strip") {
    add_strip(json);
  } else if (type.text() == "WordPiece") {
    steps_.emplace_back(WordPiece{.prefix = json.text_or("prefix", "##"),
                                  .cleanup = json.bool_or("cleanup", true)});
  } else if (type.text() == "BPEDecoder") {
    const std::string suffix = json.text_or("suffix", "</w>");
    if (suffix.empty()) json.at("suffix").corrupt("is empty");
    steps_.emplace_back(EndOfWord{suffix});
  } else {
    type.unsupported("decoder '" + type.text() +
                     "' is not known (known: Sequence, ByteLevel, "
                     "ByteFallback, Fuse, Metaspace, Replace, Strip, "
                     "WordPiece, BPEDecoder)");
  }
}

void TokenDecoder::add_metaspace(const JsonView& json) {
  const bool strips = json.text_or("prepend_scheme", "always") != "never" &&
                      json.bool_or("add_prefix_space", true);
  const std::string replacement =
      json.text_or("replacement", std::string(kMetaspace));
  if (replacement.empty()) json.at("replacement").corrupt("is empty");
  steps_.emplace_back(Metaspace{replacement, strips});
}

void TokenDecoder::add_replace(const JsonView& json) {
  const JsonView pattern = json.at("pattern");
  const std::string to = json.at("content").text();
  if (const auto from = pattern.find("String")) {
    if (from->text().empty()) from->corrupt("nothing to replace");
    steps_.emplace_back(Replace{from->text(), to});
    return;
  }
  const JsonView regex = pattern.at("Regex");
  steps_.emplace_back(
      ReplaceMatches{TextRegex(regex.text(), regex.place()), to});
}

void TokenDecoder::add_strip(const JsonView& json) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
  const JsonView content = json.at("content");
  if (content.text().empty()) content.corrupt("is empty");
  steps_.emplace_back(Strip{content.text(), json.at("start").natural(kMost),
                            json.at("stop").natural(kMost)});
}

void TokenDecoder::run(const ByteLevel&, std::vector<Spelling>& spellings) {
  std::string bytes;
  for (const Spelling& spelling : spellings) {
    const auto decoded =
        spelling.literal ? std::nullopt : byte_level_bytes(spelling.text);
    bytes += decoded ? *decoded : spelling.text;
  }
  spellings = {{replace_invalid_utf8(bytes), false}};
}

void TokenDecoder::run(const ByteFallback&, std::vector<Spelling>& spellings) {
  std::vector<Spelling> out;
  std::string bytes;
  // A run of byte tokens is one text, or as many U+FFFD as bytes.
  const auto flush = [&] {
    if (bytes.empty()) return;
    Spelling run{bytes, false};
    if (valid_utf8_length(bytes) != bytes.size()) {
      run.text.clear();
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        run.text += kReplacementCharacter;
      }
    }
    out.push_back(std::move(run));
    bytes.clear();
  };
  for (Spelling& spelling : spellings) {
    const auto byte =
        spelling.literal ? std::nullopt : fallback_byte(spelling.text);
    if (byte) {
      bytes += static_cast<char>(*byte);
    } else {
      flush();
      out.push_back(std::move(spelling));
    }
  }
  flush();
  spellings = std::move(out);
}

void TokenDecoder::run(const Fuse&, std::vector<Spelling>& spellings) {
  std::string text;
  for (const Spelling& spelling : spellings) text += spelling.text;
  spellings = {{std::move(text), false}};
}

void TokenDecoder::run(const Metaspace& step,
                       std::vector<Spelling>& spellings) {
  for (std::size_t i = 0; i < spellings.size(); ++i) {
    std::string& text = spellings[i].text;
    // Differs from the reference, which drops every replacement character of
    // the first token: only one was put there.
    if (i == 0 && step.strips_prefix && text.starts_with(step.replacement)) {
      text.erase(0, step.replacement.size());
    }
    text = replace_all(text, step.replacement, " ");
  }
}

void TokenDecoder::run(const Replace& step, std::vector<Spelling>& spellings) {
  for (Spelling& spelling : spellings) {
    spelling.text = replace_all(spelling.text, step.from, step.to);
  }
}

void TokenDecoder::run(const Strip& step, std::vector<Spelling>& spellings) {
  const std::size_t size = step.content.size();
  for (auto& [text, literal] : spellings) {
    std::size_t begin = 0, end = text.size();
    for (std::size_t i = 0;
         i < step.start && text.compare(begin, size, step.content) == 0; ++i) {
      begin += size;
    }
    for (std::size_t i = 0; i < step.stop && end - begin >= size &&
                            text.compare(end - size, size, step.content) == 0;
         ++i) {
      end -= size;
    }
    text = text.substr(begin, end - begin);
  }
}

void TokenDecoder::run(const ReplaceMatches& step,
                       std::vector<Spelling>& spellings) {
  for (Spelling& spelling : spellings) {
    std::string out;
    std::size_t at = 0;
    for (const auto [begin, end] : step.pattern.find_all(spelling.text)) {
      out += spelling.text.substr(at, begin - at) + step.to;
      at = end;
    }
    spelling.text = out + spelling.text.substr(at);
  }
}

void TokenDecoder::run(const WordPiece& step,
                       std::vector<Spelling>& spellings) {
  constexpr std::array<std::pair<const char*, const char*>, 11> kCleanup{
      {{" .", "."},
       {" ?", "?"},
       {" !", "!"},
       {" ,", ","},
       {" ' ", "'"},
       {" n't", "n't"},
       {" 'm", "'m"},
       {" do not", " don't"},
       {" 's", "'s"},
       {" 've", "'ve"},
       {" 're", "'re"}}};
  for (std::size_t i = 0; i < spellings.size(); ++i) {
    std::string& text = spellings[i].text;
    if (i != 0) {
      if (text.starts_with(step.prefix)) {
        text.erase(0, step.prefix.size());
      } else {
        text.insert(0, " ");
      }
    }
    if (!step.cleanup) continue;
    for (const auto& [from, to] : kCleanup) text = replace_all(text, from, to);
  }
}

void TokenDecoder::run(const EndOfWord& step,
                       std::vector<Spelling>& spellings) {
  for (std::size_t i = 0; i < spellings.size(); ++i) {
    const bool last = i + 1 == spellings.size();
    spellings[i].text =
        replace_all(spellings[i].text, step.suffix, last ? "" : " ");
  }
}

void TokenDecoder::run(const Join&, std::vector<Spelling>& spellings) {
  for (std::size_t i = 1; i < spellings.size(); ++i) {
    spellings[i].text.insert(0, " ");
  }
}

std::string TokenDecoder::decode(std::vector<Spelling> spellings) const {
  for (const Step& step : steps_) {
    std::visit([&](const auto& s) { run(s, spellings); }, step);
  }
  std::string text;
  for (const Spelling& spelling : spellings) text += spelling.text;
  return text;
}

}  // namespace llmpress
