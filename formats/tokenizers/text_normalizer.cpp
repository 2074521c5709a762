#include "formats/tokenizers/text_normalizer.h"

#include <array>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/files/base64.h"
#include "formats/tokenizers/character_kinds.h"
#include "formats/tokenizers/token_decoder.h"

namespace llmpress {

std::string replace_all(std::string_view text, std::string_view from,
                        std::string_view to) {
  std::string out;
  out.reserve(text.size());
  std::size_t at = 0;
  for (;;) {
    const std::size_t found = text.find(from, at);
    if (found == std::string_view::npos) break;
    out += text.substr(at, found - at);
    out += to;
    at = found + from.size();
  }
  out += text.substr(at);
  return out;
}

TextNormalizer::TextNormalizer(const JsonView& json) : place_(json.place()) {
  add(json);
  constexpr std::size_t kMostSteps = 100;
  if (steps_.size() > kMostSteps) {
    json.unsupported(formatted("{} steps, wanted at most 100", steps_.size()));
  }
}

std::optional<TextNormalizer::Step> TextNormalizer::simple_step(
    const std::string& type) {
  const std::array<std::pair<const char*, Step>, 8> steps{
      {{"NFC", UnicodeForm::kNfc},
       {"NFD", UnicodeForm::kNfd},
       {"NFKC", UnicodeForm::kNfkc},
       {"NFKD", UnicodeForm::kNfkd},
       {"Lowercase", Each::kLowercase},
       {"StripAccents", Each::kStripAccents},
       {"Nmt", Each::kNmt},
       {"ByteLevel", SpellBytes{}}}};
  for (const auto& [name, step] : steps) {
    if (type == name) return step;
  }
  return std::nullopt;
}

void TextNormalizer::add(const JsonView& json) {
  const JsonView type = json.at("type");
  if (type.text() == "Sequence") {
    for (const JsonView& step : json.at("normalizers").items()) add(step);
  } else if (type.text() == "Prepend") {
    steps_.emplace_back(Prepend{json.at("prepend").text()});
  } else if (type.text() == "Replace") {
    add_replace(json);
  } else if (type.text() == "Strip") {
    steps_.emplace_back(Strip{.left = json.bool_or("strip_left", true),
                              .right = json.bool_or("strip_right", true)});
  } else if (type.text() == "BertNormalizer") {
    const bool lowercase = json.bool_or("lowercase", true);
    steps_.emplace_back(
        Bert{.clean = json.bool_or("clean_text", true),
             .spaces_ideographs = json.bool_or("handle_chinese_chars", true),
             .strips_accents = json.bool_or("strip_accents", lowercase),
             .lowercase = lowercase});
  } else if (type.text() == "Precompiled") {
    const JsonView map = json.at("precompiled_charsmap");
    const auto bytes = decode_base64(map.text());
    if (!bytes) map.corrupt("is not base64");
    steps_.emplace_back(CharacterMap(*bytes, map.place()));
  } else if (auto step = simple_step(type.text())) {
    steps_.push_back(std::move(*step));
  } else {
    type.unsupported("normalizer '" + type.text() +
                     "' is not known (known: Sequence, Prepend, Replace, NFC, "
                     "NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Nmt, "
                     "Precompiled, ByteLevel, BertNormalizer)");
  }
}

void TextNormalizer::add_replace(const JsonView& json) {
  const JsonView pattern = json.at("pattern");
  const std::string to = json.at("content").text();
  if (const auto literal = pattern.find("String")) {
    if (literal->text().empty()) literal->corrupt("nothing to replace");
    steps_.emplace_back(Replace{literal->text(), to});
  } else {
    const JsonView regex = pattern.at("Regex");
    steps_.emplace_back(
        ReplaceMatches{TextRegex(regex.text(), regex.place()), to});
  }
}

namespace {

std::vector<TextRegex::Match> find_all(std::string_view text,
                                       std::string_view literal) {
  std::vector<TextRegex::Match> matches;
  for (std::size_t at = text.find(literal); at != std::string_view::npos;
       at = text.find(literal, at + literal.size())) {
    matches.push_back({at, at + literal.size()});
  }
  return matches;
}

// Calls append(out, character) for each character of `text`.
template <class Append>
std::string each_character(std::string_view text, Append&& append) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) append(out, next_utf8(text, at));
  return out;
}

}  // namespace

void TextNormalizer::check_size(std::size_t bytes,
                                std::size_t most_bytes) const {
  if (bytes <= most_bytes) return;
  fail(ErrorCode::kInvalidInput, "{}: a text grows to more than {} bytes",
       place_, most_bytes);
}

std::string TextNormalizer::replaced(
    std::string_view text, const std::vector<TextRegex::Match>& matches,
    std::string_view to, std::size_t most_bytes) const {
  std::string out;
  std::size_t at = 0;
  for (const auto [begin, end] : matches) {
    out += text.substr(at, begin - at);
    out += to;
    at = end;
    check_size(out.size(), most_bytes);
  }
  out += text.substr(at);
  return out;
}

std::string TextNormalizer::run(const Prepend& step, const std::string& text,
                                std::size_t /*most_bytes*/) const {
  return text.empty() ? text : step.text + text;
}

std::string TextNormalizer::run(const Replace& step, const std::string& text,
                                std::size_t most_bytes) const {
  return replaced(text, find_all(text, step.from), step.to, most_bytes);
}

std::string TextNormalizer::run(const ReplaceMatches& step,
                                const std::string& text,
                                std::size_t most_bytes) const {
  return replaced(text, step.pattern.find_all(text), step.to, most_bytes);
}

std::string TextNormalizer::run(const UnicodeForm& step,
                                const std::string& text,
                                std::size_t /*most_bytes*/) const {
  return normalize_unicode(text, step);
}

std::string TextNormalizer::run(const Strip& step, const std::string& text,
                                std::size_t /*most_bytes*/) const {
  std::size_t begin = 0, end = text.size();
  while (step.left && begin < end) {
    std::size_t next = begin;
    if (!is_white_space(next_utf8(text, next))) break;
    begin = next;
  }
  while (step.right && end > begin) {
    const std::size_t last = previous_utf8(text, end);
    std::size_t at = last;
    if (!is_white_space(next_utf8(text, at))) break;
    end = last;
  }
  return text.substr(begin, end - begin);
}

std::string TextNormalizer::run(const Each& step, const std::string& text,
                                std::size_t /*most_bytes*/) const {
  return each_character(text, [&](std::string& out, char32_t c) {
    switch (step) {
      case Each::kLowercase:
        append_lower(out, c);
        break;
      case Each::kStripAccents:
        if (!is_combining_mark(c)) append_utf8(out, c);
        break;
      case Each::kNmt:
        if (!is_nmt_removed(c)) append_utf8(out, is_nmt_space(c) ? U' ' : c);
        break;
    }
  });
}

std::string TextNormalizer::run(const Bert& step, const std::string& text,
                                std::size_t /*most_bytes*/) const {
  std::string out = each_character(text, [&](std::string& to, char32_t c) {
    if (step.clean && (c == 0 || c == 0xFFFD || is_bert_control(c))) return;
    if (step.clean && is_white_space(c)) c = ' ';
    const bool spaced = step.spaces_ideographs && is_bert_ideograph(c);
    if (spaced) to += ' ';
    append_utf8(to, c);
    if (spaced) to += ' ';
  });
  if (step.strips_accents) {
    out = each_character(normalize_unicode(out, UnicodeForm::kNfd),
                         [](std::string& to, char32_t c) {
                           if (!is_nonspacing_mark(c)) append_utf8(to, c);
                         });
  }
  return step.lowercase ? each_character(out, append_lower) : out;
}

std::string TextNormalizer::run(const CharacterMap& step,
                                const std::string& text,
                                std::size_t most_bytes) const {
  return step.apply(text, most_bytes);
}

std::string TextNormalizer::run(const SpellBytes&, const std::string& text,
                                std::size_t /*most_bytes*/) const {
  return byte_level_spelling(text);
}

std::string TextNormalizer::apply(std::string_view text) const {
  // NFKD makes 11 bytes of one at most.
  const std::size_t most_bytes = 64 * text.size() + 4096;
  std::string normalized(text);
  for (const Step& step : steps_) {
    normalized = std::visit(
        [&](const auto& s) { return run(s, normalized, most_bytes); }, step);
    check_size(normalized.size(), most_bytes);
  }
  return normalized;
}

std::string_view TextNormalizer::prefix() const {
  for (const Step& step : steps_) {
    if (const auto* prepend = std::get_if<Prepend>(&step)) return prepend->text;
  }
  return {};
}

}  // namespace llmpress
