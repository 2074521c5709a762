// The methods of strings.
#include <algorithm>
#include <array>
#include <utility>

#include "formats/templates/template_text.h"
#include "formats/tokenizers/character_kinds.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

using Arguments = TemplateArguments;
using Value = TemplateValue;
using Method = Value (*)(TemplateRuntime&, const std::string&,
                         const Arguments&);

const std::string& text_of(const Value& value) {
  const std::string* const text = value.text();
  if (!text) throw TemplateFault("wanted a string, found " + value.type_name());
  return *text;
}

const std::string& wanted_text(const std::optional<Value>& value) {
  if (!value) throw TemplateFault("wanted a string as argument");
  return text_of(*value);
}

std::optional<std::string> text_or_none(const std::optional<Value>& value) {
  if (!value || value->is_none()) return std::nullopt;
  return text_of(*value);
}

std::int64_t integer_or(const std::optional<Value>& value,
                        std::int64_t otherwise) {
  if (!value) return otherwise;
  const auto integer = value->integer();
  if (!integer) {
    throw TemplateFault("wanted a whole number, found " + value->type_name());
  }
  return *integer;
}

Value list_of(std::vector<std::string> texts) {
  std::vector<Value> items;
  items.reserve(texts.size());
  for (std::string& text : texts) items.push_back(Value::of(std::move(text)));
  return Value::of(std::move(items));
}

template <StripSide kSide>
Value strip_method(TemplateRuntime&, const std::string& text,
                   const Arguments& arguments) {
  const auto slots = arguments.bind({"chars"});
  return Value::of(strip(text, kSide, text_or_none(slots[0])));
}

template <bool kFromRight>
Value split_method(TemplateRuntime& runtime, const std::string& text,
                   const Arguments& arguments) {
  const auto slots = arguments.bind({"sep", "maxsplit"});
  return list_of(split(runtime, text, text_or_none(slots[0]),
                       integer_or(slots[1], -1), kFromRight));
}

template <bool kAtStart>
Value begins_or_ends(TemplateRuntime& runtime, const std::string& text,
                     const Arguments& arguments) {
  const auto slots = arguments.bind({"affix"});
  const auto fits = [&](const Value& affix) {
    const std::string& wanted = text_of(affix);
    return kAtStart ? text.starts_with(wanted) : text.ends_with(wanted);
  };
  if (slots[0] && slots[0]->list()) {
    runtime.go_through(*slots[0]);
    return Value::of(std::ranges::any_of(slots[0]->list()->items, fits));
  }
  wanted_text(slots[0]);
  return Value::of(fits(*slots[0]));
}

template <std::string (*kMap)(const std::string&)>
Value mapped(TemplateRuntime&, const std::string& text,
             const Arguments& arguments) {
  arguments.bind({});
  return Value::of(kMap(text));
}

Value replace_method(TemplateRuntime& runtime, const std::string& text,
                     const Arguments& arguments) {
  const auto slots = arguments.bind({"old", "new", "count"});
  return Value::of(replace(runtime, text, wanted_text(slots[0]),
                           wanted_text(slots[1]), integer_or(slots[2], -1)));
}

Value join_method(TemplateRuntime& runtime, const std::string& text,
                  const Arguments& arguments) {
  const auto slots = arguments.bind({"iterable"});
  if (!slots[0]) throw TemplateFault("join: nothing to join");
  std::string out;
  bool first = true;
  for (const Value& item : items_of(*slots[0])) {
    if (!first) runtime.append(out, text);
    first = false;
    runtime.append(out, text_of(item));
  }
  return Value::of(std::move(out));
}

template <bool kFromRight, bool kMustBeThere>
Value find_method(TemplateRuntime& runtime, const std::string& text,
                  const Arguments& arguments) {
  const auto slots = arguments.bind({"sub"});
  const std::size_t at =
      find_text(runtime, text, wanted_text(slots[0]), kFromRight);
  if (at != std::string::npos) {
    return Value::of(count_characters(std::string_view(text).substr(0, at)));
  }
  if (kMustBeThere) throw TemplateFault("index: not found");
  return Value::of(std::int64_t{-1});
}

Value count_method(TemplateRuntime& runtime, const std::string& text,
                   const Arguments& arguments) {
  const auto slots = arguments.bind({"sub"});
  const std::string& what = wanted_text(slots[0]);
  if (what.empty()) return Value::of(count_characters(text) + 1);
  return Value::of(split(runtime, text, what, -1, false).size() - 1);
}

Value split_lines_method(TemplateRuntime& runtime, const std::string& text,
                         const Arguments& arguments) {
  const auto slots = arguments.bind({"keepends"});
  runtime.step(text.size() / 16 + 1);
  return list_of(split_lines(text, slots[0] && slots[0]->truth()));
}

template <bool kAtStart>
Value remove_affix(TemplateRuntime&, const std::string& text,
                   const Arguments& arguments) {
  const auto slots = arguments.bind({"affix"});
  const std::string& affix = wanted_text(slots[0]);
  if (kAtStart) {
    return Value::of(text.starts_with(affix) ? text.substr(affix.size())
                                             : text);
  }
  return Value::of(text.ends_with(affix)
                       ? text.substr(0, text.size() - affix.size())
                       : text);
}

// Whether there are characters, and all are of the kind.
template <bool (*kIs)(char32_t)>
Value all_are(TemplateRuntime&, const std::string& text,
              const Arguments& arguments) {
  arguments.bind({});
  for (std::size_t at = 0; at < text.size();) {
    if (!kIs(next_utf8(text, at))) return Value::of(false);
  }
  return Value::of(!text.empty());
}

template <std::string (*kMap)(const std::string&)>
Value is_cased_as(TemplateRuntime&, const std::string& text,
                  const Arguments& arguments) {
  arguments.bind({});
  bool cased = false;
  for (std::size_t at = 0; at < text.size();) {
    cased = is_cased(next_utf8(text, at)) || cased;
  }
  return Value::of(cased && kMap(text) == text);
}

bool is_letter_or_number(char32_t c) { return is_letter(c) || is_numeric(c); }

// "{} and {1} {name}".format(...), without conversions.
Value format(TemplateRuntime& runtime, const std::string& text,
             const Arguments& arguments) {
  std::string out;
  std::size_t next = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    const bool twice = at + 1 < text.size() && text[at + 1] == c;
    if ((c == '{' || c == '}') && twice) ++at;
    if ((c != '{' && c != '}') || twice) {
      runtime.append(out, std::string_view(&c, 1));
      continue;
    }
    const std::size_t end = text.find('}', at);
    if (c == '}' || end == std::string::npos)
      throw TemplateFault("a lone brace");
    const std::string field = text.substr(at + 1, end - at - 1);
    at = end;
    const auto named = std::ranges::find_if(
        arguments.named, [&](const auto& a) { return a.first == field; });
    if (named != arguments.named.end()) {
      runtime.append(out, printed(named->second));
      continue;
    }
    const bool digit = field.size() == 1 && field[0] >= '0' && field[0] <= '9';
    if (!field.empty() && !digit) {
      throw TemplateUnsupported("format with '{" + field + "}'");
    }
    const std::size_t i =
        digit ? static_cast<std::size_t>(field[0] - '0') : next++;
    if (i >= arguments.positional.size()) {
      throw TemplateFault("format: too few arguments");
    }
    runtime.go_through(arguments.positional[i]);
    runtime.append(out, printed(arguments.positional[i]));
  }
  return Value::of(std::move(out));
}

constexpr std::array<std::pair<const char*, Method>, 27> kMethods{{
    {"format", format},
    {"strip", strip_method<StripSide::kBoth>},
    {"lstrip", strip_method<StripSide::kLeft>},
    {"rstrip", strip_method<StripSide::kRight>},
    {"split", split_method<false>},
    {"rsplit", split_method<true>},
    {"splitlines", split_lines_method},
    {"startswith", begins_or_ends<true>},
    {"endswith", begins_or_ends<false>},
    {"upper", mapped<upper_case>},
    {"lower", mapped<lower_case>},
    {"title", mapped<title_case>},
    {"capitalize", mapped<capitalized>},
    {"replace", replace_method},
    {"join", join_method},
    {"find", find_method<false, false>},
    {"rfind", find_method<true, false>},
    {"index", find_method<false, true>},
    {"count", count_method},
    {"removeprefix", remove_affix<true>},
    {"removesuffix", remove_affix<false>},
    {"isdigit", all_are<is_numeric>},
    {"isalpha", all_are<is_letter>},
    {"isalnum", all_are<is_letter_or_number>},
    {"isspace", all_are<is_white_space>},
    {"isupper", is_cased_as<upper_case>},
    {"islower", is_cased_as<lower_case>},
}};

}  // namespace

TemplateValue string_method(TemplateRuntime& runtime, const TemplateValue& text,
                            const std::string& name) {
  const auto row = std::ranges::find_if(
      kMethods, [&](const auto& r) { return name == r.first; });
  if (row == kMethods.end()) return {};
  const Method method = row->second;
  return Value::Kind(std::make_shared<const TemplateCallable>(TemplateCallable{
      .name = name,
      .call = [&runtime, text, method](const Arguments& arguments) {
        runtime.go_through(text);
        return method(runtime, *text.text(), arguments);
      }}));
}

}  // namespace llmpress
