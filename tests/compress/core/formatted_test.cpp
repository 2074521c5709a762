#include "compress/core/formatted.h"

#include <gtest/gtest.h>

#include <limits>

namespace llmpress {
namespace {

TEST(Formatted, FillsInValuesOfEveryKind) {
  EXPECT_EQ(formatted("{}, {}, {}, {}", "a", std::string("b"),
                      std::string_view("c"), std::filesystem::path("d/e")),
            "a, b, c, d/e");
  EXPECT_EQ(formatted("{} {} {} {}", -3, std::size_t{7}, 'x', true),
            "-3 7 x 1");
  EXPECT_EQ(formatted("{}", std::numeric_limits<std::uint64_t>::max()),
            "18446744073709551615");
  EXPECT_EQ(formatted("{:.2f} of {:.1e}", 1.005f, 12345.0), "1.00 of 1.2e+04");
}

TEST(Formatted, KeepsBracesAndWhatValuesSay) {
  EXPECT_EQ(formatted("{{{}}}", "{} {0}"), "{{} {0}}");
  EXPECT_EQ(formatted("plain"), "plain");
}

TEST(Formatted, FailsWithItsCodeAndText) {
  try {
    fail(ErrorCode::kCorruptFile, "{}: {} bytes", "a.safetensors", 5);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruptFile);
    EXPECT_STREQ(e.what(), "a.safetensors: 5 bytes");
  }
}

TEST(Formatted, NumbersOfReports) {
  EXPECT_EQ(fixed(4.10699, 4), "4.1070");
  EXPECT_EQ(scientific(0), "0");
  EXPECT_EQ(scientific(0.00123), "1.23e-03");
  EXPECT_EQ(megabytes(14'690'000), "14.69 MB");
}

}  // namespace
}  // namespace llmpress
