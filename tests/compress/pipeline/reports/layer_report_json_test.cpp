#include "compress/pipeline/reports/layer_report_json.h"

#include <gtest/gtest.h>

#include <string>

#include "compress/core/error.h"

namespace llmpress {
namespace {

TEST(LayerReportJson, RefusesACountThatIsNoWholeNumber) {
  const std::string whole = layers_to_json({{.name = "a", .out = 7}});
  EXPECT_EQ(layers_from_json(whole, "r").front().out, 7u);
  for (const char* number : {"2.2e74", "-1", "7.5", "\"7\""}) {
    std::string broken = whole;
    const std::string out = "\"out\": 7";
    ASSERT_NE(broken.find(out), std::string::npos);
    broken.replace(broken.find(out), out.size(),
                   "\"out\": " + std::string(number));
    EXPECT_THROW((void)layers_from_json(broken, "r"), Error) << number;
  }
}

}  // namespace
}  // namespace llmpress
