#include "formats/linears/linear_part.h"

#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <string>

#include "compress/core/error.h"
#include "compress/core/packed/weight_rows.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/containers/typed_tensors.h"
#include "tests/formats/linears/sample_linears.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

constexpr std::size_t kOut = 200, kIn = 200, kGrain = 64;

std::map<std::string, LinearWeights> linears() {
  std::map<std::string, LinearWeights> all;
  const auto add = [&](const char* name, PackedWeight weight) {
    LinearWeights& linear = all[name];
    linear.weight = std::move(weight);
    for (std::size_t o = 0; o < kOut; ++o) {
      linear.bias.push_back(static_cast<float>(o));
    }
  };
  add("dense", make_dense(sample_matrix(kOut, kIn).view(), DType::kBF16));
  add("int4", sample_grouped(4, kOut, kIn, 8, false));
  add("int3", sample_grouped(3, kOut, kIn, 40, false));
  GroupedIntWeight ordered = sample_grouped(4, kOut, kIn, 100, true);
  for (std::size_t i = 0; i < kIn; ++i) {
    ordered.g_idx.push_back(static_cast<std::uint32_t>(i % 2));
  }
  add("int4-ordered", std::move(ordered));
  add("int8", sample_int8(kOut, kIn, false, true));
  add("fp8", sample_fp8(kOut, kIn, 1, kIn));
  add("fp8-tensor", sample_fp8(kOut, kIn, kOut, kIn));
  add("fp8-block", sample_fp8(kOut, kIn, 64, 64));
  add("nf4", sample_table4(Table4Kind::kNf4, kOut, kIn, false));
  add("mxfp4", sample_micro_fp4(MicroFp4Kind::kMxfp4, kOut, kIn));
  return all;
}

TEST(LinearPart, IsTheRowsOfTheWholeInEveryForm) {
  const TemporaryDirectory tmp;
  const auto writer = make_artifact_writer({.output = tmp.path() / "m"});
  for (const auto& [name, linear] : linears()) writer->add_linear(name, linear);
  writer->finish("{}");
  const auto model = open_checkpoint(tmp.path() / "m");
  for (const auto& [name, given] : linears()) {
    SCOPED_TRACE(name);
    const LinearWeights whole = model->read_linear(name);
    for (const Stretch wanted :
         {Stretch{0, 64}, Stretch{64, 64}, Stretch{128, 72}, Stretch{192, 0}}) {
      const LinearPart part = model->read_linear_part(
          name,
          {.grain = kGrain, .choose = [&](std::size_t out, std::size_t grain) {
             EXPECT_EQ(out, kOut);
             EXPECT_EQ(grain, kGrain);
             return wanted;
           }});
      EXPECT_EQ(part.out, kOut);
      EXPECT_EQ(part.in, kIn);
      EXPECT_EQ(part.linear.bias, whole.bias);
      EXPECT_EQ(part.linear.input, whole.input);
      if (part.grain == 0) {  // its blocks lie across rows
        EXPECT_EQ(name, "nf4");
        expect_same_linear(part.linear, whole, name);
        continue;
      }
      EXPECT_EQ(part.rows.first, wanted.first);
      EXPECT_EQ(part.rows.count, wanted.count);
      if (wanted.count == 0) continue;
      LinearWeights rows = whole;
      rows.weight = take_rows(whole.weight, wanted);
      expect_same_linear(part.linear, rows, name);
    }
  }
}

// A weight that is not finite in other rows is not met.
TEST(LinearPart, ReadsNoOtherRows) {
  const TemporaryDirectory tmp;
  MatrixF W = sample_matrix(kOut, kIn);
  W(130, 7) = std::numeric_limits<float>::infinity();
  const auto writer = make_artifact_writer(
      {.output = tmp.path() / "m", .format = "safetensors"});
  writer->add_tensor({.name = "l.weight",
                      .dtype = DType::kF32,
                      .shape = {kOut, kIn},
                      .bytes = make_dense(W.view(), DType::kF32).data});
  writer->finish("{}");
  const auto model = open_checkpoint(tmp.path() / "m");
  const auto read = [&](Stretch rows) {
    return model->read_linear_part(
        "l", {.grain = kGrain,
              .choose = [rows](std::size_t, std::size_t) { return rows; }});
  };
  EXPECT_EQ(dequantize(read({64, 64}).linear.weight)(63, 199), W(127, 199));
  EXPECT_THROW(read({128, 72}), Error);
  EXPECT_THROW(model->read_linear("l"), Error);
}

TEST(LinearPart, IsWholeWhereThereAreFewRows) {
  const LinearPart part = take_part(
      {.weight = make_dense(sample_matrix(64, 8).view(), DType::kF32)},
      {.grain = kGrain, .choose = [](std::size_t, std::size_t) {
         ADD_FAILURE() << "asked";
         return Stretch{};
       }});
  EXPECT_EQ(part.grain, 0u);
  EXPECT_EQ(rows_of(part.linear.weight), 64u);
}

}  // namespace
}  // namespace llmpress
