#include "formats/text_normalizer.h"

#include <utility>

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

TextNormalizer::TextNormalizer(const JsonView& json) { add(json); }

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

std::string TextNormalizer::apply_step(const Step& step,
                                       const std::string& text) {
  if (const auto* prepend = std::get_if<Prepend>(&step)) {
    return text.empty() ? text : prepend->text + text;
  }
  if (const auto* replace = std::get_if<Replace>(&step)) {
    return replace_all(text, replace->from, replace->to);
  }
  if (const auto* form = std::get_if<UnicodeForm>(&step)) {
    return normalize_unicode(text, *form);
  }
  const auto& matches = std::get<ReplaceMatches>(step);
  std::string out;
  std::size_t at = 0;
  for (const auto [begin, end] : matches.pattern.find_all(text)) {
    out.append(text, at, begin - at);
    out += matches.to;
    at = end;
  }
  out.append(text, at);
  return out;
}

std::string TextNormalizer::apply(std::string_view text) const {
  std::string normalized(text);
  for (const Step& step : steps_) normalized = apply_step(step, normalized);
  return normalized;
}

std::string_view TextNormalizer::prefix() const {
  for (const Step& step : steps_) {
    if (const auto* prepend = std::get_if<Prepend>(&step)) return prepend->text;
  }
  return {};
}

}  // namespace llmpress
