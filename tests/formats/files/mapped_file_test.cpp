#include "formats/files/mapped_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <numeric>
#include <string>

#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

constexpr std::size_t kPart = std::size_t{1} << 20, kParts = 32;

// Of mapped files, in this process; those of a file system in memory count
// apart.
std::size_t resident_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  std::size_t total = 0, kilobytes = 0;
  while (status >> word) {
    if (word != "RssFile:" && word != "RssShmem:") continue;
    status >> kilobytes;
    total += kilobytes * 1024;
  }
  return total;
}

std::size_t sum_of(std::span<const std::byte> bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), std::size_t{0},
                         [](std::size_t sum, std::byte b) {
                           return sum + static_cast<std::size_t>(b);
                         });
}

TEST(MappedFile, LetsThePagesOfAPartGoWithIt) {
  TemporaryDirectory directory;
  const auto path = directory.path() / "file";
  std::string text(kPart * kParts, 'x');
  for (std::size_t i = 0; i < text.size(); i += 4096) text[i] = 'y';
  std::ofstream(path, std::ios::binary) << text;

  const TensorBytes file = map_file(path);
  const std::size_t before = resident_bytes();
  std::size_t sum = 0;
  for (std::size_t p = 0; p < kParts; ++p) {
    // Begins and ends within pages.
    const std::size_t begin = p == 0 ? 0 : p * kPart - 100;
    const std::size_t end =
        p + 1 == kParts ? text.size() : (p + 1) * kPart - 100;
    const TensorBytes part = mapped_part(file, begin, end - begin);
    sum += sum_of(part.bytes);
    EXPECT_LT(resident_bytes(), before + 4 * kPart);
  }
  EXPECT_EQ(sum, sum_of(std::as_bytes(std::span(text))));
  // What is read again comes back.
  EXPECT_EQ(sum_of(file.bytes), sum);
  EXPECT_GT(resident_bytes(), before + kParts / 2 * kPart);
}

}  // namespace
}  // namespace llmpress
