#include "formats/tokenizers/text_normalizer.h"

#include <optional>
#include <span>
#include <utility>

#include "compress/core/formatted.h"

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

void TextNormalizer::add(const JsonView& json) {
  const JsonView type = json.at("type");
  if (type.text() == "Sequence") {
    for (const JsonView& step : json.at("normalizers").items()) add(step);
  } else if (type.text() == "Prepend") {
    steps_.emplace_back(Prepend{json.at("prepend").text()});
  } else if (type.text() == "Replace") {
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
  } else if (type.text() == "NFC") {
    steps_.emplace_back(UnicodeForm::kNfc);
  } else if (type.text() == "NFD") {
    steps_.emplace_back(UnicodeForm::kNfd);
  } else if (type.text() == "NFKC") {
    steps_.emplace_back(UnicodeForm::kNfkc);
  } else if (type.text() == "NFKD") {
    steps_.emplace_back(UnicodeForm::kNfkd);
  } else {
    type.unsupported("normalizer '" + type.text() +
                     "' is not known (known: Sequence, Prepend, Replace, NFC, "
                     "NFD, NFKC, NFKD)");
  }
}

namespace {

// `text` with each of `matches` replaced; empty if that has more than
// `most_bytes`.
std::optional<std::string> replaced(std::string_view text,
                                    std::span<const TextRegex::Match> matches,
                                    std::string_view to,
                                    std::size_t most_bytes) {
  std::string out;
  std::size_t at = 0;
  for (const auto [begin, end] : matches) {
    out += text.substr(at, begin - at);
    out += to;
    at = end;
    if (out.size() > most_bytes) return std::nullopt;
  }
  out += text.substr(at);
  return out;
}

std::vector<TextRegex::Match> find_all(std::string_view text,
                                       std::string_view literal) {
  std::vector<TextRegex::Match> matches;
  for (std::size_t at = text.find(literal); at != std::string_view::npos;
       at = text.find(literal, at + literal.size())) {
    matches.push_back({at, at + literal.size()});
  }
  return matches;
}

}  // namespace

std::string TextNormalizer::apply_step(const Step& step,
                                       const std::string& text,
                                       std::size_t most_bytes) const {
  std::optional<std::string> out;
  if (const auto* prepend = std::get_if<Prepend>(&step)) {
    out = text.empty() ? text : prepend->text + text;
  } else if (const auto* replace = std::get_if<Replace>(&step)) {
    out =
        replaced(text, find_all(text, replace->from), replace->to, most_bytes);
  } else if (const auto* form = std::get_if<UnicodeForm>(&step)) {
    out = normalize_unicode(text, *form);
  } else {
    const auto& matches = std::get<ReplaceMatches>(step);
    out =
        replaced(text, matches.pattern.find_all(text), matches.to, most_bytes);
  }
  if (!out || out->size() > most_bytes) {
    fail(ErrorCode::kInvalidInput, "{}: a text grows to more than {} bytes",
         place_, most_bytes);
  }
  return std::move(*out);
}

std::string TextNormalizer::apply(std::string_view text) const {
  // NFKD makes 11 bytes of one at most.
  const std::size_t most_bytes = 64 * text.size() + 4096;
  std::string normalized(text);
  for (const Step& step : steps_) {
    normalized = apply_step(step, normalized, most_bytes);
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
