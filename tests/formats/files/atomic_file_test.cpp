#include "formats/files/atomic_file.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/files/content_hash.h"
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

TEST(AtomicFile, RemovesWhatAKilledRunLeftButNotWhatIsInUseOrAnothers) {
  const TemporaryDirectory tmp;
  const PartialDirectory in_use(tmp.path() / "out");
  std::vector<fs::path> kept{in_use.path()};
  for (const char* name : {"out2.partial-1-0", "out.partial-1", "out.partial-a",
                           "out.partial-1-0x", "out.old-1"}) {
    kept.push_back(tmp.path() / name);
    fs::create_directories(kept.back());
  }
  fs::create_directories(tmp.path() / "out.partial-1-0/folder");
  write_file_atomically(tmp.path() / "out.partial-1-1", "x");
  const std::vector<std::string> notes = remove_leftovers(tmp.path() / "out");
  for (const fs::path& path : kept) EXPECT_TRUE(fs::exists(path)) << path;
  EXPECT_FALSE(fs::exists(tmp.path() / "out.partial-1-0"));
  EXPECT_FALSE(fs::exists(tmp.path() / "out.partial-1-1"));
  ASSERT_EQ(notes.size(), 2u);
  EXPECT_NE(notes[0].find("out.old-1"), std::string::npos);
  EXPECT_NE(notes[1].find(in_use.path().string()), std::string::npos);
}

TEST(AtomicFile, FollowsALinkAndWritesIntoADevice) {
  const TemporaryDirectory tmp;
  fs::create_symlink("target", tmp.path() / "link");
  write_file_atomically(tmp.path() / "link", "x");
  EXPECT_TRUE(fs::is_symlink(tmp.path() / "link"));
  EXPECT_EQ(read_file(tmp.path() / "target"), "x");
  write_file_atomically("/dev/null", "x");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
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

// Values of the reference (xxhsum -H2, 0.8.1).
TEST(ContentHash, IsTheReferences) {
  EXPECT_EQ(content_hash(std::string_view()),
            "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(content_hash(std::string_view("llmpress")),
            "54dfc95056b40378a7622223735a261c");
  const TemporaryDirectory tmp;
  std::string text((std::size_t{1} << 24) + 5, 'a');
  write_file_atomically(tmp.path() / "f", text);
  EXPECT_EQ(content_hash_of_file(tmp.path() / "f"),
            content_hash(std::string_view(text)));
  text[1 << 24] ^= 1;
  EXPECT_NE(content_hash_of_file(tmp.path() / "f"),
            content_hash(std::string_view(text)));
}

TEST(Sha256OfParts, AreThoseOfThePartsAlone) {
  const TemporaryDirectory tmp;
  ThreadPool pool(2);
  write_file_atomically(tmp.path() / "f", "abcdefg");
  write_file_atomically(tmp.path() / "empty", "");
  EXPECT_EQ(sha256_of_parts(tmp.path() / "f", 3, pool),
            (std::vector<std::string>{sha256_hex("abc"), sha256_hex("def"),
                                      sha256_hex("g")}));
  EXPECT_EQ(sha256_of_parts(tmp.path() / "f", 7, pool),
            std::vector<std::string>{sha256_of_file(tmp.path() / "f")});
  EXPECT_EQ(sha256_of_parts(tmp.path() / "empty", 3, pool),
            std::vector<std::string>{sha256_hex("")});
}

}  // namespace
}  // namespace llmpress
