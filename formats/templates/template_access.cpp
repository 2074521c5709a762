#include "formats/templates/template_access.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

using Arguments = TemplateArguments;
using Value = TemplateValue;

Value undefined(const std::string& name) {
  return Value::Kind(TemplateUndefined{name});
}

Value callable(std::string name, std::function<Value(const Arguments&)> call) {
  return Value::Kind(std::make_shared<const TemplateCallable>(
      TemplateCallable{std::move(name), std::move(call)}));
}

Value dict_items(const TemplateDict& dict) {
  std::vector<Value> items;
  for (const auto& [key, value] : dict.members()) {
    items.push_back(Value::of({key, value}, true));
  }
  return Value::of(std::move(items));
}

Value dict_values(const TemplateDict& dict) {
  std::vector<Value> values;
  for (const auto& member : dict.members()) values.push_back(member.second);
  return Value::of(std::move(values));
}

Value dict_get(const TemplateDict& dict, const Arguments& arguments) {
  const auto slots = arguments.bind({"key", "default"});
  if (!slots[0]) throw TemplateFault("get: wanted a key");
  const Value* const found = dict.find(*slots[0]);
  return found ? *found : slots[1].value_or(Value::none());
}

Value dict_method(TemplateRuntime& runtime, const Value& object,
                  const std::string& name) {
  const auto method = [&](Value (*of)(const TemplateDict&)) {
    return callable(name, [&runtime, object, of](const Arguments& arguments) {
      arguments.bind({});
      runtime.step(object.dict()->members().size() + 1);
      return of(*object.dict());
    });
  };
  if (name == "items") return method(dict_items);
  if (name == "values") return method(dict_values);
  if (name == "keys") {
    return method([](const TemplateDict& dict) {
      std::vector<Value> keys;
      for (const auto& member : dict.members()) {
        keys.push_back(member.first);
      }
      return Value::of(std::move(keys));
    });
  }
  if (name == "get") {
    return callable(name, [object](const Arguments& arguments) {
      return dict_get(*object.dict(), arguments);
    });
  }
  return {};
}

Value list_method(TemplateRuntime& runtime, const Value& object,
                  const std::string& name) {
  if (name == "append" || name == "extend" || name == "insert" ||
      name == "pop" || name == "remove" || name == "clear" || name == "sort" ||
      name == "reverse") {
    throw TemplateFault("a template cannot change a list");
  }
  if (name != "index" && name != "count") return {};
  return callable(name, [&runtime, object, name](const Arguments& arguments) {
    const auto slots = arguments.bind({"value"});
    if (!slots[0]) throw TemplateFault(name + ": wanted a value");
    runtime.go_through(object);
    const auto& items = object.list()->items;
    const auto same = [&](const Value& item) { return equal(item, *slots[0]); };
    if (name == "count") {
      return Value::of(
          static_cast<std::int64_t>(std::ranges::count_if(items, same)));
    }
    const auto at = std::ranges::find_if(items, same);
    if (at == items.end()) throw TemplateFault("index: not found");
    return Value::of(static_cast<std::int64_t>(at - items.begin()));
  });
}

Value loop_attribute(TemplateRuntime& runtime, const Value& object,
                     const std::string& name) {
  const auto loop = *object.get_if<Value::Loop>();
  const auto& items = loop->items->items;
  const std::size_t at = loop->at;
  if (name == "index") return Value::of(at + 1);
  if (name == "index0") return Value::of(at);
  if (name == "revindex") return Value::of(items.size() - at);
  if (name == "revindex0") return Value::of(items.size() - at - 1);
  if (name == "first") return Value::of(at == 0);
  if (name == "last") return Value::of(at + 1 == items.size());
  if (name == "length") return Value::of(items.size());
  // How often a recursive loop calls itself, and those are not known.
  if (name == "depth") return Value::of(std::int64_t{1});
  if (name == "depth0") return Value::of(std::int64_t{0});
  if (name == "previtem") return at == 0 ? undefined(name) : items[at - 1];
  if (name == "nextitem") {
    return at + 1 == items.size() ? undefined(name) : items[at + 1];
  }
  if (name == "cycle") {
    return callable(name, [&runtime, at](const Arguments& arguments) {
      runtime.step(1);
      if (arguments.positional.empty()) {
        throw TemplateFault("cycle: wanted values");
      }
      return arguments.positional[at % arguments.positional.size()];
    });
  }
  if (name == "changed") throw TemplateFault("loop.changed is not supported");
  return undefined(name);
}

// As Python's, from the end if negative; empty where there is none.
std::optional<std::size_t> position(std::size_t size, std::int64_t index) {
  if (index < 0) index += static_cast<std::int64_t>(size);
  if (index < 0 || index >= static_cast<std::int64_t>(size)) {
    return std::nullopt;
  }
  return static_cast<std::size_t>(index);
}

}  // namespace

TemplateValue attribute_of(TemplateRuntime& runtime,
                           const TemplateValue& object,
                           const std::string& name) {
  runtime.step(1);
  if (object.is_undefined()) {
    throw TemplateFault("no '" + name + "' of " + object.type_name());
  }
  if (object.get_if<Value::Loop>()) {
    return loop_attribute(runtime, object, name);
  }
  if (const auto* space = object.get_if<Value::Namespace>()) {
    const auto found = (*space)->members.find(name);
    return found == (*space)->members.end() ? undefined(name) : found->second;
  }
  Value method;
  if (object.text()) method = string_method(runtime, object, name);
  if (object.list()) method = list_method(runtime, object, name);
  if (object.dict()) method = dict_method(runtime, object, name);
  if (!method.is_undefined()) return method;
  const Value* const member =
      object.dict() ? object.dict()->find(name) : nullptr;
  return member ? *member : undefined(name);
}

TemplateValue item_of(TemplateRuntime& runtime, const TemplateValue& object,
                      const TemplateValue& index) {
  runtime.step(1);
  if (object.is_undefined()) {
    throw TemplateFault("no item of " + object.type_name());
  }
  const std::string* const key = index.text();
  if (object.dict()) {
    if (const Value* const member = object.dict()->find(index)) return *member;
    return key ? attribute_of(runtime, object, *key) : undefined("item");
  }
  if (const auto at = index.integer()) {
    if (const auto* list = object.list()) {
      const auto found = position(list->items.size(), *at);
      return found ? list->items[*found] : undefined("item");
    }
    if (const auto* text = object.text()) {
      runtime.go_through(object);
      const auto found = position(count_characters(*text), *at);
      return found ? items_of(object)[*found] : undefined("item");
    }
  }
  return key ? attribute_of(runtime, object, *key) : undefined("item");
}

TemplateValue slice_of(TemplateRuntime& runtime, const TemplateValue& object,
                       const TemplateSlice& slice) {
  if (!object.list() && !object.text()) {
    throw TemplateFault("no slice of " + object.type_name());
  }
  runtime.go_through(object);
  const std::vector<Value> items = items_of(object);
  std::vector<Value> chosen;
  for (const std::size_t i : slice_indices(items.size(), slice)) {
    chosen.push_back(items[i]);
  }
  if (object.list()) return Value::of(std::move(chosen), object.list()->tuple);
  std::string text;
  for (const Value& character : chosen) text += *character.text();
  return Value::of(std::move(text));
}

TemplateValue path_of(TemplateRuntime& runtime, const TemplateValue& object,
                      const TemplateValue& path) {
  if (!path.text()) return item_of(runtime, object, path);
  Value now = object;
  for (const std::string& part : split(runtime, *path.text(), ".", -1, false)) {
    std::int64_t index = 0;
    const char* const end = part.data() + part.size();
    const auto [stop, error] = std::from_chars(part.data(), end, index);
    const bool number = error == std::errc{} && stop == end;
    now = item_of(runtime, now, number ? Value::of(index) : Value::of(part));
  }
  return now;
}

bool contains(TemplateRuntime& runtime, const TemplateValue& container,
              const TemplateValue& value) {
  if (const auto* dict = container.dict()) {
    return dict->find(value) != nullptr;
  }
  if (const auto* text = container.text()) {
    if (!value.text()) {
      throw TemplateFault("'in' a string: found " + value.type_name());
    }
    return find_text(runtime, *text, *value.text()) != std::string::npos;
  }
  if (container.list()) {
    runtime.go_through(container);
    return std::ranges::any_of(container.list()->items, [&](const Value& item) {
      return equal(item, value);
    });
  }
  if (container.is_undefined()) return false;
  throw TemplateFault("nothing is in " + container.type_name());
}

std::size_t length_of(const TemplateValue& value) {
  if (const auto* text = value.text()) return count_characters(*text);
  if (const auto* list = value.list()) return list->items.size();
  if (const auto* dict = value.dict()) return dict->members().size();
  if (value.is_undefined()) return 0;
  throw TemplateFault("no length of " + value.type_name());
}

}  // namespace llmpress
