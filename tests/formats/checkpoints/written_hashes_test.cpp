#include "formats/checkpoints/written_hashes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/containers/file_range.h"
#include "formats/files/content_hash.h"
#include "tests/formats/linears/sample_linears.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = R"({"model_type":"llama"})";
constexpr const char* kFirst = "model.layers.0.mlp.down_proj";
constexpr const char* kSecond = "model.layers.0.mlp.up_proj";

class WrittenHashes : public testing::Test {
 protected:
  WrittenHashes() {
    const auto writer =
        make_artifact_writer({.output = folder_, .passing_room = 4096});
    const auto samples = sample_linears();
    writer->add_linear(kFirst, samples[0].linear);
    writer->add_linear(kSecond, samples[0].linear);
    writer->add_file("layers.json", "[1, 2]");
    writer->finish(kConfig);
  }

  std::string content(const char* file) const {
    return read_file(folder_ / file);
  }
  void set(const char* file, const std::string& content) const {
    write_file_atomically(folder_ / file, content);
  }
  void flip(const char* file, std::size_t from_end) const {
    std::string octets = content(file);
    octets[octets.size() - from_end] ^= 1;
    set(file, octets);
  }

  StoredLinears stored() const {
    return {.checkpoint = open_checkpoint(folder_),
            .hashes = read_tensor_hashes(folder_)};
  }

  TemporaryDirectory tmp_;
  const fs::path folder_ = tmp_.path() / "a";
};

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    return error.what();
  }
  return {};
}

TEST_F(WrittenHashes, AreThoseOfTheTensors) {
  EXPECT_TRUE(is_as_written(folder_));
  const auto checkpoint = open_checkpoint(folder_);
  const TensorReader& reader = checkpoint->tensors();
  const TensorHashes hashes = read_tensor_hashes(folder_);
  ASSERT_EQ(hashes.size(), reader.tensors().size());
  ASSERT_GE(hashes.size(), 2u);
  for (const TensorInfo& info : reader.tensors()) {
    EXPECT_EQ(hashes.at(info.name), content_hash(reader.read(info).bytes));
  }
}

TEST_F(WrittenHashes, TellWhateverBecameOfTheFolder) {
  const std::string tensors = content("model.safetensors");
  const std::string hashes = content(kHashesFile);
  const std::vector<std::pair<const char*, std::function<void()>>> damages{
      {"an octet of a tensor", [&] { flip("model.safetensors", 1); }},
      {"room behind the header",
       [&] { flip("model.safetensors", tensors.size() - 4095); }},
      {"the header's length",
       [&] { flip("model.safetensors", tensors.size() - 7); }},
      {"a file that was cut off",
       [&] {
         set("model.safetensors", tensors.substr(0, tensors.size() - 2));
       }},
      {"an empty file", [&] { set("model.safetensors", ""); }},
      {"another file", [&] { flip("layers.json", 2); }},
      {"a file that is gone", [&] { fs::remove(folder_ / "layers.json"); }},
      {"the tensors gone", [&] { fs::remove(folder_ / "model.safetensors"); }},
      {"a file that was not written", [&] { set("more.json", "{}"); }},
      {"a hash", [&] { flip(kHashesFile, hashes.size()); }},
      {"hashes cut off",
       [&] { set(kHashesFile, hashes.substr(0, hashes.find('\n') + 1)); }},
      {"no hashes", [&] { fs::remove(folder_ / kHashesFile); }}};
  const fs::path whole = tmp_.path() / "whole";
  fs::copy(folder_, whole);
  for (const auto& [what, damage] : damages) {
    damage();
    EXPECT_FALSE(is_as_written(folder_)) << what;
    fs::remove_all(folder_);
    fs::copy(whole, folder_);
    ASSERT_TRUE(is_as_written(folder_)) << what;
  }
}

// Octets that changed since they were written go into no artifact.
TEST_F(WrittenHashes, KeepWhatChangedOutOfArtifacts) {
  flip("model.safetensors", 1);
  for (const char* format : {"compressed-tensors", "hdf5"}) {
    const fs::path output = tmp_.path() / format;
    const std::string message = message_of([&] {
      const auto writer =
          make_artifact_writer({.output = output, .format = format});
      ASSERT_TRUE(writer->add_stored_linear(kFirst, stored()));
      ASSERT_TRUE(writer->add_stored_linear(kSecond, stored()));
      writer->finish(kConfig);
    });
    for (const char* part : {"model.layers.0.mlp.", "a/model.safetensors",
                             "has other octets than were written"}) {
      EXPECT_NE(message.find(part), std::string::npos) << message;
    }
    EXPECT_FALSE(fs::exists(output)) << format;
  }
}

TEST_F(WrittenHashes, TellWhichLinearChanged) {
  flip("model.safetensors", 1);
  const auto linears = stored();
  std::string changed;
  for (const char* name : {kFirst, kSecond}) {
    changed += message_of(
        [&] { check_linear(*linears.checkpoint, name, linears.hashes); });
  }
  const TensorReader& reader = linears.checkpoint->tensors();
  const auto tensors = reader.tensors();
  const auto last = std::ranges::max_element(
      tensors, {},
      [&](const TensorInfo& t) { return place_of(reader, t).begin; });
  EXPECT_NE(
      changed.find("'" + last->name + "' has other octets than were written"),
      std::string::npos)
      << changed;
  EXPECT_EQ(changed.find("octets"), changed.rfind("octets")) << changed;
}

}  // namespace
}  // namespace llmpress
