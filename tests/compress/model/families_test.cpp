// Every family against the logits that transformers computes from the same tiny
// random checkpoint.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "compress/model/decoder.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/config_reader.h"
#include "formats/containers/tensor_io.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

// Of the largest logit.
constexpr float kTolerance = 2e-4f;

struct Golden {
  std::unique_ptr<Checkpoint> checkpoint;
  std::vector<TokenId> ids;
  MatrixF logits;  // [ids, vocabulary]
};

Golden read_golden(const fs::path& folder) {
  const auto expected = open_tensors(folder / "expected.safetensors");
  const TensorInfo& info = expected->require("input_ids");
  const TensorBytes data = expected->read(info);
  std::vector<std::int64_t> ids(data.bytes.size() / sizeof(std::int64_t));
  std::memcpy(ids.data(), data.bytes.data(), data.bytes.size());
  Golden golden{.checkpoint = open_checkpoint(folder),
                .ids = {},
                .logits = read_matrix(*expected, "logits")};
  for (const std::int64_t id : ids) {
    golden.ids.push_back(static_cast<TokenId>(id));
  }
  return golden;
}

void expect_near(const MatrixF& expected, std::size_t first,
                 const MatrixF& found) {
  float largest = 0;
  for (const float z : expected.data()) {
    largest = std::max(largest, std::abs(z));
  }
  float worst = 0;
  for (std::size_t r = 0; r < found.rows(); ++r) {
    for (std::size_t c = 0; c < found.cols(); ++c) {
      const float difference = std::abs(found(r, c) - expected(first + r, c));
      worst = std::isnan(difference) ? HUGE_VALF : std::max(worst, difference);
    }
  }
  EXPECT_LE(worst, kTolerance * largest);
}

class Families : public testing::TestWithParam<fs::path> {
 protected:
  const Golden golden_ = read_golden(GetParam());
  ThreadPool pool_{2};
};

TEST_P(Families, GiveTheLogitsOfAWholePrompt) {
  for (const Isa isa : available_isas()) {
    const Decoder decoder(*golden_.checkpoint, {.isa = isa});
    const Segment all{golden_.ids.size(), 0, nullptr};
    const MatrixF hidden = decoder.forward(golden_.ids, {&all, 1}, pool_);
    expect_near(golden_.logits, 0, decoder.ends().logits(hidden.view(), pool_));
  }
}

TEST_P(Families, GiveTheLogitsTokenByToken) {
  const Decoder decoder(*golden_.checkpoint);
  KvCache cache = decoder.make_cache(golden_.ids.size());
  for (std::size_t t = 0; t < golden_.ids.size(); ++t) {
    const Segment segment{1, t, &cache};
    const MatrixF hidden =
        decoder.forward({&golden_.ids[t], 1}, {&segment, 1}, pool_);
    expect_near(golden_.logits, t, decoder.ends().logits(hidden.view(), pool_));
  }
}

// Three sequences at different places of the text in one batch: one alone, one
// that goes on in two steps, one that starts later.
TEST_P(Families, GiveTheLogitsInRaggedBatches) {
  const Decoder decoder(*golden_.checkpoint);
  const std::size_t n = golden_.ids.size();
  KvCache a = decoder.make_cache(n), b = decoder.make_cache(n);
  const auto step = [&](std::vector<Segment> segments) {
    std::vector<TokenId> ids;
    for (const Segment& s : segments) {
      ids.insert(ids.end(), golden_.ids.begin() + static_cast<long>(s.past),
                 golden_.ids.begin() + static_cast<long>(s.past + s.rows));
    }
    const MatrixF hidden = decoder.forward(ids, segments, pool_);
    const MatrixF logits = decoder.ends().logits(hidden.view(), pool_);
    std::size_t row = 0;
    for (const Segment& s : segments) {
      expect_near(golden_.logits, s.past,
                  MatrixF(logits.view().rows_slice(row, s.rows)));
      row += s.rows;
    }
  };
  step({{n, 0, nullptr}, {20, 0, &a}, {1, 0, &b}});
  step({{n - 20, 20, &a}, {7, 1, &b}});
  step({{n - 8, 8, &b}});
}

bool is_known(const fs::path& folder) {
  const auto type =
      ConfigReader::parse(read_file(folder / "config.json"), folder.string())
          .text("model_type");
  const std::vector<std::string> known = known_families();
  return type && std::ranges::find(known, *type) != known.end();
}

// Of the project, and those of known families where more are at hand.
std::vector<fs::path> goldens() {
  std::vector<fs::path> found;
  const fs::path source(source_dir());
  const fs::path own = source / "tests/compress/model/goldens";
  for (const fs::path& root : {own, source / "../shared/architectures"}) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(root, ignored)) {
      if (!fs::exists(entry.path() / "expected.safetensors")) continue;
      if (root == own || is_known(entry.path())) found.push_back(entry.path());
    }
  }
  std::ranges::sort(found);
  return found;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Families);
INSTANTIATE_TEST_SUITE_P(
    Golden, Families, testing::ValuesIn(goldens()), [](const auto& row) {
      return row.param.filename().string() +
             (row.param.parent_path().filename() == "goldens" ? "" : "_shared");
    });

}  // namespace
}  // namespace llmpress
