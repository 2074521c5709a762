#include "formats/tokenizers/pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "formats/tokenizers/character_kinds.h"
#include "formats/tokenizers/text_normalizer.h"
#include "formats/tokenizers/token_decoder.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace

PreTokenizer::PreTokenizer(const JsonView& json) { add(json); }

void PreTokenizer::add(const JsonView& json) {
  const JsonView type = json.at("type");
  spell_bytes();  // of a step before this one
  if (type.text() == "Sequence") {
    for (const JsonView& step : json.at("pretokenizers").items()) add(step);
  } else if (type.text() == "Split") {
    add_split(json);
  } else if (type.text() == "Metaspace") {
    add_metaspace(json);
  } else if (type.text() == "ByteLevel") {
    add_byte_level(json);
  } else if (type.text() == "CharDelimiterSplit") {
    add_delimiter(json);
  } else if (!add_simple(json)) {
    type.unsupported("pre-tokenizer '" + type.text() +
                     "' is not known (known: Sequence, Split, Digits, "
                     "Metaspace, ByteLevel, Whitespace, WhitespaceSplit, "
                     "Punctuation, BertPreTokenizer, CharDelimiterSplit, "
                     "UnicodeScripts)");
  }
}

bool PreTokenizer::add_simple(const JsonView& json) {
  const std::string& type = json.at("type").text();
  const CharacterSplit spaces{.is_match = is_white_space,
                              .behavior = Behavior::kRemoved};
  if (type == "Digits") {
    steps_.emplace_back(
        CharacterSplit{.is_match = is_numeric,
                       .behavior = json.bool_or("individual_digits", false)
                                       ? Behavior::kIsolated
                                       : Behavior::kContiguous});
  } else if (type == "Whitespace") {
    steps_.emplace_back(Words{});
  } else if (type == "WhitespaceSplit") {
    steps_.emplace_back(spaces);
  } else if (type == "Punctuation") {
    const auto behavior = json.find("behavior");
    steps_.emplace_back(CharacterSplit{
        .is_match = is_bert_punctuation,
        .behavior = behavior ? behavior_of(*behavior) : Behavior::kIsolated});
  } else if (type == "BertPreTokenizer") {
    steps_.emplace_back(spaces);
    steps_.emplace_back(CharacterSplit{.is_match = is_bert_punctuation});
  } else if (type == "UnicodeScripts") {
    steps_.emplace_back(Scripts{});
  } else {
    return false;
  }
  return true;
}

void PreTokenizer::add_byte_level(const JsonView& json) {
  if (json.bool_or("add_prefix_space", true)) {
    steps_.emplace_back(PrefixSpace{});
  }
  if (json.bool_or("use_regex", true)) {
    steps_.emplace_back(Split{TextRegex(kGpt2Pattern, json.place()),
                              Behavior::kIsolated, false});
  }
  byte_level_ = true;
}

void PreTokenizer::add_delimiter(const JsonView& json) {
  const JsonView delimiter = json.at("delimiter");
  const std::string& text = delimiter.text();
  std::size_t at = 0;
  const char32_t character = text.empty() ? 0 : next_utf8(text, at);
  if (text.empty() || at != text.size()) {
    delimiter.corrupt("wanted one character");
  }
  steps_.emplace_back(
      CharacterSplit{.character = character, .behavior = Behavior::kRemoved});
}

PreTokenizer::Behavior PreTokenizer::behavior_of(const JsonView& json) {
  constexpr std::array<std::pair<std::string_view, Behavior>, 5> kBehaviors{
      {{"Removed", Behavior::kRemoved},
       {"Isolated", Behavior::kIsolated},
       {"MergedWithPrevious", Behavior::kMergedWithPrevious},
       {"MergedWithNext", Behavior::kMergedWithNext},
       {"Contiguous", Behavior::kContiguous}}};
  for (const auto& [name, behavior] : kBehaviors) {
    if (json.text() == name) return behavior;
  }
  json.unsupported("behavior '" + json.text() + "' is not known");
}

void PreTokenizer::add_split(const JsonView& json) {
  const JsonView pattern = json.at("pattern");
  const auto literal = pattern.find("String");
  if (literal && literal->text().empty()) literal->corrupt("nothing to find");
  TextRegex regex =
      literal
          ? TextRegex::of_literal(literal->text(), literal->place())
          : TextRegex(pattern.at("Regex").text(), pattern.at("Regex").place());
  steps_.emplace_back(Split{std::move(regex), behavior_of(json.at("behavior")),
                            json.bool_or("invert", false)});
}

void PreTokenizer::add_metaspace(const JsonView& json) {
  Metaspace step{.replacement = json.at("replacement").text()};
  std::size_t characters = 0;
  for (std::size_t at = 0; at < step.replacement.size(); ++characters) {
    next_utf8(step.replacement, at);
  }
  if (characters != 1) json.at("replacement").corrupt("wanted one character");
  if (const auto scheme = json.find("prepend_scheme")) {
    if (scheme->text() == "first") {
      step.prefix = Prefix::kFirst;
    } else if (scheme->text() == "never") {
      step.prefix = Prefix::kNever;
    } else if (scheme->text() != "always") {
      scheme->unsupported("'" + scheme->text() +
                          "' is not known (known: always, first, never)");
    }
  } else if (!json.bool_or("add_prefix_space", true)) {  // before version 0.15
    step.prefix = Prefix::kNever;
  }
  step.split = json.bool_or("split", true);
  steps_.emplace_back(std::move(step));
}

void PreTokenizer::spell_bytes() {
  if (byte_level_) steps_.emplace_back(SpellBytes{});
  byte_level_ = false;
}

bool PreTokenizer::has_metaspace() const {
  for (const Step& step : steps_) {
    if (std::holds_alternative<Metaspace>(step)) return true;
  }
  return false;
}

bool PreTokenizer::adds_prefix() const {
  for (const Step& step : steps_) {
    if (std::holds_alternative<PrefixSpace>(step)) return true;
    const auto* metaspace = std::get_if<Metaspace>(&step);
    if (metaspace && metaspace->prefix != Prefix::kNever) return true;
  }
  return false;
}

// Matches and what lies between them, in order.
std::vector<PreTokenizer::Span> PreTokenizer::cover(std::string_view text,
                                                    const Split& step) {
  std::vector<Span> spans;
  std::size_t at = 0;
  for (const auto [begin, end] : step.pattern.find_all(text)) {
    if (begin > at) spans.push_back({at, begin, step.invert});
    if (end > begin) spans.push_back({begin, end, !step.invert});
    at = end;
  }
  if (at < text.size()) spans.push_back({at, text.size(), step.invert});
  return spans;
}

std::vector<PreTokenizer::Span> PreTokenizer::cover(
    std::string_view text, const CharacterSplit& step) {
  std::vector<Span> spans;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t c = next_utf8(text, at);
    if (!(step.is_match ? step.is_match(c) : c == step.character)) continue;
    if (begin > done) spans.push_back({done, begin, false});
    spans.push_back({begin, at, true});
    done = at;
  }
  if (done < text.size()) spans.push_back({done, text.size(), false});
  return spans;
}

void PreTokenizer::split_by(const std::vector<Span>& spans, Behavior behavior,
                            std::string_view piece, TextPieces& out) {
  const auto emit = [&](const Span& span) {
    out.pieces.push_back(piece.substr(span.begin, span.end - span.begin));
  };
  for (std::size_t i = 0; i < spans.size();) {
    Span span = spans[i++];
    const bool more = i < spans.size();
    switch (behavior) {
      case Behavior::kRemoved:
        if (span.match) continue;
        break;
      case Behavior::kIsolated:
        break;
      case Behavior::kMergedWithPrevious:  // a match joins the text before it
        if (more && !span.match && spans[i].match) span.end = spans[i++].end;
        break;
      case Behavior::kMergedWithNext:
        if (more && span.match && !spans[i].match) span.end = spans[i++].end;
        break;
      case Behavior::kContiguous:
        while (i < spans.size() && spans[i].match == span.match) {
          span.end = spans[i++].end;
        }
        break;
    }
    emit(span);
  }
}

void PreTokenizer::run(const Split& step, std::string_view piece,
                       bool /*at_start*/, TextPieces& out) {
  split_by(cover(piece, step), step.behavior, piece, out);
}

void PreTokenizer::run(const CharacterSplit& step, std::string_view piece,
                       bool /*at_start*/, TextPieces& out) {
  split_by(cover(piece, step), step.behavior, piece, out);
}

void PreTokenizer::run(const PrefixSpace&, std::string_view piece,
                       bool /*at_start*/, TextPieces& out) {
  if (piece.starts_with(' ')) {
    out.pieces.push_back(piece);
    return;
  }
  std::string& prefixed = out.owned.emplace_back(1, ' ');
  prefixed += piece;
  out.pieces.push_back(prefixed);
}

void PreTokenizer::run(const SpellBytes&, std::string_view piece,
                       bool /*at_start*/, TextPieces& out) {
  out.pieces.push_back(out.owned.emplace_back(byte_level_spelling(piece)));
}

void PreTokenizer::run(const Words&, std::string_view piece, bool /*at_start*/,
                       TextPieces& out) {
  const auto kind_of = [](char32_t c) {
    return is_word_character(c) ? 2 : is_white_space(c) ? 0 : 1;
  };
  std::size_t begin = 0;
  int kind = 0;
  for (std::size_t at = 0; at < piece.size();) {
    const std::size_t here = at;
    const int now = kind_of(next_utf8(piece, at));
    if (now == kind) continue;
    if (kind != 0) out.pieces.push_back(piece.substr(begin, here - begin));
    begin = here;
    kind = now;
  }
  if (kind != 0) out.pieces.push_back(piece.substr(begin));
}

// Spaces before the first character of a script are dropped, as in the
// reference; inside a text they belong to the script before them.
void PreTokenizer::run(const Scripts&, std::string_view piece,
                       bool /*at_start*/, TextPieces& out) {
  std::size_t begin = piece.size();
  int script = kAnyScript;
  for (std::size_t at = 0; at < piece.size();) {
    const std::size_t here = at;
    const int now = script_of(next_utf8(piece, at));
    if (now == kAnyScript || now == script) continue;
    if (script != kAnyScript) {
      out.pieces.push_back(piece.substr(begin, here - begin));
    }
    begin = here;
    script = now;
  }
  if (script != kAnyScript) out.pieces.push_back(piece.substr(begin));
}

void PreTokenizer::run(const Metaspace& step, std::string_view piece,
                       bool at_start, TextPieces& out) {
  std::string text = replace_all(piece, " ", step.replacement);
  const bool prefix = step.prefix == Prefix::kAlways ||
                      (step.prefix == Prefix::kFirst && at_start);
  if (prefix && !text.starts_with(step.replacement)) {
    text.insert(0, step.replacement);
  }
  const std::string_view whole = out.owned.emplace_back(std::move(text));
  if (!step.split) {
    out.pieces.push_back(whole);
    return;
  }
  for (std::size_t at = 0; at < whole.size();) {
    const std::size_t skip = whole.substr(at).starts_with(step.replacement)
                                 ? step.replacement.size()
                                 : 0;
    const std::size_t end =
        std::min(whole.find(step.replacement, at + skip), whole.size());
    out.pieces.push_back(whole.substr(at, end - at));
    at = end;
  }
}

TextPieces PreTokenizer::split(std::string_view text, bool at_start) const {
  TextPieces now;
  if (!text.empty()) now.pieces.push_back(text);
  for (const Step& step : steps_) {
    TextPieces next;
    next.owned = std::move(now.owned);  // a deque keeps its elements in place
    bool first = at_start;
    for (const std::string_view piece : now.pieces) {
      std::visit([&](const auto& s) { run(s, piece, first, next); }, step);
      first = false;
    }
    now = std::move(next);
  }
  return now;
}

}  // namespace llmpress
