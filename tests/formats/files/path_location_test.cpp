#include "formats/files/path_location.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

class Location : public testing::Test {
 protected:
  Location() {
    fs::create_directories(at("model/sub"));
    write_file_atomically(at("model/file"), "x");
    fs::create_directory_symlink("model", at("link"));
    fs::create_directory_symlink("absent/below", at("dangling"));
    fs::create_hard_link(at("model/file"), at("hard"));
  }
  fs::path at(const std::string& name) const { return tmp_.path() / name; }
  PathLocation of(const std::string& name) const {
    return PathLocation(at(name));
  }

  TemporaryDirectory tmp_;
};

TEST_F(Location, NamesOfOnePlaceAreOne) {
  for (const char* name : {"model/", "model/.", "model/sub/..", "link", "link/",
                           "absent/../model", "./model", "link/../model"}) {
    EXPECT_TRUE(of(name).is(of("model"))) << name;
    EXPECT_EQ(resolve_path(at(name)), at("model")) << name;
  }
  EXPECT_TRUE(of("hard").is(of("link/file")));
  EXPECT_TRUE(of("new/").is(of("new")));
  EXPECT_TRUE(of("dangling").is(of("absent/below")));
  EXPECT_FALSE(of("model2").is(of("model")));
  EXPECT_FALSE(of("model/sub").is(of("model")));
}

TEST_F(Location, KnowsWhatLiesWhereThoughItIsNotThereYet) {
  for (const char* name :
       {"model/new", "link/new/deep", "model", "link/file"}) {
    EXPECT_TRUE(of(name).is_or_lies_in(of("model"))) << name;
  }
  EXPECT_TRUE(of("absent/below/x").is_or_lies_in(of("dangling")));
  EXPECT_TRUE(of("model").is_or_lies_in(of("")));
  EXPECT_FALSE(of("model").is_or_lies_in(of("model/sub")));
  EXPECT_FALSE(of("absent/belowx").is_or_lies_in(of("dangling")));
  EXPECT_FALSE(of("modelx").is_or_lies_in(of("model")));
}

TEST_F(Location, LinksThatLeadInACircleAreAnError) {
  fs::create_symlink("b", at("a"));
  fs::create_symlink("a", at("b"));
  EXPECT_THROW(resolve_path(at("a")), Error);
}

}  // namespace
}  // namespace llmpress
