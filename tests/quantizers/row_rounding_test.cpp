#include "quantizers/row_rounding.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/rng.h"

namespace llmpress {
namespace {

constexpr std::size_t kRows = 301,
                      kCols = 512;  // several slices, the last less

MatrixF random_weight() {
  MatrixF W(kRows, kCols);
  Rng rng(5);
  for (float& w : W.data()) w = static_cast<float>(rng.normal()) * 0.02f;
  for (float& w : W.row(7)) w = 0;
  return W;
}

RowSource source_of(const MatrixF& W) {
  return row_source(make_dense(W.view(), DType::kF32));
}

std::vector<QuantizeConfig> configs() {
  std::vector<QuantizeConfig> all;
  const auto add = [&](const auto& set) {
    QuantizeConfig config{.method = "rtn"};
    set(config);
    all.push_back(config);
  };
  add([](QuantizeConfig&) {});
  add([](QuantizeConfig& c) {
    c.weights.symmetric = true;
    c.weights.group_size = 48;
    c.weights.bits = 3;
    c.weights.range = RangeSearch::kMse;
  });
  add([](QuantizeConfig& c) {  // W8A8: signed octets
    c.weights.symmetric = true;
    c.weights.bits = 8;
    c.weights.group_size = -1;
    c.input.kind = ActivationQuant::Kind::kInt;
  });
  add([](QuantizeConfig& c) { c.weights.type = WeightType::kFloat; });
  for (const WeightType type : {WeightType::kFp8E4M3, WeightType::kFp8E5M2}) {
    for (const std::int64_t group : {-1, 128}) {
      add([&](QuantizeConfig& c) {
        c.weights.type = type;
        c.weights.group_size = group;
      });
    }
  }
  add([](QuantizeConfig& c) {
    c.method = "nf4";
    c.weights.type = WeightType::kNf4;
    c.weights.group_size = 64;
  });
  add([](QuantizeConfig& c) { c.weights.type = WeightType::kMxfp4; });
  for (const GgmlType type : {GgmlType::kQ4_0, GgmlType::kQ4_K}) {
    add([&](QuantizeConfig& c) {
      c.weights.type = WeightType::kGgml;
      c.weights.ggml_type = type;
    });
  }
  return all;
}

void expect_same(std::span<const float> a, std::span<const float> b) {
  ASSERT_EQ(a.size(), b.size());
  if (a.empty()) return;  // no scales
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size_bytes()), 0);
}

TEST(RowRounding, MakesWhatTheMethodMakesOfTheWholeWeight) {
  const MatrixF W = random_weight();
  ThreadPool pool(2);
  for (const QuantizeConfig& config : configs()) {
    ASSERT_TRUE(method_of(config).rounds_rows_apart(config, kCols));
    const QuantizeResult whole = quantize_weight(
        {.W = W.view(), .config = &config, .pool = &pool, .name = "w"});
    SCOPED_TRACE(describe(whole.weight));
    const RowsRounded rows =
        quantize_rows(source_of(W), config, nullptr, "w", pool);
    const PackedWeight& weight = rows.result.weight;
    check(weight, "w");
    EXPECT_EQ(describe(weight), describe(whole.weight));
    EXPECT_EQ(stored_bytes(weight), stored_bytes(whole.weight));
    expect_same(scales_of(weight), scales_of(whole.weight));
    expect_same(dequantize(weight).data(), dequantize(whole.weight).data());
    EXPECT_EQ(rows.result.input, whole.input);
    EXPECT_EQ(rows.result.notes, whole.notes);
    EXPECT_EQ(rows.result.output_error, whole.output_error);
    EXPECT_GT(rows.result.output_error, 0);
    const WeightDifference difference =
        difference_of(W.view(), whole.weight, {}, pool);
    EXPECT_EQ(rows.totals.difference.zero_fraction, difference.zero_fraction);
    EXPECT_GE(difference.zero_fraction, 1.0 / kRows);
    EXPECT_EQ(rows.totals.energy, output_energy(W.view(), {}, pool));
  }
}

TEST(RowRounding, StoresAllScalesWiderWhereF16HoldsOneNot) {
  MatrixF W = random_weight();
  for (float& w : W.row(300)) w *= 1e9f;  // of the last slice
  ThreadPool pool(2);
  const QuantizeConfig config{.method = "rtn"};
  const QuantizeResult whole = quantize_weight(
      {.W = W.view(), .config = &config, .pool = &pool, .name = "w"});
  const RowsRounded rows =
      quantize_rows(source_of(W), config, nullptr, "w", pool);
  EXPECT_EQ(scale_type_of(rows.result.weight), DType::kF32);
  EXPECT_EQ(rows.result.notes, whole.notes);
  EXPECT_EQ(rows.result.output_error, whole.output_error);
  expect_same(dequantize(rows.result.weight).data(),
              dequantize(whole.weight).data());
}

TEST(RowRounding, SaysWhereAWeightCannotBeRounded) {
  MatrixF W = random_weight();
  W(290, 17) = std::numeric_limits<float>::quiet_NaN();
  ThreadPool pool(2);
  const QuantizeConfig config{.method = "rtn"};
  try {
    quantize_rows(source_of(W), config, nullptr, "model.x", pool);
    FAIL() << "was rounded";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("model.x: weight [290, 17]"),
              std::string::npos)
        << error.what();
  }
  EXPECT_THROW(
      quantize_rows(source_of(MatrixF(0, 8)), config, nullptr, "w", pool),
      Error);
}

// What lies across rows is rounded whole.
TEST(RowRounding, IsNotForScalesOverSeveralRows) {
  QuantizeConfig config{.method = "rtn"};
  const auto apart = [&] {
    return method_of(config).rounds_rows_apart(config, kCols);
  };
  config.weights.group_size = 0;
  EXPECT_FALSE(apart());
  config.weights = {.type = WeightType::kNvfp4};
  EXPECT_FALSE(apart());
  config.weights = {.type = WeightType::kFp8E4M3, .group_size = 0};
  EXPECT_FALSE(apart());
  config.weights = {
      .type = WeightType::kFp8E4M3, .block_rows = 128, .block_cols = 128};
  EXPECT_FALSE(apart());
  config.weights = {.type = WeightType::kNf4, .group_size = 1024};
  EXPECT_FALSE(apart());
  config.weights = {
      .type = WeightType::kNf4, .group_size = 64, .double_quant = true};
  EXPECT_FALSE(apart());
  config.method = "gptq";
  EXPECT_EQ(method_of(config).rounds_rows_apart, nullptr);
}

}  // namespace
}  // namespace llmpress
