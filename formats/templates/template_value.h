// The values of a template: what JSON has, and what Jinja adds to it. Lists and
// objects do not change once they are made, so that values can share them; a
// namespace does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace llmpress {

// What goes wrong inside an expression; whoever knows its place adds it.
class TemplateFault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class TemplateUnsupported : public TemplateFault {  // what this version lacks
 public:
  using TemplateFault::TemplateFault;
};

class TemplateValue;
struct TemplateArguments;

// What a name stands for that is not there. It prints as nothing.
struct TemplateUndefined {
  std::string name{};
};
struct TemplateNone {};

struct TemplateList;
class TemplateDict;
struct TemplateNamespace;
struct TemplateLoop;
struct TemplateCallable;

// A text that is "safe": what is added to it with + is escaped for HTML, as
// Jinja's Markup does. Filters and methods make plain texts of it.
struct TemplateMarkup {
  std::shared_ptr<const std::string> text{};
};

class TemplateValue {
 public:
  using Text = std::shared_ptr<const std::string>;
  using List = std::shared_ptr<const TemplateList>;
  using Dict = std::shared_ptr<const TemplateDict>;
  using Namespace = std::shared_ptr<TemplateNamespace>;
  using Loop = std::shared_ptr<const TemplateLoop>;
  using Callable = std::shared_ptr<const TemplateCallable>;
  using Kind =
      std::variant<TemplateUndefined, TemplateNone, bool, std::int64_t, double,
                   Text, List, Dict, Namespace, Loop, Callable, TemplateMarkup>;

  TemplateValue() : kind_(TemplateUndefined{}) {}
  TemplateValue(Kind kind) : kind_(std::move(kind)) {}
  static TemplateValue none() { return Kind(TemplateNone{}); }
  static TemplateValue of(bool value) { return Kind(value); }
  static TemplateValue of(std::int64_t value) { return Kind(value); }
  static TemplateValue of(std::size_t value);
  static TemplateValue of(double value) { return Kind(value); }
  static TemplateValue of(std::string text);
  static TemplateValue markup(std::string text);
  static TemplateValue of(const char* text) { return of(std::string(text)); }
  // These throw TemplateFault where values are nested more than 200 deep or have
  // a weight of more than 2^24, or hold a namespace, a loop or a function, which
  // could hold them.
  static TemplateValue of(std::vector<TemplateValue> items, bool tuple = false);
  static TemplateValue of(TemplateDict dict);

  const Kind& kind() const { return kind_; }
  template <class T>
  const T* get_if() const {
    return std::get_if<T>(&kind_);
  }
  bool is_undefined() const { return get_if<TemplateUndefined>() != nullptr; }
  bool is_none() const { return get_if<TemplateNone>() != nullptr; }
  const std::string* text() const;              // null if it is none
  const TemplateList* list() const;             // null if it is none
  const TemplateDict* dict() const;             // null if it is none
  std::optional<std::int64_t> integer() const;  // of a number or a bool
  std::optional<double> number() const;
  bool truth() const;
  // How deep lists and objects are nested, and how many bytes of text and values
  // it takes to go through all of it, shared ones as often as they stand there.
  std::size_t depth() const;
  std::size_t weight() const;

  // "a string", "a number", ..., for messages.
  std::string type_name() const;

 private:
  Kind kind_;
};

struct TemplateList {
  std::vector<TemplateValue> items{};
  bool tuple = false;  // prints in round brackets
  std::size_t depth = 1, weight = 1;
};

// In the order in which its members were set first. Keys are strings, numbers,
// bools and none, of which 1, 1.0 and true are one; anything else is a
// TemplateFault.
class TemplateDict {
 public:
  void set(TemplateValue key, TemplateValue value);
  void set(const std::string& key, TemplateValue value);
  // Null where there is none.
  const TemplateValue* find(const TemplateValue& key) const;
  const TemplateValue* find(const std::string& key) const;
  const std::vector<std::pair<TemplateValue, TemplateValue>>& members() const {
    return members_;
  }
  std::size_t depth() const { return depth_; }
  std::size_t weight() const { return weight_; }

 private:
  std::vector<std::pair<TemplateValue, TemplateValue>> members_{};
  std::unordered_map<std::string, std::size_t> index_{};  // by what names a key
  std::size_t depth_ = 1, weight_ = 1;
};

// namespace(): the one thing that an inner scope can change. It holds no other.
struct TemplateNamespace {
  std::unordered_map<std::string, TemplateValue> members{};
};

// The "loop" of a for: where it stands among its items.
struct TemplateLoop {
  std::shared_ptr<const TemplateList> items{};
  std::size_t at = 0;
};

// A macro, a global function or a method with what it belongs to.
struct TemplateCallable {
  std::string name{};
  std::function<TemplateValue(const TemplateArguments&)> call{};
};

struct TemplateArguments {
  std::vector<TemplateValue> positional{};
  std::vector<std::pair<std::string, TemplateValue>> named{};

  // The arguments by the names of the parameters; empty where one is not given.
  // Throws TemplateFault for one too many or a name that is none of them.
  std::vector<std::optional<TemplateValue>> bind(
      std::initializer_list<const char*> parameters) const;
};

// As Python's ==, < and `in`; these throw TemplateFault where Python does.
bool equal(const TemplateValue& a, const TemplateValue& b);
bool less(const TemplateValue& a, const TemplateValue& b);

// Items of a list, keys of an object, characters of a string; nothing of what is
// not there. Throws TemplateFault for anything else.
std::vector<TemplateValue> items_of(const TemplateValue& value);

// & < > " ' as HTML's entities.
std::string escaped(std::string_view text);

// What {{ value }} prints: Python's str(), and nothing for what is not there.
std::string printed(const TemplateValue& value);
// Python's repr(), as it stands inside a printed list.
std::string represented(const TemplateValue& value);

struct TemplateJsonStyle {
  std::optional<std::string> indent{};  // of one level; empty: one line
  std::string item_separator = ", ", key_separator = ": ";
  bool sorts_keys = false, ascii_only = false;
};
// As Python's json.dumps(). Throws TemplateFault for what JSON has not.
std::string to_json(const TemplateValue& value, const TemplateJsonStyle& style);

}  // namespace llmpress
