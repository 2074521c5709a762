#include "compress/model/tensor_places.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tests/compress/model/tiny_model.h"

namespace llmpress {
namespace {

// A tied model whose head is stored too: its embedding plus `change` in the
// first value, in `dtype`.
Architecture with_stored_head(DType dtype, float change) {
  const TinyShape shape{.tied = true};
  TinyTensors tensors = tiny_tensors(shape, 1);
  MatrixF& embedding = tensors.at("model.embed_tokens.weight");
  // Powers of two, which 16 bits hold.
  for (std::size_t i = 0; i < embedding.size(); ++i) {
    embedding.data()[i] = static_cast<float>(1u << (i % 7));
  }
  MatrixF head = embedding;
  head(0, 0) += change;
  std::vector<NamedTensor> named = named_tensors(tensors);
  NamedTensor stored{"lm_head.weight", dtype, {head.rows(), head.cols()}};
  for (const float value : head.data()) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    // bfloat16 is the upper half of a float.
    for (std::size_t b = dtype == DType::kBF16 ? 2 : 0; b < 4; ++b) {
      stored.bytes.push_back(static_cast<std::byte>(bits >> (8 * b)));
    }
  }
  named.push_back(std::move(stored));
  std::ranges::sort(named, {}, &NamedTensor::name);
  return read_architecture(
      MemoryCheckpoint(std::move(named), config_json(shape)));
}

TEST(TensorPlaces, TieAHeadThatHoldsTheEmbeddingsValuesInAnyWidth) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    EXPECT_TRUE(with_stored_head(dtype, 0).tied_head);
    EXPECT_FALSE(with_stored_head(dtype, 1).tied_head);
  }
}

}  // namespace
}  // namespace llmpress
