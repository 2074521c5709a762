// Values of expressions.
#include <utility>

#include "formats/templates/template_access.h"
#include "formats/templates/template_arithmetic.h"
#include "formats/templates/template_evaluator.h"
#include "formats/templates/template_filters.h"

namespace llmpress {

using Value = TemplateValue;

TemplateValue TemplateEvaluator::evaluate(const TemplateExpression& e,
                                          Scope& scope) {
  constexpr std::size_t kDeepest = 700;
  if (depth_ >= kDeepest) {
    source_.fail_at(e.at, ErrorCode::kInvalidInput,
                    "the template is nested too deep");
  }
  ++depth_;
  try {
    runtime_.step(1);
    Value value = std::visit(
        [&](const auto& node) { return value_of(node, scope); }, e.node);
    --depth_;
    return value;
  } catch (const TemplateUnsupported& fault) {
    source_.unsupported(e.at, fault.what());
  } catch (const TemplateFault& fault) {
    source_.fail_at(e.at, ErrorCode::kInvalidInput, fault.what());
  }
}

TemplateValue TemplateEvaluator::value_of(const ConstantExpression& e, Scope&) {
  return e.value;
}

TemplateValue TemplateEvaluator::value_of(const NameExpression& e,
                                          Scope& scope) {
  return look_up(e.name, scope);
}

TemplateValue TemplateEvaluator::value_of(const ListExpression& e,
                                          Scope& scope) {
  std::vector<Value> items;
  for (const auto& item : e.items) items.push_back(evaluate(*item, scope));
  return Value::of(std::move(items), e.tuple);
}

TemplateValue TemplateEvaluator::value_of(const DictExpression& e,
                                          Scope& scope) {
  TemplateDict dict;
  for (const auto& [key, value] : e.members) {
    Value name = evaluate(*key, scope);
    dict.set(std::move(name), evaluate(*value, scope));
  }
  return Value::of(std::move(dict));
}

TemplateValue TemplateEvaluator::value_of(const UnaryExpression& e,
                                          Scope& scope) {
  return apply_operator(e.op, evaluate(*e.operand, scope));
}

TemplateValue TemplateEvaluator::value_of(const BinaryExpression& e,
                                          Scope& scope) {
  Value left = evaluate(*e.left, scope);
  if (e.op == BinaryOperator::kAnd && !left.truth()) return left;
  if (e.op == BinaryOperator::kOr && left.truth()) return left;
  return apply_operator(runtime_, e.op, left, evaluate(*e.right, scope));
}

TemplateValue TemplateEvaluator::value_of(const ComparisonExpression& e,
                                          Scope& scope) {
  Value left = evaluate(*e.first, scope);
  for (const auto& [op, operand] : e.rest) {
    Value right = evaluate(*operand, scope);
    if (!compare(runtime_, op, left, right)) return Value::of(false);
    left = std::move(right);
  }
  return Value::of(true);
}

TemplateValue TemplateEvaluator::value_of(const ConditionalExpression& e,
                                          Scope& scope) {
  if (evaluate(*e.test, scope).truth()) return evaluate(*e.then, scope);
  return e.otherwise ? evaluate(*e.otherwise, scope) : Value();
}

TemplateValue TemplateEvaluator::value_of(const AttributeExpression& e,
                                          Scope& scope) {
  return attribute_of(runtime_, evaluate(*e.object, scope), e.name);
}

TemplateValue TemplateEvaluator::value_of(const ItemExpression& e,
                                          Scope& scope) {
  const Value object = evaluate(*e.object, scope);
  return item_of(runtime_, object, evaluate(*e.index, scope));
}

TemplateValue TemplateEvaluator::value_of(const SliceExpression& e,
                                          Scope& scope) {
  const Value object = evaluate(*e.object, scope);
  const auto part =
      [&](const TemplateExpressionPtr& bound) -> std::optional<std::int64_t> {
    if (!bound) return std::nullopt;
    const Value value = evaluate(*bound, scope);
    if (value.is_none()) return std::nullopt;
    if (!value.integer()) {
      throw TemplateFault("a slice by " + value.type_name());
    }
    return value.integer();
  };
  TemplateSlice slice;
  slice.begin = part(e.begin);
  slice.end = part(e.end);
  slice.step = part(e.step);
  return slice_of(runtime_, object, slice);
}

TemplateArguments TemplateEvaluator::arguments_of(
    const TemplateCallArguments& arguments, Scope& scope) {
  TemplateArguments values;
  for (const auto& e : arguments.positional) {
    values.positional.push_back(evaluate(*e, scope));
  }
  for (const auto& [name, e] : arguments.named) {
    values.named.emplace_back(name, evaluate(*e, scope));
  }
  return values;
}

TemplateValue TemplateEvaluator::value_of(const CallExpression& e,
                                          Scope& scope) {
  const Value callee = evaluate(*e.callee, scope);
  const auto* callable = callee.get_if<Value::Callable>();
  if (!callable) throw TemplateFault("cannot call " + callee.type_name());
  return (*callable)->call(arguments_of(e.arguments, scope));
}

TemplateValue TemplateEvaluator::value_of(const FilterExpression& e,
                                          Scope& scope) {
  if (!has_template_filter(e.name)) {
    throw TemplateUnsupported("the filter '" + e.name + "'");
  }
  const Value object = e.object ? evaluate(*e.object, scope) : *block_text_;
  return apply_template_filter(runtime_, e.name, object,
                               arguments_of(e.arguments, scope));
}

TemplateValue TemplateEvaluator::value_of(const TestExpression& e,
                                          Scope& scope) {
  if (!has_template_test(e.name)) {
    throw TemplateUnsupported("the test '" + e.name + "'");
  }
  const Value object = evaluate(*e.object, scope);
  return Value::of(apply_template_test(runtime_, e.name, object,
                                       arguments_of(e.arguments, scope)));
}

}  // namespace llmpress
