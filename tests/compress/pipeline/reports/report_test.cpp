#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "compress/pipeline/reports/report_text.h"
#include "compress/pipeline/reports/run_report.h"
#include "compress/pipeline/reports/svg_chart.h"

namespace llmpress {
namespace {

RunReport example() {
  RunReport report{
      .version = "1", .title = "a <title>", .recipe_yaml = "x: 1\n"};
  report.base = EvaluationResult{
      .model = "base", .perplexity = 4.107, .perplexity_stderr = 0.03};
  report.base_size = {.weight_bytes = 1000, .weights = 250};
  VariantReport variant{.name = "int4", .output = "out/int4"};
  variant.size = {.weight_bytes = 140,
                  .weights = 250,
                  .linear_bytes = 130,
                  .linear_weights = 240};
  variant.evaluation = EvaluationResult{.model = "int4", .perplexity = 4.33};
  variant.divergence = Divergence{
      .kl_mean = 0.05, .top1_agreement = 0.88, .perplexity_ratio = 1.054};
  variant.layers.push_back({.name = "model.layers.0.mlp.up_proj",
                            .method = "gptq",
                            .format = "int4 g32 asym",
                            .relative_error = 0.002,
                            .notes = {"damping raised to 0.02"}});
  report.variants.push_back(variant);
  return report;
}

TEST(Report, JsonHasTheKeysOfTheCommandLine) {
  Comparison comparison{.base = *example().base};
  comparison.models.push_back(
      {*example().variants[0].evaluation, *example().variants[0].divergence});
  const auto json = nlohmann::json::parse(to_json(comparison));
  for (const char* key :
       {"model", "text_sha256", "tokens", "windows", "context", "protocol",
        "nll", "perplexity", "perplexity_stderr", "weight_bytes",
        "bits_per_weight", "seconds", "tokens_per_second"}) {
    EXPECT_TRUE(json["base"].contains(key)) << key;
    EXPECT_TRUE(json["models"][0].contains(key)) << key;
  }
  for (const char* key :
       {"kl_mean", "kl_p50", "kl_p99", "top1_agreement", "perplexity_ratio"}) {
    EXPECT_TRUE(json["models"][0].contains(key)) << key;
  }
  EXPECT_DOUBLE_EQ(json["models"][0]["perplexity_ratio"].get<double>(), 1.054);
}

TEST(Report, HtmlStandsAlone) {
  const std::string html = to_html(example());
  EXPECT_EQ(html.find("http"), std::string::npos);
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("<link"), std::string::npos);
  EXPECT_NE(html.find("a &lt;title&gt;"), std::string::npos);
  EXPECT_NE(html.find("<svg"), std::string::npos);
  EXPECT_NE(html.find("damping raised to 0.02"), std::string::npos);
}

TEST(Report, MarkdownShowsEveryModelWithItsError) {
  const std::string markdown = to_markdown(example());
  EXPECT_NE(markdown.find("4.1070 ± 0.0300"), std::string::npos);
  EXPECT_NE(markdown.find("| int4 | 4.333 "), std::string::npos);
  EXPECT_NE(markdown.find("5.40 %"), std::string::npos);
}

// Names, notes and recipes quote files from outside.
TEST(Report, NothingFromAFileIsMarkupOrSteersATerminal) {
  const std::string hostile =
      "x\x1b]0;t\x07|<img src=x>[a](http://b)`*c*\n# d\u202e\xff";
  RunReport report = example();
  report.title = hostile;
  report.notes = {hostile};
  report.recipe_yaml = "x: |\n  ```\n" + hostile + "\n";
  report.variants[0].name = report.variants[0].output = hostile;
  report.variants[0].notes = report.variants[0].layers[0].notes = {hostile};
  report.variants[0].layers[0].name = hostile;
  const std::string markdown = to_markdown(report), html = to_html(report);
  for (const std::string& text : {markdown, html}) {
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    EXPECT_EQ(text.find("\u202e"), std::string::npos);
    EXPECT_EQ(text.find('\xff'), std::string::npos);
  }
  EXPECT_EQ(html.find("<img"), std::string::npos);
  const std::string body = markdown.substr(0, markdown.find("## Recipe"));
  EXPECT_EQ(body.find("\n# d"), std::string::npos);
  // The path stands in a code span, where nothing is markup.
  EXPECT_NE(body.find("``"), std::string::npos);
  EXPECT_NE(markdown.find("| x\\\\u001b\\]0;t\\\\u0007\\|&lt;img src=x>"
                          "\\[a\\](http://b)\\`\\*c\\*"),
            std::string::npos)
      << markdown;
  EXPECT_NE(markdown.find("````yaml"), std::string::npos);
  EXPECT_TRUE(nlohmann::json::accept(to_json(report)));
}

TEST(SvgChart, DrawsEveryFinitePointAndEscapesLabels) {
  const std::string svg = to_svg(
      ScatterChart{.title = "t",
                   .points = {{.x = 1, .y = 2, .label = "a<b"},
                              {.x = 2, .y = 3, .label = "c"},
                              {.x = 3, .y = 1.0 / 0.0, .label = "infinite"}}});
  std::size_t circles = 0;
  for (std::size_t at = svg.find("<circle"); at != std::string::npos;
       at = svg.find("<circle", at + 1)) {
    ++circles;
  }
  EXPECT_EQ(circles, 2u);
  EXPECT_NE(svg.find("a&lt;b"), std::string::npos);
}

TEST(SvgChart, OneValueOrNoneIsNoDivisionByZero) {
  EXPECT_EQ(to_svg(ScatterChart{}), "");
  const std::string svg = to_svg(ScatterChart{.points = {{.x = 5, .y = 5}}});
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(to_svg(LineChart{}), "");
  EXPECT_EQ(to_svg(LineChart{.positions = {"a"},
                             .series = {{.label = "s", .values = {2}}}})
                .find("nan"),
            std::string::npos);
}

}  // namespace
}  // namespace llmpress
