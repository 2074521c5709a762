#include "formats/tokenizers/pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "formats/tokenizers/text_normalizer.h"

namespace llmpress {
namespace {

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace

PreTokenizer::PreTokenizer(const JsonView& json) { add(json); }

void PreTokenizer::add(const JsonView& json) {
  const JsonView type = json.at("type");
  if (byte_level_) {
    type.unsupported("'" + type.text() +
                     "' after ByteLevel, which must come last");
  }
  if (type.text() == "Sequence") {
    for (const JsonView& step : json.at("pretokenizers").items()) add(step);
  } else if (type.text() == "Split") {
    add_split(json);
  } else if (type.text() == "Digits") {
    steps_.emplace_back(Split{TextRegex(R"(\p{N})", json.place()),
                              json.bool_or("individual_digits", false)
                                  ? Behavior::kIsolated
                                  : Behavior::kContiguous,
                              false});
  } else if (type.text() == "Metaspace") {
    add_metaspace(json);
  } else if (type.text() == "ByteLevel") {
    byte_level_ = true;
    if (json.bool_or("add_prefix_space", true)) {
      steps_.emplace_back(PrefixSpace{});
    }
    if (json.bool_or("use_regex", true)) {
      steps_.emplace_back(Split{TextRegex(kGpt2Pattern, json.place()),
                                Behavior::kIsolated, false});
    }
  } else {
    type.unsupported("pre-tokenizer '" + type.text() +
                     "' is not known (known: Sequence, Split, Digits, "
                     "Metaspace, ByteLevel)");
  }
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

namespace {

struct Span {
  std::size_t begin = 0, end = 0;
  bool match = false;
};

// Matches and what lies between them, in order.
std::vector<Span> cover(std::string_view text, const TextRegex& pattern,
                        bool invert) {
  std::vector<Span> spans;
  std::size_t at = 0;
  for (const auto [begin, end] : pattern.find_all(text)) {
    if (begin > at) spans.push_back({at, begin, invert});
    if (end > begin) spans.push_back({begin, end, !invert});
    at = end;
  }
  if (at < text.size()) spans.push_back({at, text.size(), invert});
  return spans;
}

}  // namespace

void PreTokenizer::split_by(const Split& step, std::string_view piece,
                            TextPieces& out) {
  const auto emit = [&](const Span& span) {
    out.pieces.push_back(piece.substr(span.begin, span.end - span.begin));
  };
  const std::vector<Span> spans = cover(piece, step.pattern, step.invert);
  for (std::size_t i = 0; i < spans.size();) {
    Span span = spans[i++];
    const bool more = i < spans.size();
    switch (step.behavior) {
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

void PreTokenizer::metaspace(const Metaspace& step, std::string_view piece,
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
      if (const auto* split = std::get_if<Split>(&step)) {
        split_by(*split, piece, next);
      } else if (const auto* meta = std::get_if<Metaspace>(&step)) {
        metaspace(*meta, piece, first, next);
      } else if (piece.starts_with(' ')) {
        next.pieces.push_back(piece);
      } else {
        std::string& prefixed = next.owned.emplace_back(1, ' ');
        prefixed += piece;
        next.pieces.push_back(prefixed);
      }
      first = false;
    }
    now = std::move(next);
  }
  return now;
}

}  // namespace llmpress
