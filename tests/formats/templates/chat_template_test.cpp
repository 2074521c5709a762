// golden/templates.json holds templates, values and what Jinja makes of them;
// bench/templates/compare_templates.py --golden writes it.
#include "formats/templates/chat_template.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "tests/places.h"

namespace llmpress {
namespace {

using Json = nlohmann::ordered_json;

// 2024-07-26 12:30:00, a Friday.
std::tm test_time() {
  std::tm now{};
  now.tm_year = 124;
  now.tm_mon = 6;
  now.tm_mday = 26;
  now.tm_hour = 12;
  now.tm_min = 30;
  now.tm_wday = 5;
  now.tm_yday = 207;
  return now;
}

std::string render(const std::string& text, const std::string& context = "{}",
                   std::size_t most_steps = 1'000'000) {
  return render_template(text, "t", context, test_time(),
                         {.most_steps = most_steps});
}

struct Refusal {
  ErrorCode code{};
  std::string message{};
};
Refusal refusal(const std::string& text, const std::string& context = "{}") {
  try {
    return {ErrorCode::kCancelled, "rendered: " + render(text, context)};
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
}

TEST(ChatTemplate, RendersAsJinjaDoes) {
  const Json golden = Json::parse(read_file(
      source_dir() + "/tests/formats/templates/golden/templates.json"));
  ASSERT_GE(golden["cases"].size(), 400u);
  std::size_t failing = 0;
  for (const Json& item : golden["cases"]) {
    const auto text = item["template"].get<std::string>();
    const std::string context =
        golden["contexts"][item["context"].get<std::size_t>()].dump();
    if (item.contains("fails")) {
      EXPECT_THROW(render(text, context), Error) << item["name"];
      ++failing;
    } else {
      EXPECT_EQ(render(text, context), item["text"].get<std::string>())
          << item["name"];
    }
  }
  EXPECT_GE(failing, 35u);
}

TEST(ChatTemplate, ErrorsNameLineAndColumn) {
  const Refusal raised = refusal("a\n  {{ raise_exception('no ' ~ 1) }}");
  EXPECT_EQ(raised.code, ErrorCode::kInvalidInput);
  EXPECT_EQ(raised.message, "t: line 2, column 21: no 1");
  EXPECT_EQ(refusal("\u00E9{{ x.y }}").message,
            "t: line 1, column 6: no 'y' of 'x', undefined");
  EXPECT_EQ(refusal("{% if x %}\n{% endfor %}").message,
            "t: line 2, column 4: unexpected statement 'endfor'");
  EXPECT_EQ(refusal("{{ (1 }}").message, "t: line 1, column 7: unexpected '}'");
}

TEST(ChatTemplate, WhatIsOutsideTheSubsetIsUnsupported) {
  for (const char* text :
       {"{% include 'x' %}", "{% extends 'x' %}", "{% block x %}{% endblock %}",
        "{% import 'x' as y %}", "{% for x in [] recursive %}{% endfor %}",
        "{{ f(*a) }}", "{{ f(**a) }}", "{{ x[1, 2] }}", "{{ 0x10 }}",
        "{{ 1 | nix }}", "{{ 1 is nix }}"}) {
    const Refusal found = refusal(text);
    EXPECT_EQ(found.code, ErrorCode::kUnsupported) << found.message;
    EXPECT_TRUE(found.message.starts_with("t: line 1, column ")) << text;
  }
}

TEST(ChatTemplate, NeverRunsForeverOrOutOfMemory) {
  for (const char* text :
       {"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
        "{% endfor %}",
        "{% set ns = namespace(x='aa') %}{% for i in range(99) %}"
        "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}"
        "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(999) %}"
        "{% set ns.x = [ns.x] %}{% endfor %}",
        "{{ 'a' * 999999999999 }}",
        "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(x=m()) %}{% endmacro %}{{ m() }}",
        "{{ 9223372036854775807 + 1 }}", "{{ 9999999999 * 9999999999 }}",
        "{{ 2 ** 64 }}", "{{ -9223372036854775807 - 2 }}",
        "{{ 'x' | indent(999999999) }}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ [ns] }}",
        "{{ [range] }}"}) {
    const Refusal found = refusal(text);
    EXPECT_EQ(found.code, ErrorCode::kInvalidInput)
        << text << ": " << found.message.substr(0, 200);
  }
  const std::string deep(100'000, '(');
  EXPECT_EQ(refusal("{{ " + deep).code, ErrorCode::kInvalidInput);
  std::string chain = "{{ x";
  for (int i = 0; i < 100'000; ++i) chain += ".y";
  EXPECT_EQ(refusal(chain + " }}").code, ErrorCode::kInvalidInput);
}

TEST(ChatTemplate, StepsAreCounted) {
  const std::string loop = "{% for i in range(1000) %}{{ i }}{% endfor %}";
  EXPECT_NO_THROW(render(loop, "{}", 100'000));
  EXPECT_THROW(render(loop, "{}", 5'000), Error);
}

TEST(ChatTemplate, MacrosThatOutliveTheirScopeStillSeeIt) {
  EXPECT_EQ(render("{% set ns = namespace() %}{% for i in [1, 2] %}"
                   "{% macro m() %}{{ i }}{% endmacro %}{% set ns.m = m %}"
                   "{% endfor %}{{ ns.m() }}"),
            "2");
}

FileContents files(std::map<std::string, std::string> contents) {
  return [contents](const std::string& name) {
    const auto found = contents.find(name);
    return found == contents.end() ? std::string() : found->second;
  };
}

std::string chat_of(std::map<std::string, std::string> contents) {
  const auto chat = find_chat_template(files(std::move(contents)), "m");
  if (!chat) return "none";
  return render_chat(*chat, {{"user", "hi"}}, test_time());
}

TEST(ChatTemplate, StandsInOneOfThreeFiles) {
  EXPECT_EQ(chat_of({}), "none");
  EXPECT_EQ(chat_of({{"tokenizer_config.json", R"({"chat_template": null})"}}),
            "none");
  const std::string config =
      R"({"bos_token": {"content": "<b>"}, "chat_template":
          "{{ bos_token }}{{ messages[0].content }}{{ add_generation_prompt }}"})";
  EXPECT_EQ(chat_of({{"tokenizer_config.json", config}}), "<b>hiTrue");
  EXPECT_EQ(chat_of({{"tokenizer_config.json", config},
                     {"chat_template.json", R"({"chat_template": "json"})"}}),
            "json");
  EXPECT_EQ(
      chat_of({{"tokenizer_config.json", config},
               {"special_tokens_map.json", R"({"eos_token": "<e>"})"},
               {"chat_template.jinja", "{{ bos_token }}{{ eos_token }}"}}),
      "<b><e>");
  EXPECT_EQ(chat_of({{"tokenizer_config.json",
                      R"({"chat_template": [{"name": "rag", "template": "r"},
                   {"name": "default", "template": "d{{ tools is none }}"}]})"}}),
            "dTrue");
}

TEST(ChatTemplate, BrokenFilesAreNamed) {
  for (const char* broken :
       {"{", "[]", R"({"chat_template": 1})", R"({"chat_template": []})",
        R"({"chat_template": [{"name": "rag", "template": "r"}]})"}) {
    try {
      chat_of({{"tokenizer_config.json", broken}});
      ADD_FAILURE() << broken;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptFile);
      EXPECT_TRUE(
          std::string(error.what()).starts_with("m/tokenizer_config.json: "))
          << error.what();
    }
  }
}

}  // namespace
}  // namespace llmpress
