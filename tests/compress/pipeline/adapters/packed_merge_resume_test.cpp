// A merge into a quantized base that is cut off goes on from its blocks.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "compress/core/error.h"
#include "compress/model/model_source.h"
#include "compress/pipeline/adapters/adapter_requantize.h"
#include "compress/pipeline/run/run.h"
#include "tests/compress/pipeline/adapters/adapter_files.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

TEST(PackedMergeResume, EndsInTheBytesOfAMergeThatNobodyCutOff) {
  const TemporaryDirectory tmp;
  const auto at = [&](const char* name) { return tmp.path() / name; };
  ThreadPool pool(2);
  run_recipe(
      small_recipe("[{quantize: {method: rtn, weights: {bits: 4, group_size: "
                   "32}}}]",
                   at("base")),
      {}, pool);
  Rng rng(3);
  const Architecture arch = *open_model(at("base")).arch;
  AdapterFiles adapter(R"("r": 4, "lora_alpha": 8)");
  for (const std::size_t layer : {std::size_t{0}, std::size_t{3}}) {
    const LinearSpec& spec = arch.block(layer).linears[0];
    adapter.linear(arch.linear_name(layer, 0),
                   sized_lora(spec.out, spec.in, 4, 2, false, rng));
  }
  adapter.write(at("adapter"));
  std::string log;
  const auto merge = [&](double scale, std::size_t cut_off_at = 1000) {
    log.clear();
    RequantizeOptions options{.output = at("out"),
                              .adapters = {{at("adapter"), scale}},
                              .calibration = CalibrationConfig{}};
    options.calibration->text = shipped("text/calibration.txt");
    options.calibration->samples = 2;
    options.calibration->sequence_length = 64;
    options.progress = [&](const ProgressEvent& event) {
      if (event.phase.starts_with("compress") && event.done == cut_off_at) {
        throw Error(ErrorCode::kCancelled, "stop");
      }
    };
    options.log = [&](const std::string& line) { log += line + "\n"; };
    merge_into_packed(open_model(at("base")), options, pool);
  };
  const auto taken = [&] {
    auto files = files_of(at("out"));
    fs::remove_all(at("out"));
    return files;
  };
  merge(1);
  const auto whole = taken();
  merge(0.5);
  const auto half = taken();
  EXPECT_NE(half, whole);

  const auto is_anew = [&] {
    return log.find("is not used: it was made with another recipe") !=
           std::string::npos;
  };
  EXPECT_THROW(merge(1, 2), Error);
  EXPECT_TRUE(fs::exists(at("out.resume/block-00001")));
  merge(1);
  EXPECT_FALSE(is_anew());
  EXPECT_EQ(taken(), whole);

  EXPECT_THROW(merge(1, 2), Error);
  merge(0.5);  // of another adapter
  EXPECT_TRUE(is_anew());
  EXPECT_EQ(taken(), half);
  EXPECT_FALSE(fs::exists(at("out.resume")));

  // What is there is read: block 1 under the name of block 0 is not looked for.
  EXPECT_THROW(merge(1, 2), Error);
  fs::remove_all(at("out.resume/block-00000"));
  fs::rename(at("out.resume/block-00001"), at("out.resume/block-00000"));
  EXPECT_THROW(merge(1), Error);
}

}  // namespace
}  // namespace llmpress
