// Tests and global functions.
#include <algorithm>
#include <array>
#include <ctime>
#include <memory>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/templates/template_access.h"
#include "formats/templates/template_filters.h"
#include "formats/templates/template_text.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

using Arguments = TemplateArguments;
using Value = TemplateValue;
using Test = bool (*)(TemplateRuntime&, const Value&, const Arguments&);

const Value& operand(const Arguments& arguments) {
  if (arguments.positional.size() != 1 || !arguments.named.empty()) {
    throw TemplateFault("the test wants one argument");
  }
  return arguments.positional[0];
}

template <bool (*kIs)(const Value&)>
bool holds(TemplateRuntime&, const Value& value, const Arguments& arguments) {
  arguments.bind({});
  return kIs(value);
}

bool is_defined(const Value& v) { return !v.is_undefined(); }
bool is_undefined(const Value& v) { return v.is_undefined(); }
bool is_none(const Value& v) { return v.is_none(); }
bool is_boolean(const Value& v) { return v.get_if<bool>() != nullptr; }
bool is_true(const Value& v) { return is_boolean(v) && v.truth(); }
bool is_false(const Value& v) { return is_boolean(v) && !v.truth(); }
bool is_string(const Value& v) { return v.text() != nullptr; }
bool is_number(const Value& v) { return v.number().has_value(); }
bool is_float(const Value& v) { return v.get_if<double>() != nullptr; }
bool is_integer(const Value& v) { return v.get_if<std::int64_t>() != nullptr; }
bool is_mapping(const Value& v) { return v.dict() != nullptr; }
bool is_sequence(const Value& v) {
  return v.list() || v.text() || v.dict() || v.is_undefined();
}
bool is_callable(const Value& v) {
  return v.get_if<Value::Callable>() != nullptr;
}

bool is_lower(const Value& v) {
  const std::string text = printed(v);
  return lower_case(text) == text && upper_case(text) != text;
}
bool is_upper(const Value& v) {
  const std::string text = printed(v);
  return upper_case(text) == text && lower_case(text) != text;
}

std::int64_t whole(const Value& value) {
  const auto integer = value.integer();
  if (!integer) throw TemplateFault("wanted a whole number");
  return *integer;
}
bool is_even(const Value& v) { return whole(v) % 2 == 0; }
bool is_odd(const Value& v) { return whole(v) % 2 != 0; }

bool divisible(TemplateRuntime&, const Value& value,
               const Arguments& arguments) {
  const std::int64_t by = whole(operand(arguments));
  if (by == 0) throw TemplateFault("division by zero");
  return by == -1 || whole(value) % by == 0;
}

bool is_equal(TemplateRuntime& runtime, const Value& value,
              const Arguments& arguments) {
  runtime.go_through(value);
  return equal(value, operand(arguments));
}
bool is_unequal(TemplateRuntime& runtime, const Value& value,
                const Arguments& arguments) {
  return !is_equal(runtime, value, arguments);
}
bool is_less(TemplateRuntime& runtime, const Value& value,
             const Arguments& arguments) {
  runtime.go_through(value);
  return less(value, operand(arguments));
}
bool is_greater(TemplateRuntime& runtime, const Value& value,
                const Arguments& arguments) {
  runtime.go_through(value);
  return less(operand(arguments), value);
}
bool is_at_most(TemplateRuntime& runtime, const Value& value,
                const Arguments& arguments) {
  return !is_greater(runtime, value, arguments);
}
bool is_at_least(TemplateRuntime& runtime, const Value& value,
                 const Arguments& arguments) {
  return !is_less(runtime, value, arguments);
}
bool is_in(TemplateRuntime& runtime, const Value& value,
           const Arguments& arguments) {
  return contains(runtime, operand(arguments), value);
}
// One object; of values that cannot change, equal ones of one kind.
bool is_same(TemplateRuntime& runtime, const Value& value,
             const Arguments& arguments) {
  const Value& other = operand(arguments);
  return value.kind().index() == other.kind().index() &&
         is_equal(runtime, value, arguments);
}

constexpr std::array<std::pair<const char*, Test>, 39> kTests{{
    {"boolean", holds<is_boolean>},
    {"callable", holds<is_callable>},
    {"defined", holds<is_defined>},
    {"divisibleby", divisible},
    {"eq", is_equal},
    {"equalto", is_equal},
    {"==", is_equal},
    {"even", holds<is_even>},
    {"false", holds<is_false>},
    {"float", holds<is_float>},
    {"ge", is_at_least},
    {">=", is_at_least},
    {"gt", is_greater},
    {"greaterthan", is_greater},
    {">", is_greater},
    {"in", is_in},
    {"integer", holds<is_integer>},
    {"iterable", holds<is_sequence>},
    {"le", is_at_most},
    {"<=", is_at_most},
    {"lower", holds<is_lower>},
    {"lt", is_less},
    {"lessthan", is_less},
    {"<", is_less},
    {"mapping", holds<is_mapping>},
    {"ne", is_unequal},
    {"!=", is_unequal},
    {"none", holds<is_none>},
    {"None", holds<is_none>},
    {"number", holds<is_number>},
    {"odd", holds<is_odd>},
    {"sameas", is_same},
    {"sequence", holds<is_sequence>},
    {"string", holds<is_string>},
    {"true", holds<is_true>},
    {"True", holds<is_true>},
    {"False", holds<is_false>},
    {"undefined", holds<is_undefined>},
    {"upper", holds<is_upper>},
}};

const Test* find_test(const std::string& name) {
  for (const auto& [known, test] : kTests) {
    if (name == known) return &test;
  }
  return nullptr;
}

// --- global functions -------------------------------------------------------

Value range(TemplateRuntime& runtime, const Arguments& arguments) {
  constexpr std::size_t kMost = 100'000;  // as Jinja's sandbox
  const auto& given = arguments.positional;
  if (given.empty() || given.size() > 3 || !arguments.named.empty()) {
    throw TemplateFault("range wants one to three numbers");
  }
  const std::int64_t begin = given.size() == 1 ? 0 : whole(given[0]);
  const std::int64_t end = whole(given[given.size() == 1 ? 0 : 1]);
  const std::int64_t step = given.size() == 3 ? whole(given[2]) : 1;
  if (step == 0) throw TemplateFault("a range of step 0");
  std::vector<Value> numbers;
  for (std::int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (numbers.size() == kMost) {
      throw TemplateFault("a range of more than 100000 numbers");
    }
    runtime.step(1);
    numbers.push_back(Value::of(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::of(std::move(numbers));
}

// dict(a=1), dict(other, a=1).
TemplateDict dict_of(TemplateRuntime& runtime, const Arguments& arguments) {
  TemplateDict dict;
  if (arguments.positional.size() > 1)
    throw TemplateFault("one object at most");
  if (!arguments.positional.empty()) {
    const Value& other = arguments.positional[0];
    if (!other.dict()) throw TemplateFault("no object of " + other.type_name());
    runtime.go_through(other);
    dict = *other.dict();
  }
  for (const auto& [name, value] : arguments.named) {
    runtime.step(1);
    dict.set(name, value);
  }
  return dict;
}

Value make_namespace(TemplateRuntime& runtime, const Arguments& arguments) {
  auto space = std::make_shared<TemplateNamespace>();
  const TemplateDict dict = dict_of(runtime, arguments);
  for (const auto& [name, value] : dict.members()) {
    if (name.text()) space->members.emplace(*name.text(), value);
  }
  return Value::Kind(std::move(space));
}

Value raise(const Arguments& arguments) {
  const auto slots = arguments.bind({"message"});
  throw TemplateFault(slots[0] ? printed(*slots[0]) : "");
}

Value strftime_now(const TemplateRuntime& runtime, const Arguments& arguments) {
  const auto slots = arguments.bind({"format"});
  if (!slots[0] || !slots[0]->text() ||
      slots[0]->text()->find(char{}) != std::string::npos) {
    throw TemplateFault("wanted a format");
  }
  constexpr std::size_t kLongest = 256;
  const std::string format = *slots[0]->text() + " ";  // never empty
  std::array<char, 16 * kLongest> out{};
  const std::size_t size = format.size() > kLongest
                               ? 0
                               : std::strftime(out.data(), out.size(),
                                               format.c_str(), &runtime.now());
  if (size == 0) throw TemplateFault("the format of a date is too long");
  return Value::of(replace_invalid_utf8({out.data(), size - 1}));
}

// Nothing when it is called first, then its text.
Value joiner(const Arguments& arguments) {
  const auto slots = arguments.bind({"sep"});
  const auto used = std::make_shared<bool>(false);
  const Value separator = Value::of(slots[0] ? printed(*slots[0]) : ", ");
  return Value::Kind(std::make_shared<const TemplateCallable>(TemplateCallable{
      "joiner", [used, separator](const Arguments& none) {
        none.bind({});
        return std::exchange(*used, true) ? separator : Value::of("");
      }}));
}

}  // namespace

bool has_template_test(const std::string& name) {
  return find_test(name) != nullptr;
}

bool apply_template_test(TemplateRuntime& runtime, const std::string& name,
                         const TemplateValue& value,
                         const TemplateArguments& arguments) {
  const Test* const test = find_test(name);
  if (!test) throw TemplateUnsupported("the test '" + name + "'");
  runtime.step(1);
  return (*test)(runtime, value, arguments);
}

TemplateValue template_function(TemplateRuntime& runtime,
                                const std::string& name) {
  std::function<Value(const Arguments&)> call;
  if (name == "range") {
    call = [&](const Arguments& a) { return range(runtime, a); };
  } else if (name == "namespace") {
    call = [&](const Arguments& a) { return make_namespace(runtime, a); };
  } else if (name == "dict") {
    call = [&](const Arguments& a) { return Value::of(dict_of(runtime, a)); };
  } else if (name == "raise_exception") {
    call = raise;
  } else if (name == "strftime_now") {
    call = [&](const Arguments& a) { return strftime_now(runtime, a); };
  } else if (name == "joiner") {
    call = joiner;
  } else {
    return Value::Kind(TemplateUndefined{name});
  }
  return Value::Kind(std::make_shared<const TemplateCallable>(
      TemplateCallable{name, std::move(call)}));
}

}  // namespace llmpress
