#include "compress/pipeline/reports/sparsity_curve.h"

#include <gtest/gtest.h>

#include "recipes/recipe_parser.h"

namespace llmpress {
namespace {

std::string described(const std::string& stages) {
  const Recipe recipe =
      parse_recipe("model: m\ncalibration: {text: t}\nstages: " + stages +
                       "\noutput: {path: o}\n",
                   "test.yaml");
  return describe_pruning(StagePlan(recipe.stages, {}));
}

VariantReport variant(const std::string& name, const std::string& pruning,
                      double nonzeros, double perplexity) {
  VariantReport v{
      .name = name, .pruning = pruning, .linear_nonzeros = nonzeros};
  v.evaluation.emplace().perplexity = perplexity;
  return v;
}

RunReport pruned_run() {
  RunReport report;
  report.base_size.linear_weights = 1000;
  report.base.emplace().perplexity = 4;
  report.variants = {
      variant("w70", "wanda", 300, 9), variant("s50", "sparsegpt", 500, 5),
      variant("w50", "wanda", 500, 6), variant("int8", "", 1000, 4.01)};
  return report;
}

TEST(SparsityCurve, NamesWhatWasDone) {
  EXPECT_EQ(described("[{prune: {method: sparsegpt, pattern: '2:4'}}, "
                      "{quantize: {method: gptq, scheme: W4A16}}]"),
            "sparsegpt 2:4 + gptq");
  EXPECT_EQ(described("[{prune: {method: wanda, allocation: owl}}]"),
            "wanda owl");
  EXPECT_EQ(described("[{prune: {method: ffn, heal: false}}, "
                      "{prune: {method: depth}}]"),
            "ffn, not healed + depth");
  EXPECT_EQ(described("[{quantize: {method: rtn, scheme: W4A16}}]"), "");
}

TEST(SparsityCurve, CountsWhatIsZeroOrGone) {
  const RunReport report = pruned_run();
  EXPECT_DOUBLE_EQ(sparsity_of(report.variants[0], report.base_size), 0.7);
}

TEST(SparsityCurve, OrdersPointsByMethodAndSparsity) {
  const auto points = sparsity_points(pruned_run());
  ASSERT_EQ(points.size(), 3u);
  EXPECT_EQ(points[0].variant, "w50");
  EXPECT_EQ(points[1].variant, "w70");
  EXPECT_EQ(points[2].variant, "s50");
}

TEST(SparsityCurve, StandsInTheReports) {
  const RunReport report = pruned_run();
  const std::string markdown = to_markdown(report);
  EXPECT_NE(markdown.find("## Perplexity against sparsity"), std::string::npos);
  EXPECT_NE(markdown.find("| wanda | w70 | 70.0 % | 9.0000 | 125.00 % |"),
            std::string::npos)
      << markdown;
  const std::string html = to_html(report);
  const std::size_t chart =
      html.find("aria-label=\"Perplexity against sparsity");
  ASSERT_NE(chart, std::string::npos);
  // A line for each of the two methods.
  const std::string svg =
      html.substr(chart, html.find("</svg>", chart) - chart);
  const std::size_t first = svg.find("<polyline");
  ASSERT_NE(first, std::string::npos);
  const std::size_t second = svg.find("<polyline", first + 1);
  ASSERT_NE(second, std::string::npos);
  EXPECT_EQ(svg.find("<polyline", second + 1), std::string::npos);
  EXPECT_NE(to_json(report).find("\"sparsity\": 0.7"), std::string::npos);
}

TEST(SparsityCurve, IsLeftOutOfARunThatPrunesOnce) {
  RunReport report = pruned_run();
  report.variants.resize(1);
  EXPECT_EQ(to_html(report).find("Perplexity against sparsity"),
            std::string::npos);
  EXPECT_TRUE(sparsity_rows(report).empty());
}

}  // namespace
}  // namespace llmpress
