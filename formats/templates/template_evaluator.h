// Renders the tree of a template, with Jinja's scopes: a for, a macro, a with
// and the body of a set have one of their own; an if has none.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "formats/templates/template_runtime.h"
#include "formats/templates/template_source.h"
#include "formats/templates/template_tree.h"

namespace llmpress {

class TemplateEvaluator {
 public:
  TemplateEvaluator(const TemplateSource& source, TemplateRuntime& runtime)
      : source_(source), runtime_(runtime) {}

  // Throws Error with the place: kUnsupported for a filter or test that is not
  // known, kInvalidInput for the rest, also for what raise_exception() says.
  std::string render(const TemplateBody& body, const TemplateDict& context);

 private:
  struct Scope {
    Scope* parent = nullptr;
    std::vector<std::pair<std::string, TemplateValue>> names{};
  };
  enum class Flow { kOn, kBreak, kContinue };
  class Deeper;  // bounds recursion

  Scope& open(Scope* parent);
  static void set(Scope& scope, const std::string& name, TemplateValue value);
  TemplateValue look_up(const std::string& name, const Scope& scope);

  Flow run(const TemplateBody& body, Scope& scope, std::string& out);
  Flow run_node(const TextStatement& s, Scope& scope, std::string& out);
  Flow run_node(const OutputStatement& s, Scope& scope, std::string& out);
  Flow run_node(const IfStatement& s, Scope& scope, std::string& out);
  Flow run_node(const ForStatement& s, Scope& scope, std::string& out);
  Flow run_node(const SetStatement& s, Scope& scope, std::string& out);
  Flow run_node(const SetBlockStatement& s, Scope& scope, std::string& out);
  Flow run_node(const FilterStatement& s, Scope& scope, std::string& out);
  Flow run_node(const MacroStatement& s, Scope& scope, std::string& out);
  Flow run_node(const CallStatement& s, Scope& scope, std::string& out);
  Flow run_node(const WithStatement& s, Scope& scope, std::string& out);
  Flow run_node(const BreakStatement& s, Scope& scope, std::string& out);
  Flow run_node(const ContinueStatement& s, Scope& scope, std::string& out);

  void assign(Scope& scope, const std::string& name, const std::string& member,
              TemplateValue value);
  void unpack(Scope& scope, const std::vector<std::string>& targets,
              const TemplateValue& value);
  std::vector<TemplateValue> loop_items(const ForStatement& s, Scope& scope);
  TemplateValue macro(const MacroStatement& s, Scope& scope);
  std::string call_macro(const MacroStatement& s, Scope& outer,
                         const TemplateArguments& arguments);

  TemplateValue evaluate(const TemplateExpression& e, Scope& scope);
  TemplateValue value_of(const ConstantExpression& e, Scope& scope);
  TemplateValue value_of(const NameExpression& e, Scope& scope);
  TemplateValue value_of(const ListExpression& e, Scope& scope);
  TemplateValue value_of(const DictExpression& e, Scope& scope);
  TemplateValue value_of(const UnaryExpression& e, Scope& scope);
  TemplateValue value_of(const BinaryExpression& e, Scope& scope);
  TemplateValue value_of(const ComparisonExpression& e, Scope& scope);
  TemplateValue value_of(const ConditionalExpression& e, Scope& scope);
  TemplateValue value_of(const AttributeExpression& e, Scope& scope);
  TemplateValue value_of(const ItemExpression& e, Scope& scope);
  TemplateValue value_of(const SliceExpression& e, Scope& scope);
  TemplateValue value_of(const CallExpression& e, Scope& scope);
  TemplateValue value_of(const FilterExpression& e, Scope& scope);
  TemplateValue value_of(const TestExpression& e, Scope& scope);
  TemplateArguments arguments_of(const TemplateCallArguments& arguments,
                                 Scope& scope);

  const TemplateSource& source_;
  TemplateRuntime& runtime_;
  std::deque<Scope> scopes_{};  // all, until the end: macros refer to theirs
  std::size_t depth_ = 0;
  const TemplateValue* block_text_ = nullptr;  // that a filter block is for
};

}  // namespace llmpress
