#include "compress/calibration/batch_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "compress/core/rng.h"
#include "compress/model/state_bytes.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

MatrixF random_matrix(std::size_t rows, std::size_t cols, Rng& rng) {
  MatrixF m(rows, cols);
  for (float& x : m.data()) x = static_cast<float>(rng.normal());
  return m;
}

// With a routing that two values share, one of its own, and values that are
// empty.
BlockState routed_state(std::size_t rows, std::uint64_t seed) {
  Rng rng(seed);
  auto shared = std::make_shared<Routing>();
  shared->tokens = rows;
  shared->offsets = {0, rows / 2, rows};
  shared->token.assign(rows, 3);
  shared->weight.assign(rows, 0.25f);
  shared->idle.assign(rows, false);
  shared->idle[0] = true;
  auto own = std::make_shared<Routing>(*shared);
  own->tokens = rows + 1;
  BlockState state{.hidden = random_matrix(rows, 5, rng),
                   .stage_input = random_matrix(rows, 7, rng),
                   .routing = shared};
  state.others.resize(4);
  state.others[1] = {.rows = random_matrix(rows, 3, rng), .routing = shared};
  state.others[2] = {.rows = {}, .routing = own};
  state.carried.resize(2);
  state.carried[1].rows = random_matrix(rows, 2, rng);
  return state;
}

void expect_same(const MatrixF& a, const MatrixF& b) {
  ASSERT_EQ(a.rows(), b.rows());
  ASSERT_EQ(a.cols(), b.cols());
  EXPECT_TRUE(std::ranges::equal(a.data(), b.data()));
}

void expect_same(const BlockState& a, const BlockState& b) {
  expect_same(a.hidden, b.hidden);
  expect_same(a.stage_input, b.stage_input);
  ASSERT_EQ(a.others.size(), b.others.size());
  for (std::size_t v = 0; v < a.others.size(); ++v) {
    expect_same(a.others[v].rows, b.others[v].rows);
  }
  ASSERT_EQ(a.carried.size(), b.carried.size());
  for (std::size_t v = 0; v < a.carried.size(); ++v) {
    expect_same(a.carried[v].rows, b.carried[v].rows);
  }
  ASSERT_NE(b.routing, nullptr);
  EXPECT_EQ(a.routing->offsets, b.routing->offsets);
  EXPECT_EQ(a.routing->token, b.routing->token);
  EXPECT_EQ(a.routing->weight, b.routing->weight);
  EXPECT_EQ(a.routing->idle, b.routing->idle);
}

class BatchStores : public testing::Test {
 protected:
  static CalibrationBatch batch(std::size_t rows, std::uint64_t seed) {
    return {.segments = {{.rows = rows}}, .state = routed_state(rows, seed)};
  }
  BatchStore filled() {
    BatchStore store(directory_.path());
    for (std::size_t b = 0; b < 3; ++b) store.add(batch(4 + 2 * b, b));
    return store;
  }
  TemporaryDirectory directory_;
};

TEST_F(BatchStores, AStateComesBackBitForBit) {
  ScratchFile file(directory_.path() / "made");
  const BlockState state = routed_state(6, 1);
  write_state(state, 24, file);
  const BlockState back = read_state(file, 24);
  expect_same(state, back);
  EXPECT_EQ(back.routing, back.others[1].routing);
  EXPECT_NE(back.routing, back.others[2].routing);
  EXPECT_EQ(back.others[2].routing->tokens, 7u);
  EXPECT_EQ(back.others[0].routing, nullptr);
  EXPECT_GT(state_bytes(state), sizeof(float) * 6 * 17);
  const std::string bytes = to_bytes(state);
  EXPECT_EQ(bytes.size(), state_bytes(state));
  expect_same(state, state_from_bytes(bytes));
  EXPECT_THROW((void)state_from_bytes(std::string_view(bytes).substr(0, 90)),
               Error);
}

TEST_F(BatchStores, HoldOneBatchAndGiveAnyInAnyOrder) {
  const BatchStore store = filled();
  for (const std::size_t b : {2u, 0u, 1u, 1u, 2u}) {
    expect_same(routed_state(4 + 2 * b, b), store.read(b).state);
    EXPECT_EQ(store.segments(b)[0].rows, 4 + 2 * b);
  }
  // Nothing that a kill would leave behind.
  EXPECT_TRUE(std::filesystem::is_empty(directory_.path()));
}

TEST_F(BatchStores, KeepWhatWasChangedAlsoWhereItGrows) {
  BatchStore store = filled();
  store.change(0).state = routed_state(40, 8);
  store.change(1).state.hidden.row(2)[1] = 17;
  expect_same(routed_state(8, 2), store.read(2).state);
  expect_same(routed_state(40, 8), store.read(0).state);
  EXPECT_EQ(store.read(1).state.hidden.row(2)[1], 17);
}

TEST_F(BatchStores, CopiesAreTheirOwn) {
  BatchStore store = filled();
  store.change(1).state.hidden.row(0)[0] = 5;
  BatchStore copy = store;
  copy.change(1).state.hidden.row(0)[0] = 6;
  EXPECT_EQ(store.read(1).state.hidden.row(0)[0], 5);
  EXPECT_EQ(copy.read(1).state.hidden.row(0)[0], 6);
  BatchStore in_memory;
  in_memory.add(batch(4, 0));
  in_memory = std::move(copy);
  EXPECT_EQ(in_memory.size(), 3u);
  expect_same(routed_state(4, 0), in_memory.read(0).state);
}

TEST_F(BatchStores, AFolderThatCannotBeMadeIsAnError) {
  const auto file = directory_.path() / "file";
  std::ofstream(file) << "x";
  try {
    const BatchStore store(file / "scratch");
    FAIL() << "made a folder below a file";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kIo);
    EXPECT_NE(std::string(e.what()).find("scratch"), std::string::npos);
  }
}

TEST_F(BatchStores, WhatWasNeverWrittenCannotBeRead) {
  const ScratchFile file(directory_.path());
  std::byte octet{};
  EXPECT_THROW(file.read(3, {&octet, 1}), Error);
}

}  // namespace
}  // namespace llmpress
