#include "formats/containers/sharded.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "compress/core/error.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

void put(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

std::string shard_with(std::initializer_list<const char*> names) {
  std::vector<NamedTensor> tensors;
  for (const char* name : names) {
    tensors.push_back(tensor_of<float>(name, DType::kF32, {1}, {7}));
  }
  return write_safetensors(tensors, {{"format", "pt"}});
}

class Sharded : public testing::Test {
 protected:
  Sharded() {
    put(folder() / "s1.safetensors", shard_with({"a", "c"}));
    put(folder() / "s2.safetensors", shard_with({"b", "extra"}));
  }
  const fs::path& folder() const { return tmp_.path(); }
  std::unique_ptr<TensorReader> open_with(const std::string& index) const {
    put(folder() / kIndexFileName, index);
    return open_tensors(folder());
  }

 private:
  TemporaryDirectory tmp_{};
};

const std::string kIndex =
    R"({"metadata":{"total_size":16,"total_parameters":4},"weight_map":)"
    R"({"a":"s1.safetensors","b":"s2.safetensors","c":"s1.safetensors"}})";

TEST_F(Sharded, JoinsShardsByNameWithTensorsThatTheIndexForgot) {
  const auto reader = open_with(kIndex);
  std::vector<std::string> names;
  for (const TensorInfo& t : reader->tensors()) names.push_back(t.name);
  EXPECT_EQ(names, (std::vector<std::string>{"a", "b", "c", "extra"}));
  EXPECT_EQ(reader->require("b").file, "s2.safetensors");
  EXPECT_EQ(read_matrix(*reader, "extra")(0, 0), 7.0f);
  EXPECT_EQ(reader->metadata().at("format"), "pt");
}

TEST_F(Sharded, RefusesBrokenIndices) {
  put(folder() / "s3.safetensors", shard_with({"d", "extra"}));
  for (const char* index : {
           "",
           "{",
           "[]",
           "{}",
           R"({"weight_map":[]})",
           R"({"weight_map":{"a":1}})",
           R"({"weight_map":{"a":"none.safetensors"}})",
           R"({"weight_map":{"a":"s2.safetensors"}})",
           R"({"weight_map":{"a":"../s1.safetensors"}})",
           R"({"weight_map":{"a":"/etc/passwd"}})",
           R"({"weight_map":{"a":".."}})",
           R"({"weight_map":{"a":""}})",
           R"({"weight_map":{"a":"s1.safetensors","a":"s1.safetensors"}})",
           // "extra" lies in two shards and the index does not say which.
           R"({"weight_map":{"b":"s2.safetensors","d":"s3.safetensors"}})",
       }) {
    EXPECT_THROW(open_with(index), Error) << index;
  }
  EXPECT_NO_THROW(
      open_with(R"({"weight_map":{"b":"s2.safetensors",)"
                R"("d":"s3.safetensors","extra":"s3.safetensors"}})"));
}

TEST_F(Sharded, SurvivesTruncatedAndRandomIndices) {
  for (std::size_t n = 0; n < kIndex.size(); ++n) {
    EXPECT_THROW(open_with(kIndex.substr(0, n)), Error) << n;
  }
  std::mt19937 rng(2);
  for (int round = 0; round < 1000; ++round) {
    std::string index = kIndex;
    index[rng() % index.size()] = static_cast<char>(rng());
    try {
      parse_shard_index(index, "index");
    } catch (const Error&) {  // any other exception fails the test
    }
  }
}

TEST(ShardNames, AreThoseOfTransformers) {
  EXPECT_EQ(shard_name(0, 1), "model.safetensors");
  EXPECT_EQ(shard_name(1, 12), "model-00002-of-00012.safetensors");
  EXPECT_EQ(
      shard_index_json({{"b", "y"}, {"a", "x"}}, 5),
      "{\n  \"metadata\": {\n    \"total_size\": 5\n  },\n"
      "  \"weight_map\": {\n    \"a\": \"x\",\n    \"b\": \"y\"\n  }\n}\n");
}

TEST(OpenTensors, SaysWhatIsMissing) {
  const TemporaryDirectory tmp;
  EXPECT_THROW(open_tensors(tmp.path()), Error);
  EXPECT_THROW(open_tensors(tmp.path() / "absent"), Error);
  put(tmp.path() / "empty.safetensors", "");
  EXPECT_THROW(open_tensors(tmp.path() / "empty.safetensors"), Error);
}

}  // namespace
}  // namespace llmpress
