// Expressions of a template, by recursive descent. From weak to strong:
//   a if b else c | or | and | not | comparisons, in | + - | ~ | * / // % | **
//   | unary - + | . [] () | filters and tests
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "formats/templates/template_lexer.h"
#include "formats/templates/template_tree.h"

namespace llmpress {

class TemplateExpressionParser {
 public:
  explicit TemplateExpressionParser(const TemplateSource& source)
      : source_(source), tokens_(lex_template(source)) {}

 protected:
  using Kind = TemplateTokenKind;

  const TemplateToken& now() const { return tokens_[next_]; }
  const TemplateToken& peek() const;
  const TemplateToken& take() { return tokens_[next_++]; }
  bool at_operator(std::string_view text) const;
  bool at_name(std::string_view text) const;
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  void want_operator(std::string_view text);
  std::string want_name();
  [[noreturn]] void unexpected() const;

  TemplateExpressionPtr parse_expression();
  // Without "if", which has a meaning of its own behind the items of a for.
  TemplateExpressionPtr parse_or();
  // One expression, or several with commas between them, which make a tuple.
  TemplateExpressionPtr parse_tuple(bool with_conditional = true);
  // The filters behind `object`; null stands for the text of a block.
  TemplateExpressionPtr parse_filter_chain(TemplateExpressionPtr object);
  TemplateExpressionPtr parse_filter(TemplateExpressionPtr object);
  TemplateExpressionPtr parse_unary(bool with_filters = true);

  class Nesting;  // bounds recursion
  const TemplateSource& source_;

 private:
  template <class Node>
  TemplateExpressionPtr make(std::size_t at, Node node);

  TemplateExpressionPtr parse_and();
  TemplateExpressionPtr parse_not();
  TemplateExpressionPtr parse_comparison();
  TemplateExpressionPtr parse_sum();
  TemplateExpressionPtr parse_concatenation();
  TemplateExpressionPtr parse_product();
  TemplateExpressionPtr parse_power();
  TemplateExpressionPtr parse_primary();
  TemplateExpressionPtr parse_name();
  TemplateExpressionPtr parse_number();
  TemplateExpressionPtr parse_string();
  TemplateExpressionPtr parse_round_brackets();
  TemplateExpressionPtr parse_list();
  TemplateExpressionPtr parse_dict();
  TemplateExpressionPtr parse_postfix(TemplateExpressionPtr object);
  TemplateExpressionPtr parse_subscript(TemplateExpressionPtr object);
  TemplateExpressionPtr parse_test(TemplateExpressionPtr object);
  TemplateCallArguments parse_arguments();

  std::vector<TemplateToken> tokens_;
  std::size_t next_ = 0, nesting_ = 0;
};

// While one lives, the parser is one level deeper.
class TemplateExpressionParser::Nesting {
 public:
  explicit Nesting(TemplateExpressionParser& parser);
  ~Nesting() { --parser_.nesting_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  TemplateExpressionParser& parser_;
};

}  // namespace llmpress
