#include "compress/core/linear_bytes.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <new>

#include "compress/core/error.h"
#include "tests/compress/core/packed_weight_examples.h"

namespace llmpress {
namespace {

TEST(LinearBytes, GiveEveryPackedTypeBackBitForBit) {
  for (const PackedWeight& weight : examples()) {
    LinearWeights linear{.weight = weight,
                         .bias = {1, -0.0f},
                         .input = {.kind = ActivationQuant::Kind::kInt,
                                   .bits = 4,
                                   .range = ActivationQuant::Range::kStatic,
                                   .symmetric = false,
                                   .static_scale = 0.3f,
                                   .static_zero = -7},
                         .input_hadamard = 8};
    const std::string bytes = to_bytes(linear);
    const LinearWeights back = linear_from_bytes(bytes);
    EXPECT_EQ(to_bytes(back), bytes) << describe(weight);
    EXPECT_EQ(back.weight.index(), weight.index());
    EXPECT_EQ(describe(back.weight), describe(weight));
    EXPECT_EQ(stored_bytes(back.weight), stored_bytes(weight));
    EXPECT_EQ(values_of(back.weight), values_of(weight)) << describe(weight);
    EXPECT_EQ(back.bias, linear.bias);
    EXPECT_EQ(back.input, linear.input);
    EXPECT_EQ(back.input_hadamard, 8u);
  }
}

// What lies between the fields of a struct does not get in.
TEST(LinearBytes, AreTheSameWhateverLayInMemoryBefore) {
  const auto made_in = [](int before) {
    alignas(ActivationQuant) std::byte room[sizeof(ActivationQuant)];
    std::memset(room, before, sizeof(room));
    auto* const input = new (room) ActivationQuant;
    LinearWeights linear{.weight = grouped_example()};
    // As a struct is copied: with what lies between its fields.
    std::memcpy(static_cast<void*>(&linear.input), input, sizeof(room));
    return to_bytes(linear);
  };
  EXPECT_EQ(made_in(0), made_in(0xff));
}

TEST(LinearBytes, RefuseWhatIsCutShortOrOfNoType) {
  const std::string bytes = to_bytes({.weight = grouped_example()});
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW((void)linear_from_bytes(bytes.substr(0, size)), Error) << size;
  }
  EXPECT_THROW((void)linear_from_bytes(bytes + '\0'), Error);
  std::string unknown = bytes;
  unknown[0] = 99;
  EXPECT_THROW((void)linear_from_bytes(unknown), Error);
}

}  // namespace
}  // namespace llmpress
