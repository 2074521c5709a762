#include "formats/checkpoints/artifact_sink.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

std::unique_ptr<TensorReader> reader_of(
    const std::vector<NamedTensor>& tensors) {
  auto owner =
      std::make_shared<const std::string>(write_safetensors(tensors, {}));
  return read_safetensors({std::as_bytes(std::span(*owner)), owner}, "m");
}

TEST(TensorLedger, SeesEveryDifferenceFromWhatWasWritten) {
  const std::vector<NamedTensor> written{
      tensor_of<float>("a", DType::kF32, {2, 1}, {1, 2}),
      tensor_of<std::uint8_t>("b", DType::kU8, {1}, {3})};
  TensorLedger ledger;
  for (const NamedTensor& t : written) ledger.add(t);
  EXPECT_EQ(ledger.total_bytes(), 9u);
  EXPECT_NO_THROW(ledger.compare(*reader_of(written)));

  auto octet = written, shape = written, dtype = written, more = written;
  octet[0].bytes[7] ^= std::byte{1};
  shape[0].shape = {1, 2};
  dtype[1].dtype = DType::kI8;
  more.push_back(tensor_of<float>("c", DType::kF32, {1}, {1}));
  const std::vector<NamedTensor> fewer{written[0]};
  for (const auto& other : {octet, shape, dtype, more, fewer}) {
    EXPECT_THROW(ledger.compare(*reader_of(other)), Error);
  }
  EXPECT_THROW(ledger.add(written[0]), Error);
}

}  // namespace
}  // namespace llmpress
