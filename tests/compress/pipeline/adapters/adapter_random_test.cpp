// A thousand random adapters, whole and broken: merged exactly, or refused with
// the place. Which of both is known from how an adapter was made.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "compress/core/error.h"
#include "compress/pipeline/adapters/adapter_merge.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/compress/pipeline/adapters/adapter_files.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

// Sizes that share no factor with a tile or a vector.
TinyShape odd_shape() {
  return {.hidden = 22,
          .ffn = 37,
          .layers = 2,
          .heads = 3,
          .kv_heads = 1,
          .head_dim = 6,
          .vocabulary = 29};
}

enum class Flaw {
  kNone,
  kOddShape,
  kMissingHalf,
  kWrongRank,
  kNotANumber,
  kInfinity,
  kTransposed,
  kUnknownModule,
  kUnknownTensor,
  kMissingMagnitude,
  kShortMagnitude,
  kWrongPrefix,
  kVectorFactor,
  kUnknownSetting,
  kTruncated,
  kFlaws
};

struct Generated {
  std::string module{};
  LoraDelta delta{};
  double weight = 1;
  Flaw flaw = Flaw::kNone;
};

class RandomAdapters : public testing::Test {
 protected:
  RandomAdapters()
      : tensors_(tiny_tensors(odd_shape(), 3)),
        base_(tensors_, config_json(odd_shape())),
        arch_(parse_architecture(base_.config_json(), "tiny")) {
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      for (std::size_t l = 0; l < arch_.block(layer).linears.size(); ++l) {
        names_.push_back(arch_.linear_name(layer, l));
      }
    }
    names_.push_back(arch_.head);
  }

  Generated generate(Rng& rng) {
    Generated g;
    g.module = names_[rng.below(names_.size())];
    const MatrixF& W = tensors_.at(g.module + ".weight");
    const bool flawed = rng.below(3) != 0;
    const auto flaws = static_cast<std::uint64_t>(Flaw::kFlaws) - 1;
    if (flawed) g.flaw = static_cast<Flaw>(1 + rng.below(flaws));
    const bool magnitude =
        g.flaw == Flaw::kMissingMagnitude || g.flaw == Flaw::kShortMagnitude;
    const std::size_t rank = 1 + rng.below(9);
    g.delta = sized_lora(W.rows(), W.cols(), rank, 1,
                         magnitude || rng.below(3) == 0, rng);
    g.weight = g.delta.magnitude.empty() ? rng.normal() : 1;
    return g;
  }

  // The folder of `g`, with its flaw.
  fs::path write(Generated& g, Rng& rng) {
    const std::size_t rank = g.delta.A.rows();
    const bool rslora = rng.below(2) == 0;
    const double alpha = static_cast<double>(1 + rng.below(64)) / 4;
    const auto r = static_cast<double>(rank);
    g.delta.scaling = alpha / (rslora ? std::sqrt(r) : r);
    std::string config = "\"r\": ";
    config += std::to_string(g.flaw == Flaw::kWrongRank ? rank + 1 : rank);
    config += ", \"lora_alpha\": " + std::to_string(alpha);
    config += rslora ? ", \"use_rslora\": true" : "";
    config += g.delta.magnitude.empty() ? "" : ", \"use_dora\": true";
    if (g.flaw == Flaw::kUnknownSetting) config += ", \"use_qalora\": true";
    AdapterFiles files(config);
    add_tensors(g, rng, files);
    const fs::path folder = directory_.path() / "adapter";
    files.write(folder);
    if (g.flaw == Flaw::kTruncated) {
      const fs::path file = folder / "adapter_model.safetensors";
      fs::resize_file(file, rng.below(fs::file_size(file)));
    }
    return folder;
  }

  static void add_tensors(const Generated& g, Rng& rng, AdapterFiles& files) {
    LoraDelta delta = g.delta;
    std::string module = g.module;
    MatrixF* const half = rng.below(2) == 0 ? &delta.A : &delta.B;
    const std::size_t at = rng.below(half->size());
    switch (g.flaw) {
      case Flaw::kOddShape:
        if (half == &delta.A) {
          delta.A = MatrixF(delta.A.rows(), delta.A.cols() + 1);
        } else {
          delta.B = MatrixF(delta.B.rows() + 1, delta.B.cols());
        }
        break;
      case Flaw::kNotANumber:
        half->data()[at] = std::numeric_limits<float>::quiet_NaN();
        break;
      case Flaw::kInfinity:
        half->data()[at] = -std::numeric_limits<float>::infinity();
        break;
      case Flaw::kTransposed:
        std::swap(delta.A, delta.B);
        if (delta.A.rows() == delta.B.cols()) {  // rank = both sides: 1 x 1
          delta.A = MatrixF(delta.A.rows() + 1, delta.A.cols());
        }
        break;
      case Flaw::kUnknownModule:
        module += rng.below(2) == 0 ? "x" : ".inner";
        break;
      case Flaw::kShortMagnitude:
        delta.magnitude.pop_back();
        break;
      default:
        break;
    }
    if (g.flaw != Flaw::kMissingHalf || half != &delta.A) {
      files.matrix(module + ".lora_A.weight", delta.A);
    }
    if (g.flaw == Flaw::kVectorFactor) {
      files.vector(module + ".lora_B.weight", delta.B.data());
    } else if (g.flaw != Flaw::kMissingHalf || half != &delta.B) {
      files.matrix(module + ".lora_B.weight", delta.B);
    }
    if (!delta.magnitude.empty() && g.flaw != Flaw::kMissingMagnitude) {
      files.vector(module + ".lora_magnitude_vector", delta.magnitude);
    }
    if (g.flaw == Flaw::kUnknownTensor) {
      files.matrix(module + ".lora_C.weight", delta.A);
    }
    if (g.flaw == Flaw::kWrongPrefix) {
      files.matrix("../" + module + ".lora_A.default", delta.A);
    }
  }

  void expect_exact(const Generated& g, const fs::path& folder) {
    AdapterMerge merge =
        merge_adapters(base_, arch_, {{folder, g.weight}}, {}, pool_);
    const auto merged = overlay(base_, std::move(merge.edits));
    const MatrixF found = read_matrix(merged->tensors(), g.module + ".weight");
    LoraDelta weighted = g.delta;
    weighted.scaling *= g.weight;
    const Reference wanted =
        naive_merge(weighted, tensors_.at(g.module + ".weight"));
    for (std::size_t i = 0; i < found.size(); ++i) {
      ASSERT_NEAR(found.data()[i], wanted.value.data()[i],
                  wanted.bound.data()[i]);
    }
  }

  void expect_refused(const Generated& g, const fs::path& folder) {
    try {
      (void)merge_adapters(base_, arch_, {{folder, g.weight}}, {}, pool_);
      ADD_FAILURE() << "was accepted";
    } catch (const Error& e) {
      const std::string what = e.what();
      EXPECT_TRUE(what.find(g.module) != std::string::npos ||
                  what.find(folder.string()) != std::string::npos)
          << "without a place: " << what;
      EXPECT_TRUE(e.code() == ErrorCode::kInvalidInput ||
                  e.code() == ErrorCode::kUnsupported ||
                  e.code() == ErrorCode::kCorruptFile)
          << what;
    }
  }

  TinyTensors tensors_;
  MemoryCheckpoint base_;
  Architecture arch_;
  std::vector<std::string> names_;
  TemporaryDirectory directory_;
  ThreadPool pool_{1};
};

TEST_F(RandomAdapters, AreMergedExactlyOrRefusedWithTheirPlace) {
  Rng rng(2026);
  std::vector<std::size_t> seen(static_cast<std::size_t>(Flaw::kFlaws));
  for (int i = 0; i < 1000 && !HasFailure(); ++i) {
    SCOPED_TRACE("adapter " + std::to_string(i));
    Generated g = generate(rng);
    ++seen[static_cast<std::size_t>(g.flaw)];
    const fs::path folder = write(g, rng);
    if (g.flaw == Flaw::kNone) {
      expect_exact(g, folder);
    } else {
      SCOPED_TRACE("flaw " + std::to_string(static_cast<int>(g.flaw)));
      expect_refused(g, folder);
    }
  }
  for (const std::size_t count : seen) EXPECT_GT(count, 20u);
}

}  // namespace
}  // namespace llmpress
