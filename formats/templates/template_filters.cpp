#include "formats/templates/template_filters.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/templates/template_access.h"
#include "formats/templates/template_text.h"

namespace llmpress {
namespace {

using Arguments = TemplateArguments;
using Slots = std::vector<std::optional<TemplateValue>>;
using Value = TemplateValue;
using Filter = Value (*)(TemplateRuntime&, const Value&, const Arguments&);

std::string text_of(const Value& value) {
  if (value.text()) return *value.text();
  return printed(value);
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

bool truth_or(const std::optional<Value>& value, bool otherwise) {
  return value ? value->truth() : otherwise;
}

std::vector<Value> checked_items(TemplateRuntime& runtime, const Value& value) {
  runtime.go_through(value);
  return items_of(value);
}

// --- of texts ---------------------------------------------------------------

template <std::string (*kMap)(const std::string&)>
Value mapped(TemplateRuntime& runtime, const Value& value,
             const Arguments& arguments) {
  arguments.bind({});
  runtime.go_through(value);
  return Value::of(kMap(text_of(value)));
}

Value trim(TemplateRuntime& runtime, const Value& value,
           const Arguments& arguments) {
  const auto slots = arguments.bind({"chars"});
  runtime.go_through(value);
  std::optional<std::string> characters;
  if (slots[0] && !slots[0]->is_none()) characters = text_of(*slots[0]);
  return Value::of(strip(text_of(value), StripSide::kBoth, characters));
}

Value replace_filter(TemplateRuntime& runtime, const Value& value,
                     const Arguments& arguments) {
  const auto slots = arguments.bind({"old", "new", "count"});
  if (!slots[0] || !slots[1]) throw TemplateFault("wanted two strings");
  const std::int64_t count =
      slots[2] && slots[2]->is_none() ? -1 : integer_or(slots[2], -1);
  return Value::of(replace(runtime, text_of(value), text_of(*slots[0]),
                           text_of(*slots[1]), count));
}

Value join(TemplateRuntime& runtime, const Value& value,
           const Arguments& arguments) {
  const auto slots = arguments.bind({"d", "attribute"});
  const std::string between = slots[0] ? text_of(*slots[0]) : "";
  std::string out;
  bool first = true;
  for (const Value& item : checked_items(runtime, value)) {
    if (!first) runtime.append(out, between);
    first = false;
    const bool part = slots[1] && !slots[1]->is_none();
    runtime.append(out,
                   text_of(part ? path_of(runtime, item, *slots[1]) : item));
  }
  return Value::of(std::move(out));
}

Value indent(TemplateRuntime& runtime, const Value& value,
             const Arguments& arguments) {
  const auto slots = arguments.bind({"width", "first", "blank"});
  const std::string margin =
      slots[0] && slots[0]->text()
          ? *slots[0]->text()
          : repeat(runtime, " ", integer_or(slots[0], 4));
  std::string text = text_of(value) + "\n";  // so that an end of line counts
  std::string out;
  const auto lines = split_lines(text, false);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i != 0) runtime.append(out, "\n");
    const bool blank = lines[i].empty() && !truth_or(slots[2], false);
    if (i == 0 ? truth_or(slots[1], false) : !blank) {
      runtime.append(out, margin);
    }
    runtime.append(out, lines[i]);
  }
  return Value::of(std::move(out));
}

Value escape(TemplateRuntime& runtime, const Value& value,
             const Arguments& arguments) {
  arguments.bind({});
  if (value.get_if<TemplateMarkup>()) return value;
  runtime.step(value.weight());  // it may become six times as long
  std::string text;
  runtime.append(text, escaped(text_of(value)));
  return Value::markup(std::move(text));
}

Value safe(TemplateRuntime& runtime, const Value& value,
           const Arguments& arguments) {
  arguments.bind({});
  runtime.go_through(value);
  return Value::markup(text_of(value));
}

Value string(TemplateRuntime& runtime, const Value& value,
             const Arguments& arguments) {
  arguments.bind({});
  runtime.go_through(value);
  return Value::of(text_of(value));
}

Value to_json_filter(TemplateRuntime& runtime, const Value& value,
                     const Arguments& arguments) {
  const auto slots =
      arguments.bind({"ensure_ascii", "indent", "separators", "sort_keys"});
  TemplateJsonStyle style{.sorts_keys = truth_or(slots[3], false),
                          .ascii_only = truth_or(slots[0], false)};
  if (slots[1] && !slots[1]->is_none()) {
    style.indent = slots[1]->text()
                       ? *slots[1]->text()
                       : repeat(runtime, " ", integer_or(slots[1], 0));
    constexpr std::size_t kWidest = 64;
    if (style.indent->size() > kWidest) throw TemplateFault("indents too much");
    style.item_separator = ",";
  }
  if (slots[2] && !slots[2]->is_none()) {
    const auto pair = items_of(*slots[2]);
    if (pair.size() != 2) throw TemplateFault("wanted two separators");
    style.item_separator = text_of(pair[0]);
    style.key_separator = text_of(pair[1]);
  }
  // A line begins with its indent, at most as deep as the value is.
  const std::size_t per_item =
      1 + (style.item_separator.size() + style.key_separator.size() +
           (style.indent ? style.indent->size() * value.depth() : 0)) /
              16;
  runtime.step(value.weight() * per_item / 2 + 1);
  return Value::of(to_json(value, style));
}

Value word_count(TemplateRuntime& runtime, const Value& value,
                 const Arguments& arguments) {
  arguments.bind({});
  return Value::of(split(runtime, text_of(value), {}, -1, false).size());
}

// --- of numbers -------------------------------------------------------------

Value absolute(TemplateRuntime&, const Value& value,
               const Arguments& arguments) {
  arguments.bind({});
  if (const auto integer = value.integer()) {
    if (*integer == std::numeric_limits<std::int64_t>::min()) {
      throw TemplateFault("a number is too large");
    }
    return Value::of(*integer < 0 ? -*integer : *integer);
  }
  if (const auto number = value.number()) return Value::of(std::fabs(*number));
  throw TemplateFault("abs of " + value.type_name());
}

std::optional<double> number_in(const Value& value) {
  if (value.number()) return value.number();
  if (!value.text()) return std::nullopt;
  const std::string text = strip(*value.text(), StripSide::kBoth, {});
  double number = 0;
  const char* const end = text.data() + text.size();
  const char* const begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const auto [stop, error] = std::from_chars(begin, end, number);
  if (error != std::errc{} || stop != end) return std::nullopt;
  return number;
}

Value to_integer(TemplateRuntime&, const Value& value,
                 const Arguments& arguments) {
  const auto slots = arguments.bind({"default", "base"});
  if (integer_or(slots[1], 10) != 10) throw TemplateFault("int: only base 10");
  if (const auto integer = value.integer()) return Value::of(*integer);
  const auto number = number_in(value);
  constexpr double kLargest = 9e15;  // a double is exact up to it
  if (number && std::fabs(*number) <= kLargest) {
    return Value::of(static_cast<std::int64_t>(*number));
  }
  return slots[0].value_or(Value::of(std::int64_t{0}));
}

Value to_float(TemplateRuntime&, const Value& value,
               const Arguments& arguments) {
  const auto slots = arguments.bind({"default"});
  const auto number = number_in(value);
  return number ? Value::of(*number) : slots[0].value_or(Value::of(0.0));
}

Value round_filter(TemplateRuntime&, const Value& value,
                   const Arguments& arguments) {
  const auto slots = arguments.bind({"precision", "method"});
  const auto number = value.number();
  if (!number) throw TemplateFault("round of " + value.type_name());
  const std::int64_t digits = integer_or(slots[0], 0);
  if (digits < 0 || digits > 15) throw TemplateFault("round: 0 to 15 digits");
  const std::string method = slots[1] ? text_of(*slots[1]) : "common";
  const double scale = std::pow(10.0, static_cast<double>(digits));
  if (method == "ceil") return Value::of(std::ceil(*number * scale) / scale);
  if (method == "floor") return Value::of(std::floor(*number * scale) / scale);
  if (method != "common") throw TemplateFault("round: '" + method + "'");
  std::array<char, 400> digits_of{};
  // Correctly rounded decimal digits, ties to even, as Python's round().
  const auto end =
      std::to_chars(digits_of.data(), digits_of.data() + digits_of.size(),
                    *number, std::chars_format::fixed, static_cast<int>(digits))
          .ptr;
  double rounded = 0;
  std::from_chars(digits_of.data(), end, rounded);
  return Value::of(rounded);
}

// --- of lists and objects ---------------------------------------------------

Value default_filter(TemplateRuntime&, const Value& value,
                     const Arguments& arguments) {
  const auto slots = arguments.bind({"default_value", "boolean"});
  const bool missing =
      value.is_undefined() || (truth_or(slots[1], false) && !value.truth());
  return missing ? slots[0].value_or(Value::of("")) : value;
}

Value length(TemplateRuntime& runtime, const Value& value,
             const Arguments& arguments) {
  arguments.bind({});
  runtime.step(value.text() ? value.text()->size() / 16 + 1 : 1);
  return Value::of(length_of(value));
}

Value first(TemplateRuntime& runtime, const Value& value,
            const Arguments& arguments) {
  arguments.bind({});
  const auto items = checked_items(runtime, value);
  return items.empty() ? Value() : items.front();
}

Value last(TemplateRuntime& runtime, const Value& value,
           const Arguments& arguments) {
  arguments.bind({});
  const auto items = checked_items(runtime, value);
  return items.empty() ? Value() : items.back();
}

Value list(TemplateRuntime& runtime, const Value& value,
           const Arguments& arguments) {
  arguments.bind({});
  return Value::of(checked_items(runtime, value));
}

Value items(TemplateRuntime& runtime, const Value& value,
            const Arguments& arguments) {
  arguments.bind({});
  if (value.is_undefined()) return Value::of(std::vector<Value>{});
  if (!value.dict()) throw TemplateFault("items of " + value.type_name());
  runtime.go_through(value);
  std::vector<Value> pairs;
  for (const auto& [key, member] : value.dict()->members()) {
    pairs.push_back(Value::of({key, member}, true));
  }
  return Value::of(std::move(pairs));
}

Value reverse(TemplateRuntime& runtime, const Value& value,
              const Arguments& arguments) {
  arguments.bind({});
  auto reversed = checked_items(runtime, value);
  std::ranges::reverse(reversed);
  if (!value.text()) return Value::of(std::move(reversed));
  std::string out;
  for (const Value& character : reversed) out += *character.text();
  return Value::of(std::move(out));
}

// Upper and lower case are alike unless one asks for it.
Value sort_key(const Value& value, bool case_sensitive) {
  return value.text() && !case_sensitive ? Value::of(lower_case(*value.text()))
                                         : value;
}

Value key_of(TemplateRuntime& runtime, const Value& item,
             const std::optional<Value>& attribute, bool case_sensitive) {
  const bool part = attribute && !attribute->is_none();
  return sort_key(part ? path_of(runtime, item, *attribute) : item,
                  case_sensitive);
}

Value sorted(TemplateRuntime& runtime,
             std::vector<std::pair<Value, Value>> keyed, bool reversed) {
  std::ranges::stable_sort(keyed, [&](const auto& a, const auto& b) {
    runtime.step(1 + std::min(a.first.weight(), b.first.weight()) / 16);
    return reversed ? less(b.first, a.first) : less(a.first, b.first);
  });
  std::vector<Value> items;
  for (auto& [key, item] : keyed) items.push_back(std::move(item));
  return Value::of(std::move(items));
}

Value sort(TemplateRuntime& runtime, const Value& value,
           const Arguments& arguments) {
  const auto slots = arguments.bind({"reverse", "case_sensitive", "attribute"});
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : checked_items(runtime, value)) {
    keyed.emplace_back(
        key_of(runtime, item, slots[2], truth_or(slots[1], false)), item);
  }
  return sorted(runtime, std::move(keyed), truth_or(slots[0], false));
}

Value dict_sort(TemplateRuntime& runtime, const Value& value,
                const Arguments& arguments) {
  const auto slots = arguments.bind({"case_sensitive", "by", "reverse"});
  const std::string by = slots[1] ? text_of(*slots[1]) : "key";
  if (by != "key" && by != "value") throw TemplateFault("dictsort by " + by);
  const Value pairs = items(runtime, value, {});
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& pair : pairs.list()->items) {
    const Value& key = pair.list()->items[by == "key" ? 0 : 1];
    keyed.emplace_back(sort_key(key, truth_or(slots[0], false)), pair);
  }
  return sorted(runtime, std::move(keyed), truth_or(slots[2], false));
}

Value unique(TemplateRuntime& runtime, const Value& value,
             const Arguments& arguments) {
  const auto slots = arguments.bind({"case_sensitive", "attribute"});
  std::vector<Value> keys, chosen;
  for (const Value& item : checked_items(runtime, value)) {
    const Value key =
        key_of(runtime, item, slots[1], truth_or(slots[0], false));
    runtime.step(keys.size() + key.weight() / 16);
    if (std::ranges::any_of(keys,
                            [&](const Value& k) { return equal(k, key); })) {
      continue;
    }
    keys.push_back(key);
    chosen.push_back(item);
  }
  return Value::of(std::move(chosen));
}

template <bool kLargest>
Value extreme(TemplateRuntime& runtime, const Value& value,
              const Arguments& arguments) {
  const auto slots = arguments.bind({"case_sensitive", "attribute"});
  std::optional<std::pair<Value, Value>> best;
  for (const Value& item : checked_items(runtime, value)) {
    Value key = key_of(runtime, item, slots[1], truth_or(slots[0], false));
    if (best && !(kLargest ? less(best->first, key) : less(key, best->first))) {
      continue;
    }
    best.emplace(std::move(key), item);
  }
  return best ? best->second : Value();
}

Value sum(TemplateRuntime& runtime, const Value& value,
          const Arguments& arguments) {
  const auto slots = arguments.bind({"attribute", "start"});
  Value total = slots[1].value_or(Value::of(std::int64_t{0}));
  for (const Value& item : checked_items(runtime, value)) {
    const bool part = slots[0] && !slots[0]->is_none();
    const Value term = part ? path_of(runtime, item, *slots[0]) : item;
    if (!total.number() || !term.number()) {
      throw TemplateFault("sum of " + term.type_name());
    }
    std::int64_t integer = 0;
    if (total.integer() && term.integer()) {
      if (__builtin_add_overflow(*total.integer(), *term.integer(), &integer)) {
        throw TemplateFault("a number is too large");
      }
      total = Value::of(integer);
    } else {
      total = Value::of(*total.number() + *term.number());
    }
  }
  return total;
}

Value attribute(TemplateRuntime& runtime, const Value& value,
                const Arguments& arguments) {
  const auto slots = arguments.bind({"name"});
  if (!slots[0] || !slots[0]->text()) throw TemplateFault("wanted a name");
  return attribute_of(runtime, value, *slots[0]->text());
}

// The arguments behind the first `count`.
Arguments without_first(const Arguments& arguments, std::size_t count) {
  Arguments rest{.named = arguments.named};
  for (std::size_t i = count; i < arguments.positional.size(); ++i) {
    rest.positional.push_back(arguments.positional[i]);
  }
  return rest;
}

// map("upper"), map(attribute="name", default="").
Value map(TemplateRuntime& runtime, const Value& value,
          const Arguments& arguments) {
  std::vector<Value> out;
  if (!value.truth()) return Value::of(std::move(out));  // as Jinja, also none
  if (arguments.positional.empty()) {
    const auto slots = arguments.bind({"attribute", "default"});
    if (!slots[0]) throw TemplateFault("map: wanted a filter or an attribute");
    for (const Value& item : checked_items(runtime, value)) {
      Value part = path_of(runtime, item, *slots[0]);
      out.push_back(part.is_undefined() && slots[1] ? *slots[1] : part);
    }
    return Value::of(std::move(out));
  }
  const std::string name = text_of(arguments.positional[0]);
  const Arguments rest = without_first(arguments, 1);
  for (const Value& item : checked_items(runtime, value)) {
    runtime.step(1);
    out.push_back(apply_template_filter(runtime, name, item, rest));
  }
  return Value::of(std::move(out));
}

// select("test", ...), selectattr("name", "test", ...); without a test what is
// true.
template <bool kWanted, bool kOfAttribute>
Value choose(TemplateRuntime& runtime, const Value& value,
             const Arguments& arguments) {
  const std::size_t before = kOfAttribute ? 1 : 0;
  if (arguments.positional.size() < before) {
    throw TemplateFault("wanted an attribute");
  }
  const bool tests = arguments.positional.size() > before;
  const std::string test = tests ? text_of(arguments.positional[before]) : "";
  const Arguments rest = without_first(arguments, before + 1);
  std::vector<Value> chosen;
  if (!value.truth()) return Value::of(std::move(chosen));
  for (const Value& item : checked_items(runtime, value)) {
    runtime.step(1);
    const Value subject =
        kOfAttribute ? path_of(runtime, item, arguments.positional[0]) : item;
    const bool holds = tests ? apply_template_test(runtime, test, subject, rest)
                             : subject.truth();
    if (holds == kWanted) chosen.push_back(item);
  }
  return Value::of(std::move(chosen));
}

constexpr std::array<std::pair<const char*, Filter>, 39> kFilters{{
    {"abs", absolute},
    {"attr", attribute},
    {"capitalize", mapped<capitalized>},
    {"count", length},
    {"d", default_filter},
    {"default", default_filter},
    {"dictsort", dict_sort},
    {"e", escape},
    {"escape", escape},
    {"first", first},
    {"float", to_float},
    {"indent", indent},
    {"int", to_integer},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", length},
    {"list", list},
    {"lower", mapped<lower_case>},
    {"map", map},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"reject", choose<false, false>},
    {"rejectattr", choose<false, true>},
    {"replace", replace_filter},
    {"reverse", reverse},
    {"round", round_filter},
    {"safe", safe},
    {"select", choose<true, false>},
    {"selectattr", choose<true, true>},
    {"sort", sort},
    {"string", string},
    {"sum", sum},
    {"title", mapped<jinja_title_case>},
    {"tojson", to_json_filter},
    {"trim", trim},
    {"unique", unique},
    {"upper", mapped<upper_case>},
    {"wordcount", word_count},
}};

const Filter* find_filter(const std::string& name) {
  for (const auto& [known, filter] : kFilters) {
    if (name == known) return &filter;
  }
  return nullptr;
}

}  // namespace

bool has_template_filter(const std::string& name) {
  return find_filter(name) != nullptr;
}

TemplateValue apply_template_filter(TemplateRuntime& runtime,
                                    const std::string& name,
                                    const TemplateValue& value,
                                    const TemplateArguments& arguments) {
  const Filter* const filter = find_filter(name);
  if (!filter) throw TemplateUnsupported("the filter '" + name + "'");
  runtime.step(1);
  return (*filter)(runtime, value, arguments);
}

}  // namespace llmpress
