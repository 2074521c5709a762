#include "formats/templates/template_evaluator.h"

#include <algorithm>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/templates/template_filters.h"

namespace llmpress {

using Value = TemplateValue;

// While one lives, evaluation is one level deeper.
class TemplateEvaluator::Deeper {
 public:
  explicit Deeper(TemplateEvaluator& evaluator) : evaluator_(evaluator) {
    constexpr std::size_t kDeepest = 700;
    if (evaluator.depth_ == kDeepest) {
      throw TemplateFault("the template is nested too deep");
    }
    ++evaluator.depth_;
  }
  ~Deeper() { --evaluator_.depth_; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;

 private:
  TemplateEvaluator& evaluator_;
};

std::string TemplateEvaluator::render(const TemplateBody& body,
                                      const TemplateDict& context) {
  Scope& root = open(nullptr);
  for (const auto& [name, value] : context.members()) {
    if (name.text()) root.names.emplace_back(*name.text(), value);
  }
  std::string out;
  run(body, open(&root), out);
  return out;
}

TemplateEvaluator::Scope& TemplateEvaluator::open(Scope* parent) {
  runtime_.step(8);
  return scopes_.emplace_back(Scope{parent});
}

void TemplateEvaluator::set(Scope& scope, const std::string& name,
                            TemplateValue value) {
  for (auto& [known, old] : scope.names) {
    if (known != name) continue;
    old = std::move(value);
    return;
  }
  scope.names.emplace_back(name, std::move(value));
}

TemplateValue TemplateEvaluator::look_up(const std::string& name,
                                         const Scope& scope) {
  for (const Scope* at = &scope; at; at = at->parent) {
    runtime_.step(1 + at->names.size() / 16);
    for (const auto& [known, value] : at->names) {
      if (known == name) return value;
    }
  }
  return template_function(runtime_, name);
}

TemplateEvaluator::Flow TemplateEvaluator::run(const TemplateBody& body,
                                               Scope& scope, std::string& out) {
  for (const auto& statement : body) {
    try {
      const Deeper deeper(*this);
      runtime_.step(1);
      const Flow flow =
          std::visit([&](const auto& s) { return run_node(s, scope, out); },
                     statement->node);
      if (flow != Flow::kOn) return flow;
    } catch (const TemplateFault& fault) {
      source_.fail_at(statement->at, ErrorCode::kInvalidInput, fault.what());
    }
  }
  return Flow::kOn;
}

TemplateEvaluator::Flow TemplateEvaluator::run_node(const TextStatement& s,
                                                    Scope&, std::string& out) {
  runtime_.append(out, s.text);
  return Flow::kOn;
}

TemplateEvaluator::Flow TemplateEvaluator::run_node(const OutputStatement& s,
                                                    Scope& scope,
                                                    std::string& out) {
  const Value value = evaluate(*s.value, scope);
  runtime_.go_through(value);
  runtime_.append(out, value.text() ? *value.text() : printed(value));
  return Flow::kOn;
}

TemplateEvaluator::Flow TemplateEvaluator::run_node(const IfStatement& s,
                                                    Scope& scope,
                                                    std::string& out) {
  for (const auto& [test, body] : s.branches) {
    if (evaluate(*test, scope).truth()) return run(body, scope, out);
  }
  return run(s.otherwise, scope, out);
}

std::vector<TemplateValue> TemplateEvaluator::loop_items(const ForStatement& s,
                                                         Scope& scope) {
  const Value all = evaluate(*s.items, scope);
  runtime_.step(all.weight() / 16 + 1);
  std::vector<Value> items = items_of(all);
  if (!s.filter) return items;
  std::vector<Value> chosen;
  for (Value& item : items) {
    Scope& inner = open(&scope);
    unpack(inner, s.targets, item);
    if (evaluate(*s.filter, inner).truth()) chosen.push_back(std::move(item));
  }
  return chosen;
}

TemplateEvaluator::Flow TemplateEvaluator::run_node(const ForStatement& s,
                                                    Scope& scope,
                                                    std::string& out) {
  TemplateList list{.items = loop_items(s, scope)};
  const std::size_t size = list.items.size();
  if (size == 0) return run(s.otherwise, open(&scope), out);
  const auto items = std::make_shared<const TemplateList>(std::move(list));
  for (std::size_t at = 0; at < size; ++at) {
    Scope& inner = open(&scope);
    unpack(inner, s.targets, items->items[at]);
    set(inner, "loop",
        Value::Kind(
            std::make_shared<const TemplateLoop>(TemplateLoop{items, at})));
    if (run(s.body, inner, out) == Flow::kBreak) break;
  }
  return Flow::kOn;
}

void TemplateEvaluator::unpack(Scope& scope,
                               const std::vector<std::string>& targets,
                               const TemplateValue& value) {
  if (targets.size() == 1) {
    set(scope, targets[0], value);
    return;
  }
  const std::vector<Value> parts = items_of(value);
  if (parts.size() != targets.size()) {
    throw TemplateFault(
        formatted("{} values for {} names", parts.size(), targets.size()));
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    set(scope, targets[i], parts[i]);
  }
}

void TemplateEvaluator::assign(Scope& scope, const std::string& name,
                               const std::string& member, Value value) {
  if (member.empty()) {
    set(scope, name, std::move(value));
    return;
  }
  const Value object = look_up(name, scope);
  const auto* space = object.get_if<Value::Namespace>();
  if (!space) {
    throw TemplateFault("'" + name + "' is no namespace but " +
                        object.type_name());
  }
  if (value.get_if<Value::Namespace>()) {
    throw TemplateFault("a namespace cannot hold a namespace");
  }
  (*space)->members[member] = std::move(value);
}

TemplateEvaluator::Flow TemplateEvaluator::run_node(const SetStatement& s,
                                                    Scope& scope,
                                                    std::string&) {
  Value value = evaluate(*s.value, scope);
  if (s.targets.size() == 1) {
    assign(scope, s.targets[0], s.member, std::move(value));
  } else {
    runtime_.go_through(value);
    unpack(scope, s.targets, value);
  }
  return Flow::kOn;
}

TemplateEvaluator::Flow TemplateEvaluator::run_node(const SetBlockStatement& s,
                                                    Scope& scope,
                                                    std::string&) {
  std::string text;
  const Flow flow = run(s.body, open(&scope), text);
  Value value = Value::of(std::move(text));
  if (s.filter) {
    const auto* const outer = std::exchange(block_text_, &value);
    Value filtered = evaluate(*s.filter, scope);
    block_text_ = outer;
    value = std::move(filtered);
  }
  assign(scope, s.target, s.member, std::move(value));
  return flow;
}

TemplateEvaluator::Flow TemplateEvaluator::run_node(const FilterStatement& s,
                                                    Scope& scope,
                                                    std::string& out) {
  std::string text;
  const Flow flow = run(s.body, open(&scope), text);
  const Value value = Value::of(std::move(text));
  const auto* const outer = std::exchange(block_text_, &value);
  const Value filtered = evaluate(*s.filter, scope);
  block_text_ = outer;
  runtime_.go_through(filtered);
  runtime_.append(out, printed(filtered));
  return flow;
}

std::string TemplateEvaluator::call_macro(const MacroStatement& s, Scope& outer,
                                          const TemplateArguments& arguments) {
  Scope& scope = open(&outer);
  if (arguments.positional.size() > s.parameters.size()) {
    throw TemplateFault(formatted("macro '{}' takes {} arguments", s.name,
                                  s.parameters.size()));
  }
  set(scope, "caller", Value::Kind(TemplateUndefined{"caller"}));
  std::size_t used = 0;
  for (std::size_t i = 0; i < s.parameters.size(); ++i) {
    const std::string& name = s.parameters[i].name;
    const auto& otherwise = s.parameters[i].otherwise;
    const auto named = std::ranges::find_if(
        arguments.named, [&](const auto& a) { return a.first == name; });
    Value value = Value::Kind(TemplateUndefined{name});
    if (i < arguments.positional.size()) {
      value = arguments.positional[i];
    } else if (named != arguments.named.end()) {
      value = named->second;
      ++used;
    } else if (otherwise) {
      value = evaluate(*otherwise, scope);
    }
    set(scope, name, std::move(value));
  }
  for (const auto& [name, value] : arguments.named) {
    if (name != "caller") continue;
    set(scope, name, value);
    ++used;
  }
  if (used != arguments.named.size()) {
    throw TemplateFault("macro '" + s.name + "' has no such parameter");
  }
  std::string out;
  run(s.body, scope, out);
  return out;
}

TemplateValue TemplateEvaluator::macro(const MacroStatement& s, Scope& scope) {
  return Value::Kind(std::make_shared<const TemplateCallable>(TemplateCallable{
      .name = s.name,
      .call = [this, &s, &scope](const TemplateArguments& arguments) {
        return Value::of(call_macro(s, scope, arguments));
      }}));
}

TemplateEvaluator::Flow TemplateEvaluator::run_node(const MacroStatement& s,
                                                    Scope& scope,
                                                    std::string&) {
  set(scope, s.name, macro(s, scope));
  return Flow::kOn;
}

TemplateEvaluator::Flow TemplateEvaluator::run_node(const CallStatement& s,
                                                    Scope& scope,
                                                    std::string& out) {
  const auto& call = std::get<CallExpression>(s.call->node);
  const Value callee = evaluate(*call.callee, scope);
  const auto* callable = callee.get_if<Value::Callable>();
  if (!callable) throw TemplateFault("cannot call " + callee.type_name());
  TemplateArguments arguments = arguments_of(call.arguments, scope);
  arguments.named.emplace_back("caller", macro(s.caller, scope));
  runtime_.append(out, printed((*callable)->call(arguments)));
  return Flow::kOn;
}

TemplateEvaluator::Flow TemplateEvaluator::run_node(const WithStatement& s,
                                                    Scope& scope,
                                                    std::string& out) {
  Scope& inner = open(&scope);
  for (const auto& [name, value] : s.names) {
    set(inner, name, evaluate(*value, scope));
  }
  return run(s.body, inner, out);
}

TemplateEvaluator::Flow TemplateEvaluator::run_node(const BreakStatement&,
                                                    Scope&, std::string&) {
  return Flow::kBreak;
}

TemplateEvaluator::Flow TemplateEvaluator::run_node(const ContinueStatement&,
                                                    Scope&, std::string&) {
  return Flow::kContinue;
}

}  // namespace llmpress
