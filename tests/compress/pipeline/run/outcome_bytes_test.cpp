#include "compress/pipeline/run/outcome_bytes.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "tests/compress/core/packed_weight_examples.h"

namespace llmpress {
namespace {

LinearOutcome example() {
  return {.weights = {.weight = grouped_example(), .bias = {1, 2}},
          .report = {.name = "model.layers.0.mlp.up_proj",
                     .method = "gptq",
                     .out = 2,
                     .in = 5,
                     .output_error = 0.1,
                     .relative_error = 1.0 / 3,
                     .notes = {"damping raised", "\"quoted\""}}};
}

TEST(OutcomeBytes, GiveBackWeightsAndReport) {
  const std::string bytes = to_bytes(example());
  const LinearOutcome back = outcome_from_bytes(bytes);
  EXPECT_EQ(to_bytes(back), bytes);
  EXPECT_EQ(values_of(back.weights.weight), values_of(grouped_example()));
  EXPECT_EQ(back.report.name, "model.layers.0.mlp.up_proj");
  EXPECT_EQ(back.report.relative_error, 1.0 / 3);  // to the last bit
  EXPECT_EQ(back.report.notes, example().report.notes);
}

TEST(OutcomeBytes, RefuseWhatIsCutShort) {
  const std::string bytes = to_bytes(example());
  for (const std::size_t size : {0uL, 5uL, 8uL, 100uL, bytes.size() - 1}) {
    EXPECT_THROW((void)outcome_from_bytes(bytes.substr(0, size)), Error)
        << size;
  }
}

}  // namespace
}  // namespace llmpress
