// `--isa avx2`: the same bytes on every x86-64 processor with AVX2. The hash is
// that of an artifact made once; products come from OpenBLAS and powers and
// exponentials from the C library, so that it belongs to a version of both.
#include <gnu/libc-version.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "compress/kernels/cpu.h"
#include "formats/checkpoints/artifact_writer.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

extern "C" char* openblas_get_config();

namespace llmpress {
namespace {

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LLMPRESS_SANITIZED 1
#endif
#endif
#ifdef LLMPRESS_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

namespace fs = std::filesystem;

constexpr const char* kOpenBlas = "OpenBLAS 0.3.21";
constexpr const char* kLibc = "2.36";
constexpr const char* kWeightsSha256 =
    "52a35e63b15447944f24216c31c2fd194f3bf10f575eb1410d665c4a950c89bf";

// AWQ's scales come out of pow(), GPTQ's codes of long chains of products.
constexpr const char* kRecipe = R"(
stages:
  - smooth: {method: awq, weights: {bits: 3, group_size: 128}, ratios: 4}
  - quantize:
      {method: gptq, act_order: true, weights: {bits: 3, group_size: 128}}
)";

class Avx2Bytes : public testing::Test {
 protected:
  void SetUp() override {
    if (available_isas().size() < 2) GTEST_SKIP() << "no AVX2 here";
    // Five runs that a sanitizer makes take minutes each, and that find no
    // other code than the tests of the methods do.
    if (kSanitized) GTEST_SKIP() << "built with a sanitizer";
  }

  // SHA-256 of the weights that a run with these options writes.
  std::string weights_of(const std::string& environment,
                         const std::string& options,
                         const std::string& keys = "") {
    const std::string root = source_dir();
    const fs::path recipe = directory_.path() / "recipe.yaml";
    write_file_atomically(recipe,
                          "calibration: {text: " + root +
                              "/models/text/calibration.txt, samples: 4, "
                              "sequence_length: 64}\n" +
                              kRecipe + keys);
    const fs::path output =
        directory_.path() / ("model-" + std::to_string(runs_++));
    const std::string command = environment + " " + program() + " run " +
                                recipe.string() + " --model " + root +
                                "/models/tinystories-3.7m --output " +
                                output.string() + " --quiet " + options + " >" +
                                (directory_.path() / "log").string() + " 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0)
        << read_file(directory_.path() / "log");
    return sha256_of_file(output / "model.safetensors");
  }

  TemporaryDirectory directory_;
  int runs_ = 0;
};

// OPENBLAS_CORETYPE stands for a processor for which OpenBLAS picks others.
TEST_F(Avx2Bytes, DependNeitherOnThreadsNorOnWhatOpenBlasPicks) {
  const std::string one = weights_of("", "--isa avx2 --threads 1");
  EXPECT_EQ(weights_of("OPENBLAS_CORETYPE=Prescott", "--isa avx2 --threads 3"),
            one);
  EXPECT_EQ(weights_of("OPENBLAS_CORETYPE=Nehalem", "", "isa: avx2\n"), one)
      << "the recipe's key";
  EXPECT_NE(weights_of("OPENBLAS_CORETYPE=Prescott", ""), one)
      << "the comparison sees nothing";
}

TEST_F(Avx2Bytes, AreThoseOfTheCommittedHash) {
  if (!std::string(openblas_get_config()).starts_with(kOpenBlas) ||
      !std::string(gnu_get_libc_version()).starts_with(kLibc)) {
    GTEST_SKIP() << "the hash is of " << kOpenBlas << " and glibc " << kLibc
                 << ", not of " << openblas_get_config() << " and "
                 << gnu_get_libc_version();
  }
  EXPECT_EQ(weights_of("", "--isa avx2"), kWeightsSha256);
}

}  // namespace
}  // namespace llmpress
