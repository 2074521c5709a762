#include "formats/containers/zip_archive.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "tests/formats/containers/torch_writer.h"

namespace llmpress {
namespace {

using namespace testing;

std::vector<ZipMember> members(const std::string& file) {
  return zip_members(std::as_bytes(std::span(file)), "z");
}

std::string message(const std::string& file) {
  try {
    (void)members(file);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(ZipArchive, FindsMembersInEitherWidth) {
  for (const bool wide : {false, true}) {
    const std::string file =
        zip_archive({{"m/b", "second"}, {"m/a", "first"}, {"m/c", ""}}, wide);
    const auto all = members(file);
    ASSERT_EQ(all.size(), 3u);
    EXPECT_EQ(all[0].name, "m/a");
    EXPECT_EQ(file.substr(all[0].begin, all[0].size), "first");
    EXPECT_EQ(all[0].begin % 64, 0u);
    EXPECT_EQ(file.substr(all[1].begin, all[1].size), "second");
    EXPECT_EQ(find_member(all, "m/c")->size, 0u);
    EXPECT_EQ(find_member(all, "m/d"), nullptr);
    EXPECT_TRUE(is_zip(std::as_bytes(std::span(file))));
  }
}

TEST(ZipArchive, FindsItsEndBehindAComment) {
  std::string file = zip_archive({{"a", "x"}});
  file.replace(file.size() - 2, 2, octets(std::uint16_t{5}));
  EXPECT_EQ(members(file + "hello").size(), 1u);
  EXPECT_NE(message(file + "hell").find("is missing"), std::string::npos);
}

TEST(ZipArchive, RefusesEveryCut) {
  for (const bool wide : {false, true}) {
    const std::string file = zip_archive({{"a", "xy"}, {"b", "z"}}, wide);
    for (std::size_t size = 0; size < file.size(); ++size) {
      EXPECT_NE(message(file.substr(0, size)), "no error") << size;
    }
  }
}

// Wherever one octet changes, members lie in the file or an error says not.
TEST(ZipArchive, BelievesNoOctet) {
  for (const bool wide : {false, true}) {
    const std::string whole = zip_archive({{"a", "xy"}, {"b", "z"}}, wide);
    for (std::size_t at = 0; at < whole.size(); ++at) {
      for (const int value : {0, 1, 0x7f, 0x80, 0xff}) {
        std::string file = whole;
        file[at] = static_cast<char>(value);
        try {
          for (const ZipMember& m : members(file)) {
            ASSERT_LE(m.begin, file.size());
            ASSERT_LE(m.size, file.size() - m.begin);
          }
        } catch (const Error&) {
        }
      }
    }
  }
}

TEST(ZipArchive, NamesWhatItDoesNotRead) {
  EXPECT_NE(message(zip_archive({{"a/data", "x", 8}}))
                .find("member 'a/data' is compressed"),
            std::string::npos);
  EXPECT_NE(message(zip_archive({{"a", "x"}, {"a", "y"}})).find("'a' twice"),
            std::string::npos);
}

}  // namespace
}  // namespace llmpress
