#include "formats/templates/template_parser.h"

#include <array>
#include <initializer_list>
#include <memory>
#include <string_view>
#include <utility>

#include "formats/templates/template_expression_parser.h"

namespace llmpress {
namespace {

class Parser : private TemplateExpressionParser {
 public:
  using TemplateExpressionParser::TemplateExpressionParser;

  TemplateBody run() {
    TemplateBody body = parse_body({});
    if (now().kind != Kind::kEnd) unexpected();
    return body;
  }

 private:
  using Names = std::initializer_list<std::string_view>;

  // Up to a tag with one of `ends`, whose name is the next token then; up to the
  // end of the template if there are none.
  TemplateBody parse_body(Names ends) {
    const Nesting nesting(*this);
    TemplateBody body;
    for (;;) {
      const std::size_t at = now().at;
      if (now().kind == Kind::kText) {
        append(body, {at, TextStatement{take().text}});
      } else if (now().kind == Kind::kOutputBegin) {
        take();
        append(body, {at, OutputStatement{parse_tuple()}});
        if (now().kind != Kind::kOutputEnd) unexpected();
        take();
      } else if (now().kind == Kind::kBlockBegin) {
        for (const std::string_view end : ends) {
          if (peek().kind == Kind::kName && peek().text == end) {
            take();
            return body;
          }
        }
        take();
        append(body, parse_statement());
      } else {
        if (ends.size() != 0) unexpected();
        return body;
      }
    }
  }

  static void append(TemplateBody& body, TemplateStatement statement) {
    body.push_back(std::make_unique<TemplateStatement>(std::move(statement)));
  }

  void end_tag() {
    if (now().kind != Kind::kBlockEnd) unexpected();
    take();
  }
  // The tag that closes a statement: its name is the next token.
  void close(std::string_view name) {
    if (!skip_name(name)) unexpected();
    end_tag();
  }

  TemplateStatement parse_statement() {
    const std::size_t at = now().at;
    const std::string name = want_name();
    if (name == "if") return {at, parse_if()};
    if (name == "for") return {at, parse_for()};
    if (name == "set") return parse_set(at);
    if (name == "macro") return {at, parse_macro()};
    if (name == "call") return {at, parse_call()};
    if (name == "filter") return {at, parse_filter_block()};
    if (name == "with") return {at, parse_with()};
    if (name == "generation") {  // marks what a model wrote
      end_tag();
      WithStatement statement{.body = parse_body({"endgeneration"})};
      close("endgeneration");
      return {at, std::move(statement)};
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) {
        source_.fail_at(at, ErrorCode::kInvalidInput, name + " outside a for");
      }
      end_tag();
      if (name == "break") return {at, BreakStatement{}};
      return {at, ContinueStatement{}};
    }
    constexpr std::array<std::string_view, 8> kOthers{
        "include", "import", "from",       "extends",
        "block",   "do",     "autoescape", "trans"};
    for (const std::string_view other : kOthers) {
      if (name == other) {
        source_.unsupported(at, "the statement '" + name + "'");
      }
    }
    source_.fail_at(at, ErrorCode::kInvalidInput,
                    "unexpected statement '" + name + "'");
  }

  IfStatement parse_if() {
    IfStatement statement;
    for (;;) {
      TemplateExpressionPtr test = parse_tuple();
      end_tag();
      statement.branches.emplace_back(std::move(test),
                                      parse_body({"elif", "else", "endif"}));
      if (!skip_name("elif")) break;
    }
    if (skip_name("else")) {
      end_tag();
      statement.otherwise = parse_body({"endif"});
    }
    close("endif");
    return statement;
  }

  std::vector<std::string> parse_targets() {
    const bool brackets = skip_operator("(");
    std::vector<std::string> targets{want_name()};
    while (skip_operator(",")) targets.push_back(want_name());
    if (brackets) want_operator(")");
    return targets;
  }

  ForStatement parse_for() {
    ForStatement statement{.targets = parse_targets()};
    if (!skip_name("in")) unexpected();
    statement.items = parse_tuple(false);
    if (skip_name("if")) statement.filter = parse_expression();
    if (at_name("recursive")) {
      source_.unsupported(now().at, "a recursive loop");
    }
    end_tag();
    ++loops_;
    statement.body = parse_body({"else", "endfor"});
    --loops_;
    if (skip_name("else")) {
      end_tag();
      statement.otherwise = parse_body({"endfor"});
    }
    close("endfor");
    return statement;
  }

  TemplateStatement parse_set(std::size_t at) {
    std::vector<std::string> targets = parse_targets();
    std::string member;
    if (targets.size() == 1 && skip_operator(".")) member = want_name();
    if (skip_operator("=")) {
      SetStatement statement{.targets = std::move(targets),
                             .member = std::move(member),
                             .value = parse_tuple()};
      end_tag();
      return {at, std::move(statement)};
    }
    if (targets.size() != 1) unexpected();
    SetBlockStatement statement{.target = std::move(targets[0]),
                                .member = std::move(member)};
    if (at_operator("|")) statement.filter = parse_filter_chain(nullptr);
    end_tag();
    statement.body = parse_body({"endset"});
    close("endset");
    return {at, std::move(statement)};
  }

  std::vector<TemplateParameter> parse_parameters() {
    std::vector<TemplateParameter> parameters;
    want_operator("(");
    while (!skip_operator(")")) {
      if (!parameters.empty()) want_operator(",");
      if (skip_operator(")")) break;
      TemplateParameter parameter{.name = want_name()};
      if (skip_operator("=")) parameter.otherwise = parse_expression();
      parameters.push_back(std::move(parameter));
    }
    return parameters;
  }

  // The body of a macro is no part of the loop around it.
  TemplateBody parse_macro_body(std::string_view end) {
    end_tag();
    const std::size_t loops = std::exchange(loops_, 0);
    TemplateBody body = parse_body({end});
    loops_ = loops;
    close(end);
    return body;
  }

  MacroStatement parse_macro() {
    MacroStatement statement{.name = want_name()};
    statement.parameters = parse_parameters();
    statement.body = parse_macro_body("endmacro");
    return statement;
  }

  CallStatement parse_call() {
    CallStatement statement{.caller = {.name = "caller"}};
    if (at_operator("(")) statement.caller.parameters = parse_parameters();
    const std::size_t at = now().at;
    statement.call = parse_expression();
    if (!std::holds_alternative<CallExpression>(statement.call->node)) {
      source_.fail_at(at, ErrorCode::kInvalidInput, "wanted a call");
    }
    statement.caller.body = parse_macro_body("endcall");
    return statement;
  }

  FilterStatement parse_filter_block() {
    FilterStatement statement{
        .filter = parse_filter_chain(
            TemplateExpressionParser::parse_filter(nullptr))};
    end_tag();
    statement.body = parse_body({"endfilter"});
    close("endfilter");
    return statement;
  }

  WithStatement parse_with() {
    WithStatement statement;
    while (now().kind != Kind::kBlockEnd) {
      if (!statement.names.empty()) want_operator(",");
      std::string name = want_name();
      want_operator("=");
      statement.names.emplace_back(std::move(name), parse_expression());
    }
    end_tag();
    statement.body = parse_body({"endwith"});
    close("endwith");
    return statement;
  }

  std::size_t loops_ = 0;
};

}  // namespace

TemplateBody parse_template(const TemplateSource& source) {
  return Parser(source).run();
}

}  // namespace llmpress
