#include "compress/pipeline/adapters/adapter_report.h"

#include <gtest/gtest.h>

#include "compress/pipeline/run/run.h"
#include "tests/compress/pipeline/adapters/adapter_files.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

// W = (3, 4), D = (1, 0), written (5, 4): twice the change, the error as large
// as it.
TEST(AdapterReport, SaysWhatIsLeftOfAChange) {
  const MatrixF base({3, 4}, 1, 2), merged({4, 4}, 1, 2);
  const MatrixF written({5, 4}, 1, 2);
  EXPECT_EQ(describe_survival(base.view(), merged.view(), written.view()),
            "adapter: change of 0.2 of the weight; kept 2.000, cosine 1.000, "
            "rounding 1.000");
}

TEST(AdapterReport, SaysNothingWithoutAChange) {
  const MatrixF base({3, 4}, 1, 2), written({5, 4}, 1, 2);
  EXPECT_EQ(describe_survival(base.view(), base.view(), written.view()),
            std::nullopt);
}

TEST(AdapterReport, StandsWithTheLinearsThatARunMergedAndQuantized) {
  const TemporaryDirectory directory;
  const std::string q1 = "model.layers.1.self_attn.q_proj";
  Rng rng(3);
  LoraDelta delta = random_lora(256, 256, 2, false, rng);
  for (float& b : delta.B.data()) b *= 0.02f;
  const auto adapter = AdapterFiles(R"("r": 2, "lora_alpha": 2)")
                           .linear(q1, delta)
                           .write(directory.path() / "adapter");
  std::string stages = "[{merge_lora: {adapter: ";
  stages += adapter.string();
  stages +=
      "}}, {quantize: {method: rtn, weights: {bits: 8, group_size: 32}}}]";
  ThreadPool pool(2);
  const RunReport report =
      run_recipe(small_recipe(stages, directory.path() / "out"), {}, pool);
  std::size_t noted = 0;
  for (const LayerReport& layer : report.variants.at(0).layers) {
    for (const std::string& note : layer.notes) {
      if (!note.starts_with("adapter: ")) continue;
      ++noted;
      EXPECT_EQ(layer.name, q1);
      // 8 bits leave such a change nearly as it is.
      EXPECT_NE(note.find("cosine 1.000"), std::string::npos) << note;
    }
  }
  EXPECT_EQ(noted, 1u);
}

}  // namespace
}  // namespace llmpress
