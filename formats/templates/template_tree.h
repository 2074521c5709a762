// A template as a tree.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "formats/templates/template_value.h"

namespace llmpress {

struct TemplateExpression;
using TemplateExpressionPtr = std::unique_ptr<TemplateExpression>;

struct TemplateCallArguments {
  std::vector<TemplateExpressionPtr> positional{};
  std::vector<std::pair<std::string, TemplateExpressionPtr>> named{};
};

struct ConstantExpression {
  TemplateValue value{};
};
struct NameExpression {
  std::string name{};
};
struct ListExpression {
  std::vector<TemplateExpressionPtr> items{};
  bool tuple = false;
};
struct DictExpression {
  std::vector<std::pair<TemplateExpressionPtr, TemplateExpressionPtr>>
      members{};
};
enum class UnaryOperator { kNot, kMinus, kPlus };
struct UnaryExpression {
  UnaryOperator op{};
  TemplateExpressionPtr operand{};
};
enum class BinaryOperator {
  kAnd,
  kOr,
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kConcatenate
};
struct BinaryExpression {
  BinaryOperator op{};
  TemplateExpressionPtr left{}, right{};
};
enum class ComparisonOperator {
  kEqual,
  kNotEqual,
  kLess,
  kLessOrEqual,
  kGreater,
  kGreaterOrEqual,
  kIn,
  kNotIn
};
struct ComparisonExpression {  // a < b <= c
  TemplateExpressionPtr first{};
  std::vector<std::pair<ComparisonOperator, TemplateExpressionPtr>> rest{};
};
struct ConditionalExpression {
  TemplateExpressionPtr test{}, then{}, otherwise{};  // the last may be null
};
struct AttributeExpression {  // object.name
  TemplateExpressionPtr object{};
  std::string name{};
};
struct ItemExpression {  // object[index]
  TemplateExpressionPtr object{}, index{};
};
struct SliceExpression {  // object[begin:end:step], each may be null
  TemplateExpressionPtr object{}, begin{}, end{}, step{};
};
struct CallExpression {
  TemplateExpressionPtr callee{};
  TemplateCallArguments arguments{};
};
struct FilterExpression {  // object | name(arguments)
  TemplateExpressionPtr object{};
  std::string name{};
  TemplateCallArguments arguments{};
};
struct TestExpression {  // object is name arguments
  TemplateExpressionPtr object{};
  std::string name{};
  TemplateCallArguments arguments{};
};

struct TemplateExpression {
  std::size_t at = 0;     // byte in the source
  std::size_t depth = 1;  // of the tree below
  std::variant<ConstantExpression, NameExpression, ListExpression,
               DictExpression, UnaryExpression, BinaryExpression,
               ComparisonExpression, ConditionalExpression, AttributeExpression,
               ItemExpression, SliceExpression, CallExpression,
               FilterExpression, TestExpression>
      node{};
};

struct TemplateStatement;
using TemplateBody = std::vector<std::unique_ptr<TemplateStatement>>;

struct TextStatement {
  std::string text{};
};
struct OutputStatement {
  TemplateExpressionPtr value{};
};
struct IfStatement {
  std::vector<std::pair<TemplateExpressionPtr, TemplateBody>> branches{};
  TemplateBody otherwise{};
};
struct ForStatement {
  std::vector<std::string> targets{};
  TemplateExpressionPtr items{}, filter{};  // the latter may be null
  TemplateBody body{}, otherwise{};
};
struct SetStatement {  // of names, or of a member of a namespace
  std::vector<std::string> targets{};
  std::string member{};
  TemplateExpressionPtr value{};
};
// A filter's object is null where the text of a block is meant.
struct SetBlockStatement {
  std::string target{}, member{};
  TemplateExpressionPtr filter{};  // may be null
  TemplateBody body{};
};
struct FilterStatement {
  TemplateExpressionPtr filter{};
  TemplateBody body{};
};
struct TemplateParameter {
  std::string name{};
  TemplateExpressionPtr otherwise{};  // may be null
};
struct MacroStatement {
  std::string name{};
  std::vector<TemplateParameter> parameters{};
  TemplateBody body{};
};
struct CallStatement {  // a call whose callee may call the body as caller()
  MacroStatement caller{};
  TemplateExpressionPtr call{};
};
struct WithStatement {  // a scope of its own; also {% generation %}
  std::vector<std::pair<std::string, TemplateExpressionPtr>> names{};
  TemplateBody body{};
};
struct BreakStatement {};
struct ContinueStatement {};

struct TemplateStatement {
  std::size_t at = 0;
  std::variant<TextStatement, OutputStatement, IfStatement, ForStatement,
               SetStatement, SetBlockStatement, FilterStatement, MacroStatement,
               CallStatement, WithStatement, BreakStatement, ContinueStatement>
      node{};
};

}  // namespace llmpress
