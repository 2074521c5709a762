#include "compress/kernels/laid_out_linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "compress/kernels/linear_kernel.h"
#include "tests/compress/kernels/all_weights.h"

namespace llmpress {
namespace {

using testing::all_weights;
using testing::NamedWeight;
using testing::random_matrix;
using Kind = ActivationQuant::Kind;

// Octets where a mapped file would have them.
struct Mapped {
  explicit Mapped(std::span<const std::byte> octets)
      : buffer(std::make_shared<AlignedBuffer>(octets.size())) {
    std::ranges::copy(octets, buffer->data());
  }
  LaidOutLinear read() const {
    return from_octets({buffer->data(), buffer->size()}, buffer, "test");
  }
  std::shared_ptr<AlignedBuffer> buffer;
};

std::vector<float> run(const LinearKernel& kernel, ConstMatrixView X) {
  ThreadPool pool(1);
  MatrixF Y(X.rows(), kernel.out());
  kernel.run(X, Y.view(), pool);
  return {Y.data().begin(), Y.data().end()};
}

// Of one Linear: a bias, and activations of each kind.
std::vector<LinearWeights> forms_of(const PackedWeight& weight, Rng& rng) {
  LinearWeights plain{.weight = weight};
  plain.bias = testing::random_scales(rows_of(weight), DType::kF32, rng);
  LinearWeights rounded{.weight = weight};
  rounded.input = {.kind = Kind::kInt, .symmetric = rng.below(2) == 0};
  if (cols_of(weight) % 8 == 0) rounded.input_hadamard = 8;
  return {plain, rounded};
}

std::vector<Isa> fast_isas() {
  std::vector<Isa> isas = available_isas();
  isas.erase(isas.begin());
  return isas;
}

TEST(LaidOutLinear, RunsFromItsOctetsAsFromTheWeights) {
  Rng rng(1);
  std::size_t laid_out = 0;
  for (const auto s :
       {testing::Shape{17, 1}, {53, 71}, {64, 256}, {67, 96}, {130, 300}}) {
    const MatrixF X = random_matrix(5, s.in, rng);
    for (const NamedWeight& w : all_weights(s, rng)) {
      for (const LinearWeights& linear : forms_of(w.weight, rng)) {
        const auto before = lay_out(linear);
        if (!before) continue;
        ++laid_out;
        const std::vector<std::byte> octets = to_octets(*before);
        ASSERT_EQ(octets.size() % kVectorBytes, 0u);
        const Mapped mapped(octets);
        for (const Isa isa : fast_isas()) {
          for (const InputPrecision inputs :
               {InputPrecision::kExact, InputPrecision::kInt8}) {
            const auto own = make_linear_kernel(linear, isa, inputs);
            const auto read = make_linear_kernel(mapped.read(), isa, inputs);
            ASSERT_EQ(read->name(), own->name());
            ASSERT_EQ(read->bytes(), own->bytes()) << w.name;
            ASSERT_EQ(read->integer_activations(), own->integer_activations());
            for (const std::size_t rows : {std::size_t{1}, X.rows()}) {
              const auto x = X.view().rows_slice(0, rows);
              ASSERT_EQ(run(*read, x), run(*own, x)) << w.name;
            }
          }
        }
      }
    }
  }
  EXPECT_GT(laid_out, 400u);
}

TEST(LaidOutLinear, OutlivesWhoMappedIt) {
  Rng rng(2);
  const LinearWeights linear{
      .weight = testing::random_int8(64, 64, true, true, 3, rng)};
  const MatrixF X = random_matrix(2, 64, rng);
  std::unique_ptr<LinearKernel> read;
  {
    const Mapped mapped(to_octets(*lay_out(linear)));
    read =
        make_linear_kernel(mapped.read(), best_isa(), InputPrecision::kExact);
  }
  EXPECT_EQ(run(*read, X.view()),
            run(*make_linear_kernel(linear, best_isa()), X.view()));
}

// Whatever stands in the octets, they are refused or can be run: what the
// sanitizers see of it decides.
TEST(LaidOutLinear, DamagedOctetsAreRefusedOrRun) {
  Rng rng(3);
  std::size_t refused = 0, run_anyhow = 0;
  const testing::Shape s{21, 72};
  const MatrixF X = random_matrix(5, s.in, rng);
  const auto try_to_run = [&](const Mapped& damaged, const std::string& what) {
    try {
      LaidOutLinear linear = damaged.read();
      // Numbers that are not finite are refused when activations are rounded.
      try {
        (void)run(*make_linear_kernel(std::move(linear), best_isa(),
                                      InputPrecision::kInt8),
                  X.view());
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kNumeric) << what;
      }
      ++run_anyhow;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptFile) << what;
      EXPECT_TRUE(std::string(error.what()).starts_with("test: ")) << what;
      ++refused;
    }
  };
  for (const NamedWeight& w : all_weights(s, rng)) {
    const auto before = lay_out(forms_of(w.weight, rng)[rng.below(2)]);
    if (!before) continue;
    const std::vector<std::byte> octets = to_octets(*before);
    for (int i = 0; i < 200; ++i) {
      Mapped damaged(octets);
      // Fields come first: half of the damage is there.
      const std::size_t at =
          rng.below(i % 2 == 0 ? std::min<std::size_t>(octets.size(), 320)
                               : octets.size());
      damaged.buffer->data()[at] ^= static_cast<std::byte>(1 + rng.below(255));
      try_to_run(damaged, w.name);
    }
    for (std::size_t size = 0; size < octets.size(); size += 64) {
      try_to_run(Mapped(std::span(octets).first(size)), w.name);
    }
  }
  EXPECT_GT(refused, 1000u);
  EXPECT_GT(run_anyhow, 1000u);
}

}  // namespace
}  // namespace llmpress
