// A tiny random model, adapters for it, and the ways in which they are applied.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "compress/core/error.h"
#include "compress/model/decoder.h"
#include "compress/pipeline/adapters/adapter_beside.h"
#include "compress/pipeline/adapters/adapter_merge.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/compress/pipeline/adapters/adapter_files.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {

namespace fs = std::filesystem;

inline const std::string kQ0 = "model.layers.0.self_attn.q_proj";
inline const std::string kUp1 = "model.layers.1.mlp.up_proj";

class AdapterTest : public testing::Test {
 protected:
  explicit AdapterTest(const TinyShape& shape = {}) { use(shape); }

  void use(const TinyShape& shape) {
    shape_ = shape;
    tensors_ = tiny_tensors(shape, 7);
    base_.emplace(tensors_, config_json(shape));
    arch_ = parse_architecture(base_->config_json(), "tiny");
  }

  std::pair<std::size_t, std::size_t> size_of(const std::string& module) const {
    const MatrixF& W = tensors_.at(module + ".weight");
    return {W.rows(), W.cols()};
  }
  LoraDelta delta(const std::string& module, std::size_t r, double scaling,
                  bool dora = false) {
    const auto [out, in] = size_of(module);
    return sized_lora(out, in, r, scaling, dora, rng_);
  }
  // Of the embedding [vocabulary, hidden]: A [r, vocabulary], B [hidden, r].
  LoraDelta embedding_delta(std::size_t r, double scaling, bool dora = false) {
    return sized_lora(shape_.hidden, shape_.vocabulary, r, scaling, dora, rng_);
  }

  fs::path folder(const std::string& name) const {
    return directory_.path() / name;
  }

  std::unique_ptr<Checkpoint> merged(
      const std::vector<WeightedAdapter>& adapters,
      const CombineConfig& config = {},
      std::optional<DType> dtype = std::nullopt) {
    AdapterMerge merge = merge_adapters(*base_, arch_, adapters, config, pool_);
    notes_ = merge.notes;
    merge.edits.dtype = dtype;
    return overlay(*base_, std::move(merge.edits));
  }

  // The weight by both ways in which a checkpoint is read.
  MatrixF weight(const Checkpoint& checkpoint, const std::string& module) {
    const MatrixF W = read_matrix(checkpoint.tensors(), module + ".weight");
    const MatrixF linear = dequantize(checkpoint.read_linear(module).weight);
    EXPECT_TRUE(std::ranges::equal(W.data(), linear.data())) << module;
    return W;
  }

  void expect_merged(const Checkpoint& checkpoint, const std::string& module,
                     const LoraDelta& delta) {
    expect_close(weight(checkpoint, module),
                 naive_merge(delta, tensors_.at(module + ".weight")), module);
  }

  static void expect_close(const MatrixF& found, const Reference& wanted,
                           const std::string& what) {
    for (std::size_t o = 0; o < found.rows(); ++o) {
      for (std::size_t i = 0; i < found.cols(); ++i) {
        ASSERT_NEAR(found(o, i), wanted.value(o, i), wanted.bound(o, i))
            << what << " at " << o << ", " << i;
      }
    }
  }

  MatrixF logits(const Checkpoint& checkpoint,
                 std::shared_ptr<const WeightCompanion> companion = nullptr) {
    const Decoder decoder(checkpoint,
                          Decoder::Options{.isa = Isa::kScalar,
                                           .companion = std::move(companion)});
    const auto tokens = random_tokens(12, shape_.vocabulary, 5);
    const Segment segment{.rows = tokens.size()};
    return decoder.ends().logits(
        decoder.forward(tokens, std::span(&segment, 1), pool_).view(), pool_);
  }

  MatrixF logits_beside(const Checkpoint& base,
                        const std::vector<WeightedAdapter>& adapters) {
    const AdaptersBeside beside =
        keep_beside(base, arch_, adapters, Isa::kScalar, pool_);
    return logits(*beside.checkpoint, beside.companion);
  }

  void expect_beside_equals_merged(
      const std::vector<WeightedAdapter>& adapters) {
    const MatrixF together = logits(*merged(adapters));
    EXPECT_LT(relative_difference(logits_beside(*base_, adapters), together),
              1e-5);
    EXPECT_GT(relative_difference(logits(*base_), together), 1e-3)
        << "the adapter does nothing";
  }

  std::string refusal(ErrorCode code,
                      const std::vector<WeightedAdapter>& adapters) {
    try {
      merged(adapters);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      return e.what();
    }
    ADD_FAILURE() << "was accepted";
    return "";
  }

  TinyShape shape_;
  TinyTensors tensors_;
  std::optional<MemoryCheckpoint> base_;
  Architecture arch_;
  TemporaryDirectory directory_;
  ThreadPool pool_{2};
  Rng rng_{11};
  std::vector<std::string> notes_;
};

}  // namespace llmpress
