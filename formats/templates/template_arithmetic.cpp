#include "formats/templates/template_arithmetic.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "formats/templates/template_access.h"
#include "formats/templates/template_text.h"

namespace llmpress {
namespace {

using Value = TemplateValue;

[[noreturn]] void refuse(const char* sign, const Value& left,
                         const Value& right) {
  throw TemplateFault("cannot use '" + std::string(sign) + "' with " +
                      left.type_name() + " and " + right.type_name());
}

Value checked(bool overflow, std::int64_t value) {
  if (overflow) throw TemplateFault("a number is too large");
  return Value::of(value);
}

Value add_texts(TemplateRuntime& runtime, const Value& left,
                const Value& right) {
  const bool markup =
      left.get_if<TemplateMarkup>() || right.get_if<TemplateMarkup>();
  std::string text;
  for (const Value* part : {&left, &right}) {
    const bool plain = markup && !part->get_if<TemplateMarkup>();
    runtime.append(text, plain ? escaped(*part->text()) : *part->text());
  }
  return markup ? Value::markup(std::move(text)) : Value::of(std::move(text));
}

Value add(TemplateRuntime& runtime, const Value& left, const Value& right) {
  if (left.integer() && right.integer()) {
    std::int64_t sum = 0;
    const bool overflow =
        __builtin_add_overflow(*left.integer(), *right.integer(), &sum);
    return checked(overflow, sum);
  }
  if (left.number() && right.number()) {
    return Value::of(*left.number() + *right.number());
  }
  if (left.text() && right.text()) return add_texts(runtime, left, right);
  if (left.list() && right.list() &&
      left.list()->tuple == right.list()->tuple) {
    runtime.go_through(left);
    runtime.go_through(right);
    std::vector<Value> items = left.list()->items;
    const auto& more = right.list()->items;
    items.insert(items.end(), more.begin(), more.end());
    return Value::of(std::move(items), left.list()->tuple);
  }
  refuse("+", left, right);
}

Value subtract(const Value& left, const Value& right) {
  if (left.integer() && right.integer()) {
    std::int64_t difference = 0;
    const bool overflow =
        __builtin_sub_overflow(*left.integer(), *right.integer(), &difference);
    return checked(overflow, difference);
  }
  if (!left.number() || !right.number()) refuse("-", left, right);
  return Value::of(*left.number() - *right.number());
}

Value multiply(TemplateRuntime& runtime, const Value& left,
               const Value& right) {
  if (left.integer() && right.integer()) {
    std::int64_t product = 0;
    const bool overflow =
        __builtin_mul_overflow(*left.integer(), *right.integer(), &product);
    return checked(overflow, product);
  }
  if (left.number() && right.number()) {
    return Value::of(*left.number() * *right.number());
  }
  const Value& text = left.text() ? left : right;
  const Value& times = left.text() ? right : left;
  if (!text.text() || !times.integer()) refuse("*", left, right);
  return Value::of(repeat(runtime, *text.text(), *times.integer()));
}

Value divide(const Value& left, const Value& right) {
  if (!left.number() || !right.number()) refuse("/", left, right);
  if (*right.number() == 0) throw TemplateFault("division by zero");
  return Value::of(*left.number() / *right.number());
}

// Towards minus infinity; the remainder has the divisor's sign.
Value floor_divide(const Value& left, const Value& right, bool remainder) {
  const char* const sign = remainder ? "%" : "//";
  if (!left.number() || !right.number()) refuse(sign, left, right);
  if (*right.number() == 0) throw TemplateFault("division by zero");
  if (!left.integer() || !right.integer()) {
    const double quotient = std::floor(*left.number() / *right.number());
    return Value::of(remainder ? *left.number() - quotient * *right.number()
                               : quotient);
  }
  const std::int64_t a = *left.integer(), b = *right.integer();
  if (b == -1) {
    if (remainder) return Value::of(std::int64_t{0});
    return checked(a == std::numeric_limits<std::int64_t>::min(),
                   a == std::numeric_limits<std::int64_t>::min() ? 0 : -a);
  }
  const bool below = a % b != 0 && (a < 0) != (b < 0);
  if (remainder) return Value::of(below ? a % b + b : a % b);
  return Value::of(below ? a / b - 1 : a / b);
}

Value power(const Value& left, const Value& right) {
  if (!left.number() || !right.number()) refuse("**", left, right);
  if (!left.integer() || !right.integer() || *right.integer() < 0) {
    return Value::of(std::pow(*left.number(), *right.number()));
  }
  const std::int64_t base = *left.integer();
  std::int64_t product = 1;
  if (base >= -1 && base <= 1) {
    const bool odd = *right.integer() % 2 != 0;
    return Value::of(*right.integer() == 0 ? 1 : odd ? base : base * base);
  }
  for (std::int64_t i = 0; i < *right.integer(); ++i) {
    const bool overflow = __builtin_mul_overflow(product, base, &product);
    if (overflow) throw TemplateFault("a number is too large");
  }
  return Value::of(product);
}

Value concatenate(TemplateRuntime& runtime, const Value& left,
                  const Value& right) {
  runtime.go_through(left);
  runtime.go_through(right);
  std::string text;
  runtime.append(text, printed(left));
  runtime.append(text, printed(right));
  return Value::of(std::move(text));
}

}  // namespace

TemplateValue apply_operator(TemplateRuntime& runtime, BinaryOperator op,
                             const TemplateValue& left,
                             const TemplateValue& right) {
  switch (op) {
    case BinaryOperator::kAdd:
      return add(runtime, left, right);
    case BinaryOperator::kSubtract:
      return subtract(left, right);
    case BinaryOperator::kMultiply:
      return multiply(runtime, left, right);
    case BinaryOperator::kDivide:
      return divide(left, right);
    case BinaryOperator::kFloorDivide:
      return floor_divide(left, right, false);
    case BinaryOperator::kModulo:
      return floor_divide(left, right, true);
    case BinaryOperator::kPower:
      return power(left, right);
    case BinaryOperator::kConcatenate:
      return concatenate(runtime, left, right);
    case BinaryOperator::kAnd:
      return left.truth() ? right : left;
    case BinaryOperator::kOr:
      return left.truth() ? left : right;
  }
  return {};
}

TemplateValue apply_operator(UnaryOperator op, const TemplateValue& operand) {
  if (op == UnaryOperator::kNot) return Value::of(!operand.truth());
  if (!operand.number()) {
    throw TemplateFault("wanted a number, found " + operand.type_name());
  }
  if (!operand.integer()) {
    return Value::of(op == UnaryOperator::kMinus ? -*operand.number()
                                                 : *operand.number());
  }
  if (op == UnaryOperator::kPlus) return Value::of(*operand.integer());
  return subtract(Value::of(std::int64_t{0}), operand);
}

bool compare(TemplateRuntime& runtime, ComparisonOperator op,
             const TemplateValue& left, const TemplateValue& right) {
  runtime.step(std::min(left.weight(), right.weight()) / 16 + 1);
  switch (op) {
    case ComparisonOperator::kEqual:
      return equal(left, right);
    case ComparisonOperator::kNotEqual:
      return !equal(left, right);
    case ComparisonOperator::kLess:
      return less(left, right);
    case ComparisonOperator::kLessOrEqual:
      return less(left, right) || equal(left, right);
    case ComparisonOperator::kGreater:
      return less(right, left);
    case ComparisonOperator::kGreaterOrEqual:
      return less(right, left) || equal(left, right);
    case ComparisonOperator::kIn:
      return contains(runtime, right, left);
    case ComparisonOperator::kNotIn:
      return !contains(runtime, right, left);
  }
  return false;
}

}  // namespace llmpress
