// Adapters on Linears that have no tensor [out, in] of their own: transposed
// ones, with and without the class's prefix, and experts in stacks.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "compress/model/block_weights.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/adapters/adapter_merge.h"
#include "compress/surgery/checkpoint_overlay.h"
#include "tests/compress/pipeline/adapters/adapter_files.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

MatrixF weight_of(const Checkpoint& checkpoint, const Architecture& arch,
                  std::size_t linear) {
  return dequantize(read_block_linear(checkpoint, arch, 0, linear).weight);
}

std::size_t index_of(const Architecture& arch, const std::string& end) {
  const auto& linears = arch.block(0).linears;
  std::size_t l = 0;
  while (!linears.at(l).name.ends_with(end)) ++l;
  return l;
}

class AdapterFamilies : public testing::TestWithParam<const char*> {};

TEST_P(AdapterFamilies, ChangeTheWeightWhereverItLies) {
  const std::string golden = GetParam();
  const bool experts = golden == "gpt_oss";
  const auto base = open_checkpoint(std::filesystem::path(source_dir()) /
                                    "tests/compress/model/goldens" / golden);
  const Architecture arch = read_architecture(*base);
  const std::size_t l =
      index_of(arch, experts ? "experts.1.down_proj" : "attn.c_attn");
  const std::string name = arch.linear_name(0, l);
  const MatrixF before = weight_of(*base, arch, l);
  const std::size_t other = l + 1;
  const MatrixF kept = weight_of(*base, arch, other);

  Rng rng(5);
  const LoraDelta delta{.A = random_matrix(2, before.cols(), rng),
                        .B = random_matrix(before.rows(), 2, rng),
                        .scaling = 2.0};
  TemporaryDirectory directory;
  ThreadPool pool(2);
  const auto path =
      AdapterFiles(R"("r": 2, "lora_alpha": 4)")
          .linear(experts ? name : "transformer.h.0.attn.c_attn", delta)
          .write(directory.path() / "a");
  AdapterMerge merge = merge_adapters(*base, arch, {{path, 1}}, {}, pool);
  merge.edits.dtype = DType::kF32;
  const auto merged = overlay(*base, std::move(merge.edits));

  const MatrixF after = weight_of(*merged, arch, l);
  for (std::size_t o = 0; o < before.rows(); ++o) {
    for (std::size_t i = 0; i < before.cols(); ++i) {
      const float change =
          2 * (delta.B(o, 0) * delta.A(0, i) + delta.B(o, 1) * delta.A(1, i));
      EXPECT_NEAR(after(o, i), before(o, i) + change, 1e-5);
    }
  }
  EXPECT_TRUE(
      std::ranges::equal(weight_of(*merged, arch, other).data(), kept.data()));
}

INSTANTIATE_TEST_SUITE_P(Goldens, AdapterFamilies,
                         testing::Values("gpt2", "gpt2_2", "gpt_oss"));

}  // namespace
}  // namespace llmpress
