// Stacks of experts in MXFP4, on the small gpt-oss among the goldens; its logits
// are families_test's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "compress/model/block_weights.h"
#include "compress/model/model_check.h"
#include "compress/model/tensor_places.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/safetensors.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

const std::string kStack = "model.layers.1.mlp.experts.gate_up_proj";

fs::path golden() {
  return fs::path(source_dir()) / "tests/compress/model/goldens/gpt_oss_mxfp4";
}

std::size_t index_of(const Architecture& arch, const std::string& name) {
  const auto& linears = arch.block(1).linears;
  const auto at = std::ranges::find(linears, name, &LinearSpec::name);
  EXPECT_NE(at, linears.end()) << name;
  return static_cast<std::size_t>(at - linears.begin());
}

PackedWeight weight_of(const Checkpoint& checkpoint, const std::string& name) {
  const Architecture arch = read_architecture(checkpoint);
  return read_block_linear(checkpoint, arch, 1, index_of(arch, name)).weight;
}

TEST(Mxfp4Stack, GivesAnExpertsRowsAsTheyArePacked) {
  const auto checkpoint = open_checkpoint(golden());
  EXPECT_EQ(checkpoint->format(), "mxfp4");
  const auto octets = [&](const std::string& name) {
    const TensorReader& reader = checkpoint->tensors();
    return reader.read(reader.require(name)).bytes;
  };
  const auto blocks = octets(kStack + "_blocks");  // [3, 64, 1, 16]
  const auto scales = octets(kStack + "_scales");  // [3, 64, 1]
  constexpr float kE2m1[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (const bool up : {false, true}) {
    const PackedWeight weight = weight_of(
        *checkpoint, up ? "mlp.experts.2.up_proj" : "mlp.experts.2.gate_proj");
    EXPECT_EQ(describe(weight), "mxfp4");
    const MatrixF W = dequantize(weight);
    ASSERT_EQ(W.rows(), 32u);
    ASSERT_EQ(W.cols(), 32u);
    for (std::size_t o = 0; o < 32; ++o) {
      const std::size_t row = 2 * 64 + 2 * o + (up ? 1 : 0);  // gate, up, gate
      const float scale = std::ldexp(1.0f, static_cast<int>(scales[row]) - 127);
      for (std::size_t i = 0; i < 32; ++i) {
        const auto octet = static_cast<unsigned>(blocks[row * 16 + i / 2]);
        const unsigned code = i % 2 == 0 ? octet & 15 : octet >> 4;
        const float magnitude = kE2m1[code & 7] * scale;
        ASSERT_EQ(W(o, i), code < 8 ? magnitude : -magnitude) << o << " " << i;
      }
    }
  }
}

class DamagedMxfp4Stack : public testing::Test {
 protected:
  // The golden after `change` of one tensor.
  std::string refusal(const std::string& name,
                      const std::function<void(NamedTensor&)>& change) {
    const auto reader = open_tensors(golden());
    std::vector<NamedTensor> tensors;
    for (const TensorInfo& info : reader->tensors()) {
      const TensorBytes data = reader->read(info);
      tensors.push_back({.name = info.name,
                         .dtype = info.dtype,
                         .shape = info.shape,
                         .bytes = {data.bytes.begin(), data.bytes.end()}});
      if (info.name == name) change(tensors.back());
    }
    const fs::path& folder = directory_.path();
    write_file_atomically(folder / "model.safetensors",
                          write_safetensors(tensors, {{"format", "pt"}}));
    write_file_atomically(folder / "config.json",
                          read_file(golden() / "config.json"));
    try {
      const auto checkpoint = open_checkpoint(folder);
      check_model(*checkpoint, read_architecture(*checkpoint));
      (void)weight_of(*checkpoint, "mlp.experts.0.gate_proj");
    } catch (const Error& e) {
      return e.what();
    }
    return {};
  }

  TemporaryDirectory directory_;
};

TEST_F(DamagedMxfp4Stack, IsRefusedByName) {
  EXPECT_EQ(refusal("model.norm.weight", [](NamedTensor&) {}), "");
  const auto expect_named = [](const std::string& said,
                               const std::string& name) {
    EXPECT_NE(said.find(name), std::string::npos) << said;
  };
  expect_named(refusal(kStack + "_scales",
                       [](NamedTensor& t) { t.bytes[0] = std::byte{255}; }),
               kStack + "_blocks");
  expect_named(refusal(kStack + "_scales",
                       [](NamedTensor& t) {
                         t.shape = {3, 32, 2};
                       }),
               kStack + "_scales");
  expect_named(refusal(kStack + "_blocks",
                       [](NamedTensor& t) {
                         t.shape = {3, 64, 2, 8};
                       }),
               kStack + "_blocks");
  expect_named(refusal(kStack + "_blocks",
                       [](NamedTensor& t) { t.name += "_elsewhere"; }),
               "experts.0.gate_proj");
}

}  // namespace
}  // namespace llmpress
