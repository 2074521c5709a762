// Conversions that were cut off, and what they leave.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/pipeline/run/linear_store.h"
#include "tests/compress/pipeline/conversion/conversions.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

TEST_F(Conversions, GoOnFromTheLinearsThatWereRounded) {
  const fs::path model = write_model(kShape);
  const auto whole = convert(model, "whole.gguf", {.type = GgmlType::kQ4_0});
  const std::vector<std::string> notes = report_.notes;
  const auto rounded = report_.rounded.at(0);

  std::vector<std::string> log;
  ConversionOptions options{
      .type = GgmlType::kQ4_0,
      .resume = OutputResume{
          .fingerprint = "\nmodel: a\n",
          .log = [&log](const std::string& line) { log.push_back(line); }}};
  const fs::path left = folder_.path() / "m.gguf.resume",
                 kept = left / "converted";
  options.progress = [&kept](const ProgressEvent&) {
    if (fs::exists(kept)) fail(ErrorCode::kCancelled, "cut off");
  };
  EXPECT_THROW(convert(model, "m.gguf", options), Error);
  EXPECT_FALSE(fs::exists(folder_.path() / "m.gguf"));
  const std::size_t linears = 7;  // of a block
  EXPECT_EQ(std::distance(fs::directory_iterator(kept), {}), linears);

  // Another weight in the place of the first; the second is damaged.
  const LinearStore store(kept);
  LinearOutcome other = store.load(0);
  std::get<GgmlWeight>(other.weights.weight).blocks[3] ^= std::byte{1};
  other.report.relative_error = 7;
  store.save(0, other.weights, other.report);
  std::ofstream(kept / "1", std::ios::app) << "more";
  options.progress = {};
  const auto resumed = convert(model, "m.gguf", options);
  EXPECT_EQ(report_.rounded.at(0).largest_error, 7);
  EXPECT_EQ(report_.rounded.at(0).linears, rounded.linears);
  EXPECT_EQ(report_.notes, notes);
  EXPECT_FALSE(fs::exists(left));
  EXPECT_TRUE(log.empty());
  for (const TensorInfo& info : whole->tensors().tensors()) {
    const TensorBytes is =
        resumed->tensors().read(resumed->tensors().require(info.name));
    const TensorBytes was = whole->tensors().read(info);
    EXPECT_EQ(std::ranges::equal(is.bytes, was.bytes),
              !info.name.ends_with("layers.0.self_attn.q_proj.weight"))
        << info.name;
  }

  // Nothing is taken up of what was made from something else.
  options.progress = [&kept](const ProgressEvent&) {
    if (fs::exists(kept)) fail(ErrorCode::kCancelled, "cut off");
  };
  EXPECT_THROW(convert(model, "m.gguf", options), Error);
  store.save(0, other.weights, other.report);
  options.progress = {};
  options.resume->fingerprint = "\nmodel: b\n";
  convert(model, "m.gguf", options);
  EXPECT_EQ(report_.rounded.at(0).largest_error, rounded.largest_error);
  ASSERT_EQ(log.size(), 1u);
  EXPECT_NE(log[0].find("another model"), std::string::npos) << log[0];
}

TEST_F(Conversions, WhatIsRefusedOrExactLeavesNothingToGoOnFrom) {
  const fs::path model = write_model(kShape);
  const OutputResume resume{.fingerprint = "\nmodel: a\n"};
  const auto gguf = convert(
      model, "m.gguf",
      {.type = GgmlType::kQ4_1, .ends_type = GgmlType::kF32, .resume = resume});
  const auto left = [&](const char* name) {
    return fs::exists(folder_.path() / (std::string(name) + ".resume"));
  };
  EXPECT_FALSE(left("m.gguf"));
  EXPECT_THROW(convert(gguf->path(), "refused",
                       {.format = "compressed-tensors", .resume = resume}),
               Error);
  EXPECT_FALSE(left("refused"));
  bool made = false;
  convert(model, "exact",
          {.format = "safetensors",
           .progress = [&](const ProgressEvent&) { made |= left("exact"); },
           .resume = resume});
  EXPECT_FALSE(made);
}

}  // namespace
}  // namespace llmpress
