#include "formats/templates/template_expression_parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

// How deep the tree below `node` is.
struct Depth {
  static std::size_t of(const TemplateExpressionPtr& e) {
    return e ? e->depth : 0;
  }
  static std::size_t of(const TemplateCallArguments& arguments) {
    std::size_t depth = 0;
    for (const auto& e : arguments.positional) depth = std::max(depth, of(e));
    for (const auto& [name, e] : arguments.named)
      depth = std::max(depth, of(e));
    return depth;
  }

  std::size_t operator()(const ConstantExpression&) const { return 0; }
  std::size_t operator()(const NameExpression&) const { return 0; }
  std::size_t operator()(const ListExpression& n) const {
    std::size_t depth = 0;
    for (const auto& e : n.items) depth = std::max(depth, of(e));
    return depth;
  }
  std::size_t operator()(const DictExpression& n) const {
    std::size_t depth = 0;
    for (const auto& [k, v] : n.members) {
      depth = std::max({depth, of(k), of(v)});
    }
    return depth;
  }
  std::size_t operator()(const UnaryExpression& n) const {
    return of(n.operand);
  }
  std::size_t operator()(const BinaryExpression& n) const {
    return std::max(of(n.left), of(n.right));
  }
  std::size_t operator()(const ComparisonExpression& n) const {
    std::size_t depth = of(n.first);
    for (const auto& [op, e] : n.rest) depth = std::max(depth, of(e));
    return depth;
  }
  std::size_t operator()(const ConditionalExpression& n) const {
    return std::max({of(n.test), of(n.then), of(n.otherwise)});
  }
  std::size_t operator()(const AttributeExpression& n) const {
    return of(n.object);
  }
  std::size_t operator()(const ItemExpression& n) const {
    return std::max(of(n.object), of(n.index));
  }
  std::size_t operator()(const SliceExpression& n) const {
    return std::max({of(n.object), of(n.begin), of(n.end), of(n.step)});
  }
  std::size_t operator()(const CallExpression& n) const {
    return std::max(of(n.callee), of(n.arguments));
  }
  std::size_t operator()(const FilterExpression& n) const {
    return std::max(of(n.object), of(n.arguments));
  }
  std::size_t operator()(const TestExpression& n) const {
    return std::max(of(n.object), of(n.arguments));
  }
};

}  // namespace

TemplateExpressionParser::Nesting::Nesting(TemplateExpressionParser& parser)
    : parser_(parser) {
  constexpr std::size_t kDeepest = 100;
  if (parser.nesting_ == kDeepest) {
    parser.source_.fail_at(parser.now().at, ErrorCode::kInvalidInput,
                           "is nested too deep");
  }
  ++parser.nesting_;
}

template <class Node>
TemplateExpressionPtr TemplateExpressionParser::make(std::size_t at,
                                                     Node node) {
  constexpr std::size_t kDeepest = 300;
  const std::size_t depth = 1 + Depth()(node);
  if (depth > kDeepest) {
    source_.fail_at(at, ErrorCode::kInvalidInput, "is nested too deep");
  }
  return std::make_unique<TemplateExpression>(
      TemplateExpression{at, depth, std::move(node)});
}

const TemplateToken& TemplateExpressionParser::peek() const {
  return tokens_[std::min(next_ + 1, tokens_.size() - 1)];
}

bool TemplateExpressionParser::at_operator(std::string_view text) const {
  return now().kind == Kind::kOperator && now().text == text;
}

bool TemplateExpressionParser::at_name(std::string_view text) const {
  return now().kind == Kind::kName && now().text == text;
}

bool TemplateExpressionParser::skip_operator(std::string_view text) {
  if (!at_operator(text)) return false;
  ++next_;
  return true;
}

bool TemplateExpressionParser::skip_name(std::string_view text) {
  if (!at_name(text)) return false;
  ++next_;
  return true;
}

void TemplateExpressionParser::want_operator(std::string_view text) {
  if (!skip_operator(text)) unexpected();
}

std::string TemplateExpressionParser::want_name() {
  if (now().kind != Kind::kName) unexpected();
  return take().text;
}

void TemplateExpressionParser::unexpected() const {
  const auto what = [&]() -> std::string {
    switch (now().kind) {
      case Kind::kText:
        return "text";
      case Kind::kOutputBegin:
        return "'{{'";
      case Kind::kOutputEnd:
        return "'}}'";
      case Kind::kBlockBegin:
        return "'{%'";
      case Kind::kBlockEnd:
        return "'%}'";
      case Kind::kString:
        return "a string";
      case Kind::kName:
      case Kind::kInteger:
      case Kind::kFloat:
      case Kind::kOperator:
        return "'" + now().text + "'";
      case Kind::kEnd:
        return "the end of the template";
    }
    return "";
  }();
  source_.fail_at(now().at, ErrorCode::kInvalidInput, "unexpected " + what);
}

TemplateExpressionPtr TemplateExpressionParser::parse_expression() {
  const Nesting nesting(*this);
  TemplateExpressionPtr value = parse_or();
  while (at_name("if")) {
    const std::size_t at = take().at;
    TemplateExpressionPtr test = parse_or();
    TemplateExpressionPtr otherwise =
        skip_name("else") ? parse_expression() : nullptr;
    value = make(at, ConditionalExpression{std::move(test), std::move(value),
                                           std::move(otherwise)});
  }
  return value;
}

TemplateExpressionPtr TemplateExpressionParser::parse_tuple(
    bool with_conditional) {
  const auto one = [&] {
    return with_conditional ? parse_expression() : parse_or();
  };
  const std::size_t at = now().at;
  TemplateExpressionPtr first = one();
  if (!at_operator(",")) return first;
  ListExpression tuple{.tuple = true};
  tuple.items.push_back(std::move(first));
  while (skip_operator(",")) {
    if (now().kind == Kind::kBlockEnd || now().kind == Kind::kOutputEnd) break;
    tuple.items.push_back(one());
  }
  return make(at, std::move(tuple));
}

TemplateExpressionPtr TemplateExpressionParser::parse_or() {
  TemplateExpressionPtr left = parse_and();
  while (at_name("or")) {
    const std::size_t at = take().at;
    TemplateExpressionPtr right = parse_and();
    left = make(at, BinaryExpression{BinaryOperator::kOr, std::move(left),
                                     std::move(right)});
  }
  return left;
}

TemplateExpressionPtr TemplateExpressionParser::parse_and() {
  TemplateExpressionPtr left = parse_not();
  while (at_name("and")) {
    const std::size_t at = take().at;
    TemplateExpressionPtr right = parse_not();
    left = make(at, BinaryExpression{BinaryOperator::kAnd, std::move(left),
                                     std::move(right)});
  }
  return left;
}

TemplateExpressionPtr TemplateExpressionParser::parse_not() {
  if (!at_name("not")) return parse_comparison();
  const Nesting nesting(*this);
  const std::size_t at = take().at;
  return make(at, UnaryExpression{UnaryOperator::kNot, parse_not()});
}

TemplateExpressionPtr TemplateExpressionParser::parse_comparison() {
  constexpr std::array<std::pair<std::string_view, ComparisonOperator>, 6>
      kSigns{{{"==", ComparisonOperator::kEqual},
              {"!=", ComparisonOperator::kNotEqual},
              {"<", ComparisonOperator::kLess},
              {"<=", ComparisonOperator::kLessOrEqual},
              {">", ComparisonOperator::kGreater},
              {">=", ComparisonOperator::kGreaterOrEqual}}};
  const std::size_t at = now().at;
  ComparisonExpression comparison{.first = parse_sum()};
  for (;;) {
    std::optional<ComparisonOperator> found;
    for (const auto& [sign, op] : kSigns) {
      if (!found && skip_operator(sign)) found = op;
    }
    if (!found && skip_name("in")) found = ComparisonOperator::kIn;
    if (!found && at_name("not") && peek().kind == Kind::kName &&
        peek().text == "in") {
      next_ += 2;
      found = ComparisonOperator::kNotIn;
    }
    if (!found) break;
    comparison.rest.emplace_back(*found, parse_sum());
  }
  if (comparison.rest.empty()) return std::move(comparison.first);
  return make(at, std::move(comparison));
}

TemplateExpressionPtr TemplateExpressionParser::parse_sum() {
  TemplateExpressionPtr left = parse_concatenation();
  while (at_operator("+") || at_operator("-")) {
    const TemplateToken& sign = take();
    const auto op =
        sign.text == "+" ? BinaryOperator::kAdd : BinaryOperator::kSubtract;
    TemplateExpressionPtr right = parse_concatenation();
    left =
        make(sign.at, BinaryExpression{op, std::move(left), std::move(right)});
  }
  return left;
}

TemplateExpressionPtr TemplateExpressionParser::parse_concatenation() {
  TemplateExpressionPtr left = parse_product();
  while (at_operator("~")) {
    const std::size_t at = take().at;
    TemplateExpressionPtr right = parse_product();
    left = make(at, BinaryExpression{BinaryOperator::kConcatenate,
                                     std::move(left), std::move(right)});
  }
  return left;
}

TemplateExpressionPtr TemplateExpressionParser::parse_product() {
  constexpr std::array<std::pair<std::string_view, BinaryOperator>, 4> kSigns{
      {{"*", BinaryOperator::kMultiply},
       {"/", BinaryOperator::kDivide},
       {"//", BinaryOperator::kFloorDivide},
       {"%", BinaryOperator::kModulo}}};
  TemplateExpressionPtr left = parse_power();
  for (;;) {
    const auto found = std::ranges::find_if(
        kSigns, [&](const auto& row) { return at_operator(row.first); });
    if (found == kSigns.end()) return left;
    const std::size_t at = take().at;
    TemplateExpressionPtr right = parse_power();
    left = make(
        at, BinaryExpression{found->second, std::move(left), std::move(right)});
  }
}

TemplateExpressionPtr TemplateExpressionParser::parse_power() {
  TemplateExpressionPtr left = parse_unary();
  while (at_operator("**")) {  // from left to right, as Jinja has it
    const std::size_t at = take().at;
    TemplateExpressionPtr right = parse_unary();
    left = make(at, BinaryExpression{BinaryOperator::kPower, std::move(left),
                                     std::move(right)});
  }
  return left;
}

TemplateExpressionPtr TemplateExpressionParser::parse_unary(bool with_filters) {
  const Nesting nesting(*this);
  TemplateExpressionPtr value;
  if (at_operator("-") || at_operator("+")) {
    const TemplateToken& sign = take();
    const auto op =
        sign.text == "-" ? UnaryOperator::kMinus : UnaryOperator::kPlus;
    value = make(sign.at, UnaryExpression{op, parse_unary(false)});
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  return with_filters ? parse_filter_chain(std::move(value)) : std::move(value);
}

TemplateExpressionPtr TemplateExpressionParser::parse_primary() {
  switch (now().kind) {
    case Kind::kName:
      return parse_name();
    case Kind::kInteger:
    case Kind::kFloat:
      return parse_number();
    case Kind::kString:
      return parse_string();
    case Kind::kOperator:
      if (at_operator("(")) return parse_round_brackets();
      if (at_operator("[")) return parse_list();
      if (at_operator("{")) return parse_dict();
      unexpected();
    case Kind::kText:
    case Kind::kOutputBegin:
    case Kind::kOutputEnd:
    case Kind::kBlockBegin:
    case Kind::kBlockEnd:
    case Kind::kEnd:
      break;
  }
  unexpected();
}

TemplateExpressionPtr TemplateExpressionParser::parse_name() {
  const auto& [kind, name, at] = take();
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    const bool value = name[0] == 't' || name[0] == 'T';
    return make(at, ConstantExpression{TemplateValue::of(value)});
  }
  if (name == "none" || name == "None") {
    return make(at, ConstantExpression{TemplateValue::none()});
  }
  return make(at, NameExpression{name});
}

TemplateExpressionPtr TemplateExpressionParser::parse_number() {
  const auto& [kind, text, at] = take();
  const char* const end = text.data() + text.size();
  if (kind == Kind::kInteger) {
    std::int64_t value = 0;
    if (std::from_chars(text.data(), end, value).ec != std::errc{}) {
      source_.fail_at(at, ErrorCode::kInvalidInput, "a number is too large");
    }
    return make(at, ConstantExpression{TemplateValue::of(value)});
  }
  double value = 0;
  if (std::from_chars(text.data(), end, value).ec != std::errc{}) {
    source_.fail_at(at, ErrorCode::kInvalidInput, "a number is out of range");
  }
  return make(at, ConstantExpression{TemplateValue::of(value)});
}

TemplateExpressionPtr TemplateExpressionParser::parse_string() {
  const std::size_t at = now().at;
  std::string text;
  while (now().kind == Kind::kString) text += take().text;  // "a" "b"
  return make(at, ConstantExpression{TemplateValue::of(std::move(text))});
}

TemplateExpressionPtr TemplateExpressionParser::parse_round_brackets() {
  const std::size_t at = take().at;
  if (skip_operator(")")) return make(at, ListExpression{.tuple = true});
  TemplateExpressionPtr first = parse_expression();
  if (skip_operator(")")) return first;
  ListExpression tuple{.tuple = true};
  tuple.items.push_back(std::move(first));
  while (!skip_operator(")")) {
    want_operator(",");
    if (skip_operator(")")) break;
    tuple.items.push_back(parse_expression());
  }
  return make(at, std::move(tuple));
}

TemplateExpressionPtr TemplateExpressionParser::parse_list() {
  const std::size_t at = take().at;
  ListExpression list;
  while (!skip_operator("]")) {
    if (!list.items.empty()) want_operator(",");
    if (skip_operator("]")) break;
    list.items.push_back(parse_expression());
  }
  return make(at, std::move(list));
}

TemplateExpressionPtr TemplateExpressionParser::parse_dict() {
  const std::size_t at = take().at;
  DictExpression dict;
  while (!skip_operator("}")) {
    if (!dict.members.empty()) want_operator(",");
    if (skip_operator("}")) break;
    TemplateExpressionPtr key = parse_expression();
    want_operator(":");
    dict.members.emplace_back(std::move(key), parse_expression());
  }
  return make(at, std::move(dict));
}

TemplateExpressionPtr TemplateExpressionParser::parse_postfix(
    TemplateExpressionPtr object) {
  for (;;) {
    const std::size_t at = now().at;
    if (skip_operator(".")) {
      if (now().kind == Kind::kInteger) {
        object = make(at, ItemExpression{std::move(object), parse_number()});
      } else {
        object = make(at, AttributeExpression{std::move(object), want_name()});
      }
    } else if (at_operator("[")) {
      object = parse_subscript(std::move(object));
    } else if (at_operator("(")) {
      TemplateCallArguments arguments = parse_arguments();
      object =
          make(at, CallExpression{std::move(object), std::move(arguments)});
    } else {
      return object;
    }
  }
}

TemplateExpressionPtr TemplateExpressionParser::parse_subscript(
    TemplateExpressionPtr object) {
  const std::size_t at = take().at;
  const auto optional_part = [&]() -> TemplateExpressionPtr {
    if (at_operator(":") || at_operator("]")) return nullptr;
    return parse_expression();
  };
  TemplateExpressionPtr first = optional_part();
  if (first && skip_operator("]")) {
    return make(at, ItemExpression{std::move(object), std::move(first)});
  }
  if (at_operator(",")) source_.unsupported(now().at, "several subscripts");
  SliceExpression slice{.object = std::move(object), .begin = std::move(first)};
  want_operator(":");
  slice.end = optional_part();
  if (skip_operator(":")) slice.step = optional_part();
  want_operator("]");
  return make(at, std::move(slice));
}

TemplateCallArguments TemplateExpressionParser::parse_arguments() {
  want_operator("(");
  TemplateCallArguments arguments;
  bool first = true;
  while (!skip_operator(")")) {
    if (!first) want_operator(",");
    first = false;
    if (skip_operator(")")) break;
    if (at_operator("*") || at_operator("**")) {
      source_.unsupported(now().at, "starred arguments");
    }
    const bool named = now().kind == Kind::kName &&
                       peek().kind == Kind::kOperator && peek().text == "=";
    if (named) {
      std::string name = take().text;
      take();
      arguments.named.emplace_back(std::move(name), parse_expression());
    } else {
      if (!arguments.named.empty()) unexpected();
      arguments.positional.push_back(parse_expression());
    }
  }
  return arguments;
}

TemplateExpressionPtr TemplateExpressionParser::parse_filter_chain(
    TemplateExpressionPtr object) {
  for (;;) {
    if (skip_operator("|")) {
      object = parse_filter(std::move(object));
    } else if (skip_name("is")) {
      object = parse_test(std::move(object));
    } else if (at_operator("(")) {
      const std::size_t at = now().at;
      TemplateCallArguments arguments = parse_arguments();
      object =
          make(at, CallExpression{std::move(object), std::move(arguments)});
    } else {
      return object;
    }
  }
}

TemplateExpressionPtr TemplateExpressionParser::parse_filter(
    TemplateExpressionPtr object) {
  const std::size_t at = now().at;
  FilterExpression filter{.object = std::move(object), .name = want_name()};
  if (at_operator("(")) filter.arguments = parse_arguments();
  return make(at, std::move(filter));
}

TemplateExpressionPtr TemplateExpressionParser::parse_test(
    TemplateExpressionPtr object) {
  const bool negated = skip_name("not");
  const std::size_t at = now().at;
  TestExpression test{.object = std::move(object), .name = want_name()};
  const bool operand =
      now().kind == Kind::kString || now().kind == Kind::kInteger ||
      now().kind == Kind::kFloat || at_operator("[") || at_operator("{") ||
      (now().kind == Kind::kName && !at_name("else") && !at_name("or") &&
       !at_name("and"));
  if (at_operator("(")) {
    test.arguments = parse_arguments();
  } else if (operand) {
    if (at_name("is")) unexpected();
    const Nesting nesting(*this);
    test.arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  TemplateExpressionPtr value = make(at, std::move(test));
  if (!negated) return value;
  return make(at, UnaryExpression{UnaryOperator::kNot, std::move(value)});
}

}  // namespace llmpress
