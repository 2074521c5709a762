#include "formats/atomic_file.h"

#include <gtest/gtest.h>

#include <chrono>

#include "compress/core/error.h"
#include "formats/artifact_writer.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

std::ptrdiff_t entries(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), {});
}

TEST(AtomicFile, WritesWholeFilesAndLeavesNothingElse) {
  const TemporaryDirectory tmp;
  const fs::path path = tmp.path() / "a.txt";
  write_file_atomically(path, "first");
  write_file_atomically(path, std::string("second\0", 7));
  EXPECT_EQ(read_file(path), std::string("second\0", 7));
  write_file_atomically(path, "");
  EXPECT_EQ(read_file(path), "");
  EXPECT_EQ(entries(tmp.path()), 1);
  EXPECT_THROW(write_file_atomically(tmp.path() / "no/such/folder", "x"),
               Error);
  EXPECT_THROW(write_file_atomically(tmp.path(), "x"), Error);
  EXPECT_THROW(read_file(tmp.path()), Error);
  EXPECT_THROW(read_file(tmp.path() / "absent"), Error);
  EXPECT_EQ(entries(tmp.path()), 1);
}

TEST(AtomicFile, PartialFoldersOfOneTargetAreApart) {
  const TemporaryDirectory tmp;
  {
    const PartialDirectory a(tmp.path() / "out/"), b(tmp.path() / "out");
    EXPECT_NE(a.path(), b.path());
    EXPECT_EQ(a.path().parent_path(), tmp.path());
    EXPECT_TRUE(fs::is_directory(a.path()));
  }
  EXPECT_EQ(entries(tmp.path()), 0);
}

TEST(AtomicFile, RemovesWhatAKilledRunLeftButNotWhatIsInUse) {
  const TemporaryDirectory tmp;
  const fs::path abandoned = tmp.path() / "out.partial-1-0";
  const fs::path fresh = tmp.path() / "out.partial-1-1";
  const fs::path other = tmp.path() / "out2.partial-1-0";
  const PartialDirectory in_use(tmp.path() / "out");
  const auto long_ago =
      fs::file_time_type::clock::now() - std::chrono::hours(1);
  for (const fs::path& p : {abandoned, fresh, other}) {
    fs::create_directories(p);
    write_file_atomically(p / "spool", "x");
  }
  for (const fs::path& p : {abandoned, other, in_use.path()}) {
    fs::last_write_time(p, long_ago);
  }
  const PartialDirectory next(tmp.path() / "out");
  EXPECT_FALSE(fs::exists(abandoned));
  EXPECT_TRUE(fs::exists(fresh));
  EXPECT_TRUE(fs::exists(other));
  EXPECT_TRUE(fs::exists(in_use.path()));
}

TEST(AtomicFile, ReplacesAFolderThatIsNotEmpty) {
  const TemporaryDirectory tmp;
  for (const char* name : {"old", "new"}) {
    fs::create_directories(tmp.path() / name);
    write_file_atomically(tmp.path() / name / name, name);
  }
  replace_path(tmp.path() / "new", tmp.path() / "old/");
  EXPECT_EQ(read_file(tmp.path() / "old/new"), "new");
  EXPECT_FALSE(fs::exists(tmp.path() / "old/old"));
  EXPECT_EQ(entries(tmp.path()), 1);
}

TEST(AtomicFile, PutsTheOldFolderBackIfTheNewOneIsNotThere) {
  const TemporaryDirectory tmp;
  fs::create_directories(tmp.path() / "old");
  write_file_atomically(tmp.path() / "old/file", "kept");
  EXPECT_THROW(replace_path(tmp.path() / "absent", tmp.path() / "old"), Error);
  EXPECT_EQ(read_file(tmp.path() / "old/file"), "kept");
  EXPECT_EQ(entries(tmp.path()), 1);
}

TEST(Sha256, IsThatOfTheStandard) {
  EXPECT_EQ(sha256_hex("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

}  // namespace
}  // namespace llmpress
