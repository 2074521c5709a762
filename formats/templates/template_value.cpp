#include "formats/templates/template_value.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "compress/core/formatted.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

constexpr std::size_t kDeepest = 200;

// The depth of something that holds `value`.
std::size_t depth_around(const TemplateValue& value) {
  if (value.get_if<TemplateValue::Namespace>() ||
      value.get_if<TemplateValue::Loop>() ||
      value.get_if<TemplateValue::Callable>()) {
    throw TemplateFault(value.type_name() + " cannot stand inside a value");
  }
  const std::size_t depth = value.depth() + 1;
  if (depth > kDeepest) throw TemplateFault("values are nested too deep");
  return depth;
}

std::size_t checked_weight(std::size_t weight) {
  constexpr std::size_t kHeaviest = 1u << 24;
  if (weight > kHeaviest) throw TemplateFault("a value is too large");
  return weight;
}

}  // namespace

namespace {

// The same for keys that are equal; empty for what is no key.
std::string name_of_key(const TemplateValue& key) {
  if (key.text()) return "s" + *key.text();
  if (key.is_none()) return "none";
  const auto number = key.number();
  if (!number) return {};
  constexpr double kLargest = 9e15;  // a double is exact up to it
  if (!key.integer() && std::fabs(*number) <= kLargest &&
      std::trunc(*number) == *number) {
    return "i" + printed(TemplateValue::of(static_cast<std::int64_t>(*number)));
  }
  return key.integer() ? "i" + printed(TemplateValue::of(*key.integer()))
                       : "f" + printed(key);
}

}  // namespace

void TemplateDict::set(TemplateValue key, TemplateValue value) {
  std::string name = name_of_key(key);
  if (name.empty()) throw TemplateFault(key.type_name() + " is no key");
  depth_ = std::max(depth_, depth_around(value));
  weight_ = checked_weight(weight_ + key.weight() + value.weight());
  const auto [at, is_new] = index_.emplace(std::move(name), members_.size());
  if (is_new) {
    members_.emplace_back(std::move(key), std::move(value));
  } else {
    members_[at->second].second = std::move(value);
  }
}

void TemplateDict::set(const std::string& key, TemplateValue value) {
  set(TemplateValue::of(key), std::move(value));
}

const TemplateValue* TemplateDict::find(const TemplateValue& key) const {
  const auto at = index_.find(name_of_key(key));
  return at == index_.end() ? nullptr : &members_[at->second].second;
}

const TemplateValue* TemplateDict::find(const std::string& key) const {
  const auto at = index_.find("s" + key);
  return at == index_.end() ? nullptr : &members_[at->second].second;
}

TemplateValue TemplateValue::of(std::size_t value) {
  return of(static_cast<std::int64_t>(value));
}

TemplateValue TemplateValue::of(std::string text) {
  return Kind(std::make_shared<const std::string>(std::move(text)));
}

TemplateValue TemplateValue::markup(std::string text) {
  return Kind(
      TemplateMarkup{std::make_shared<const std::string>(std::move(text))});
}

TemplateValue TemplateValue::of(std::vector<TemplateValue> items, bool tuple) {
  TemplateList list{.items = std::move(items), .tuple = tuple};
  for (const TemplateValue& item : list.items) {
    list.depth = std::max(list.depth, depth_around(item));
    list.weight = checked_weight(list.weight + item.weight());
  }
  return Kind(std::make_shared<const TemplateList>(std::move(list)));
}

TemplateValue TemplateValue::of(TemplateDict dict) {
  return Kind(std::make_shared<const TemplateDict>(std::move(dict)));
}

const std::string* TemplateValue::text() const {
  if (const auto* markup = get_if<TemplateMarkup>()) return markup->text.get();
  const auto* text = get_if<Text>();
  return text ? text->get() : nullptr;
}

const TemplateList* TemplateValue::list() const {
  const auto* list = get_if<List>();
  return list ? list->get() : nullptr;
}

const TemplateDict* TemplateValue::dict() const {
  const auto* dict = get_if<Dict>();
  return dict ? dict->get() : nullptr;
}

std::optional<std::int64_t> TemplateValue::integer() const {
  if (const auto* flag = get_if<bool>()) return *flag ? 1 : 0;
  if (const auto* value = get_if<std::int64_t>()) return *value;
  return std::nullopt;
}

std::optional<double> TemplateValue::number() const {
  if (const auto* value = get_if<double>()) return *value;
  if (const auto value = integer()) return static_cast<double>(*value);
  return std::nullopt;
}

bool TemplateValue::truth() const {
  if (is_undefined() || is_none()) return false;
  if (const auto value = number()) return *value != 0;
  if (const auto* t = text()) return !t->empty();
  if (const auto* l = list()) return !l->items.empty();
  if (const auto* d = dict()) return !d->members().empty();
  return true;
}

std::size_t TemplateValue::depth() const {
  if (const auto* l = list()) return l->depth;
  if (const auto* d = dict()) return d->depth();
  return 0;
}

std::size_t TemplateValue::weight() const {
  if (const auto* t = text()) return t->size() + 1;
  if (const auto* l = list()) return l->weight;
  if (const auto* d = dict()) return d->weight();
  return 1;
}

std::string TemplateValue::type_name() const {
  if (const auto* undefined = get_if<TemplateUndefined>()) {
    return undefined->name.empty() ? "something undefined"
                                   : "'" + undefined->name + "', undefined";
  }
  if (is_none()) return "none";
  if (get_if<bool>()) return "a bool";
  if (number()) return "a number";
  if (text()) return "a string";
  if (list()) return "a list";
  if (dict()) return "an object";
  if (get_if<Namespace>()) return "a namespace";
  return get_if<Loop>() ? "a loop" : "a function";
}

std::vector<std::optional<TemplateValue>> TemplateArguments::bind(
    std::initializer_list<const char*> parameters) const {
  std::vector<std::optional<TemplateValue>> slots(parameters.size());
  if (positional.size() > slots.size()) {
    throw TemplateFault(formatted("{} arguments, wanted at most {}",
                                  positional.size(), slots.size()));
  }
  std::copy(positional.begin(), positional.end(), slots.begin());
  for (const auto& [name, value] : named) {
    const auto at = std::find(parameters.begin(), parameters.end(), name);
    if (at == parameters.end()) {
      throw TemplateFault("no parameter has the name '" + name + "'");
    }
    auto& slot = slots[static_cast<std::size_t>(at - parameters.begin())];
    if (slot) throw TemplateFault("'" + name + "' is given twice");
    slot = value;
  }
  return slots;
}

bool equal(const TemplateValue& a, const TemplateValue& b) {
  if (a.integer() && b.integer()) return *a.integer() == *b.integer();
  if (a.number() && b.number()) return *a.number() == *b.number();
  if (a.text() && b.text()) return *a.text() == *b.text();
  if (a.list() && b.list()) {
    return a.list()->tuple == b.list()->tuple &&
           std::ranges::equal(a.list()->items, b.list()->items, equal);
  }
  if (a.dict() && b.dict()) {
    if (a.dict()->members().size() != b.dict()->members().size()) return false;
    return std::ranges::all_of(a.dict()->members(), [&](const auto& member) {
      const TemplateValue* const other = b.dict()->find(member.first);
      return other && equal(member.second, *other);
    });
  }
  if (a.kind().index() != b.kind().index()) return false;
  if (a.is_none() || a.is_undefined()) return true;
  if (const auto* space = a.get_if<TemplateValue::Namespace>()) {
    return *space == *b.get_if<TemplateValue::Namespace>();
  }
  return false;
}

bool less(const TemplateValue& a, const TemplateValue& b) {
  if (a.integer() && b.integer()) return *a.integer() < *b.integer();
  if (a.number() && b.number()) return *a.number() < *b.number();
  // UTF-8 sorts as its characters do.
  if (a.text() && b.text()) return *a.text() < *b.text();
  if (a.list() && b.list() && a.list()->tuple == b.list()->tuple) {
    const auto& left = a.list()->items;
    const auto& right = b.list()->items;
    for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
      if (!equal(left[i], right[i])) return less(left[i], right[i]);
    }
    return left.size() < right.size();
  }
  throw TemplateFault("cannot order " + a.type_name() + " and " +
                      b.type_name());
}

std::vector<TemplateValue> items_of(const TemplateValue& value) {
  std::vector<TemplateValue> items;
  if (value.list()) return value.list()->items;
  if (const auto* dict = value.dict()) {
    for (const auto& member : dict->members()) {
      items.push_back(member.first);
    }
  } else if (const auto* text = value.text()) {
    for (std::size_t at = 0; at < text->size();) {
      const std::size_t begin = at;
      next_utf8(*text, at);
      items.push_back(TemplateValue::of(text->substr(begin, at - begin)));
    }
  } else if (!value.is_undefined()) {
    throw TemplateFault("cannot go through " + value.type_name());
  }
  return items;
}

}  // namespace llmpress
