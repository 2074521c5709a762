#include "formats/gguf/imatrix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/gguf/importance_file.h"
#include "tests/formats/containers/gguf_example.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

using testing::octets_of_hex;

std::span<const std::byte> octets(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// One matrix, and a stack of two whose second expert saw no token.
Imatrix example() {
  Imatrix imatrix{.datasets = {"text.txt"}, .chunks = 3, .chunk_size = 8};
  imatrix.entries["blk.0.attn_q.weight"] = {.sums = {24, 48}, .counts = {24}};
  imatrix.entries["blk.0.ffn_up_exps.weight"] = {.sums = {5, 10, 0, 0},
                                                 .counts = {5, 0}};
  return imatrix;
}

std::string failure(const std::string& file) {
  try {
    (void)parse_imatrix(octets(file), "im");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Imatrix, IsReadAsItWasWrittenInBothForms) {
  const Imatrix gguf = parse_imatrix(
      octets(imatrix_octets(example(), ImatrixForm::kGguf)), "im");
  EXPECT_EQ(gguf.datasets, std::vector<std::string>{"text.txt"});
  EXPECT_EQ(gguf.chunks, 3u);
  EXPECT_EQ(gguf.chunk_size, 8u);
  const Imatrix legacy = parse_imatrix(
      octets(imatrix_octets(example(), ImatrixForm::kLegacy)), "im");
  EXPECT_EQ(legacy.chunks, 3u);
  using Means = std::vector<float>;
  for (const Imatrix& read : {gguf, legacy}) {
    ASSERT_EQ(read.entries.size(), 2u);
    const ImatrixEntry& q = read.entries.at("blk.0.attn_q.weight");
    EXPECT_EQ(mean_squares(q, 0, 2, "q"), (Means{1, 2}));
    const ImatrixEntry& up = read.entries.at("blk.0.ffn_up_exps.weight");
    EXPECT_EQ(mean_squares(up, 0, 2, "up"), (Means{1, 2}));
    EXPECT_EQ(mean_squares(up, 1, 2, "up"), (Means{1, 1}));
    EXPECT_THROW((void)mean_squares(up, 2, 2, "up"), Error);
    EXPECT_THROW((void)mean_squares(up, 0, 3, "up"), Error);
    EXPECT_THROW((void)mean_squares(up, 0, 0, "up"), Error);
  }
}

// One entry "a", 4 calls, values 8 and 2; the same text twice, with and without
// what follows the entries.
const std::string kEntry =
    "01000000"
    "0100000061"
    "04000000"
    "02000000"
    "0000004100000040";

TEST(Imatrix, ReadsTheOldFormOctetByOctet) {
  for (const std::string& tail : {std::string(), std::string("04000000"),
                                  std::string("040000000300000078797a")}) {
    const Imatrix read =
        parse_imatrix(octets(octets_of_hex(kEntry + tail)), "");
    EXPECT_EQ(mean_squares(read.entries.at("a"), 0, 2, "a"),
              (std::vector<float>{2, 0.5f}));
    EXPECT_EQ(read.chunks, tail.empty() ? 0u : 4u);
    EXPECT_EQ(read.datasets.size(), tail.size() > 8 ? 1u : 0u);
  }
}

TEST(Imatrix, RefusesFilesThatEndTooSoonOrSayNonsense) {
  const std::string whole = octets_of_hex(kEntry + "040000000300000078797a");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const bool complete = size == octets_of_hex(kEntry).size() || size == 29;
    EXPECT_EQ(failure(whole.substr(0, size)).empty(), complete) << size;
  }
  EXPECT_TRUE(has(failure(whole.substr(0, 20)), "'a'"));
  EXPECT_TRUE(has(failure(octets_of_hex("00000000")), "number of entries"));
  EXPECT_TRUE(has(failure(octets_of_hex("01000000ffffffff")), "length"));
  EXPECT_TRUE(has(failure(octets_of_hex("01000000ffffff7f")), "ends within"));
  EXPECT_TRUE(has(failure(octets_of_hex("0100000001000000610400000001000000"
                                        "0000c0ff")),
                  "finite"));
  EXPECT_TRUE(has(failure(octets_of_hex("0100000001000000610400000001000000"
                                        "000080bf")),
                  "at least 0"));
  EXPECT_TRUE(has(failure(testing::reference_gguf()), "no importance matrix"));
}

TEST(Imatrix, RefusesAGgufFileWithSumsWithoutCounts) {
  std::string file = imatrix_octets(example(), ImatrixForm::kGguf);
  const std::size_t at = file.find("attn_q.weight.counts");
  file[at] = 'x';
  EXPECT_TRUE(has(failure(file), "without"));
}

TEST(Imatrix, TakesItsFormFromTheNameAndKnowsItsOwn) {
  EXPECT_EQ(imatrix_form_of("a/b.gguf"), ImatrixForm::kGguf);
  EXPECT_EQ(imatrix_form_of("b.dat"), ImatrixForm::kLegacy);
  EXPECT_THROW((void)imatrix_form_of("b.bin"), Error);
  const TemporaryDirectory folder;
  const auto written = [&](const std::string& text) {
    write_file_atomically(folder.path() / "f", text);
    return is_our_imatrix(folder.path() / "f");
  };
  EXPECT_TRUE(written(imatrix_octets(example(), ImatrixForm::kGguf)));
  EXPECT_TRUE(written(imatrix_octets(example(), ImatrixForm::kLegacy)));
  EXPECT_FALSE(written(testing::reference_gguf()));
  EXPECT_FALSE(written(octets_of_hex(kEntry)));
  EXPECT_FALSE(written("notes"));
}

TEST(ImportanceFile, FindsLinearsByTheirNamesInGgufOrTheirOwn) {
  const ImatrixNames mixtral(R"({"model_type": "mixtral"})", "config.json");
  const ImatrixPlace place =
      mixtral.place_of("model.layers.3.block_sparse_moe.experts.5.w1");
  EXPECT_EQ(place.name, "blk.3.ffn_gate_exps.weight");
  EXPECT_EQ(place.index, 5u);
  EXPECT_TRUE(place.stacked);
  const ImatrixNames other(R"({"model_type": "mamba"})", "config.json");
  EXPECT_EQ(other.place_of("backbone.x").name, "backbone.x.weight");

  const TemporaryDirectory folder;
  const auto path = folder.path() / "im.gguf";
  write_file_atomically(path, imatrix_octets(example(), ImatrixForm::kGguf));
  const ImportanceFile file(
      path, ImatrixNames(R"({"model_type": "llama"})", "config.json"));
  EXPECT_EQ(file.of("model.layers.0.self_attn.q_proj", 2),
            (std::vector<float>{1, 2}));
  try {
    (void)file.of("model.layers.1.self_attn.q_proj", 2);
    FAIL();
  } catch (const Error& e) {
    EXPECT_TRUE(has(e.what(), "blk.1.attn_q.weight")) << e.what();
    EXPECT_TRUE(has(e.what(), "model.layers.1.self_attn.q_proj"));
  }
}

}  // namespace
}  // namespace llmpress
