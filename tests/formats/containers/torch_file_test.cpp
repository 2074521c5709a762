#include "formats/containers/torch_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <limits>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/typed_tensors.h"
#include "tests/formats/containers/torch_writer.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

using namespace testing;
using namespace std::string_literals;
namespace fs = std::filesystem;

const fs::path kGoldens =
    fs::path(source_dir()) / "tests/formats/containers/goldens";

std::unique_ptr<TensorReader> read(const std::string& file) {
  return read_torch_file(bytes_of_text(file), "m.bin");
}

std::string message(const std::string& file) {
  try {
    const auto reader = read(file);
    for (const TensorInfo& info : reader->tensors()) (void)reader->read(info);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

#define EXPECT_SAYS(text, part) \
  EXPECT_NE((text).find(part), std::string::npos) << (text)

std::string floats(std::initializer_list<float> values) {
  std::string text;
  for (const float v : values) text += octets(v);
  return text;
}

// One tensor 'w' over the storage 0, 1, ..., 11 of F32.
std::string file_of(std::size_t offset, const std::vector<std::size_t>& shape,
                    const std::vector<std::size_t>& strides) {
  std::string storage;
  for (int i = 0; i < 12; ++i) storage += octets(static_cast<float>(i));
  const std::string tensor = torch_tensor(
      torch_storage("FloatStorage", "0", 12), offset, shape, strides);
  return torch_archive(pickle_of(pickle_dict({{"w", tensor}})), {storage});
}

std::vector<float> values_of(const TensorReader& reader,
                             std::string_view name) {
  return floats_of(reader, reader.require(name));
}

// goldens/: made by make_torch_goldens.py with torch 2.15.
TEST(TorchFile, ReadsWhatTorchSaves) {
  for (const char* name : {"zip.bin", "protocol4.bin", "legacy.bin"}) {
    const auto reader = open_torch_file(kGoldens / name);
    EXPECT_EQ(values_of(*reader, "f32"),
              (std::vector<float>{0, 0.5, 1, 1.5, 2, 2.5}));
    EXPECT_EQ(reader->require("f32").shape, (std::vector<std::size_t>{2, 3}));
    EXPECT_EQ(values_of(*reader, "transposed"),
              (std::vector<float>{0, 1.5, 0.5, 2, 1, 2.5}));
    EXPECT_EQ(reader->require("transposed").shape,
              (std::vector<std::size_t>{3, 2}));
    EXPECT_EQ(values_of(*reader, "tail"), (std::vector<float>{1.5, 2, 2.5}));
    EXPECT_EQ(values_of(*reader, "f16"), (std::vector<float>{1, -2}));
    EXPECT_EQ(reader->require("f16").dtype, DType::kF16);
    EXPECT_EQ(values_of(*reader, "bf16"), (std::vector<float>{3, -4}));
    EXPECT_EQ(reader->require("bf16").dtype, DType::kBF16);
    EXPECT_EQ(values_of(*reader, "parameter"), (std::vector<float>{7}));
    EXPECT_EQ(values_of(*reader, "scalar"), (std::vector<float>{9}));
    EXPECT_TRUE(reader->require("scalar").shape.empty());
    EXPECT_EQ(integers_of(*reader, reader->require("i64")),
              (std::vector<std::int64_t>{5, -6}));
    EXPECT_EQ(reader->require("flag").dtype, DType::kBool);
    EXPECT_EQ(reader->require("empty").bytes, 0u);
    EXPECT_EQ(reader->read(reader->require("empty")).bytes.size(), 0u);
  }
  const auto zip = open_torch_file(kGoldens / "zip.bin");
  EXPECT_EQ(zip->require("f8").dtype, DType::kF8E4M3);
  EXPECT_EQ(std::to_integer<int>(zip->read(zip->require("f8")).bytes[0]), 0x38);
}

TEST(TorchFile, GathersViewsOfAnyStride) {
  EXPECT_EQ(values_of(*read(file_of(1, {2, 3}, {4, 1})), "w"),
            (std::vector<float>{1, 2, 3, 5, 6, 7}));
  EXPECT_EQ(values_of(*read(file_of(0, {2, 2, 3}, {1, 6, 2})), "w"),
            (std::vector<float>{0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11}));
  EXPECT_EQ(values_of(*read(file_of(3, {2, 2}, {0, 1})), "w"),
            (std::vector<float>{3, 4, 3, 4}));
  EXPECT_EQ(values_of(*read(file_of(5, {1, 2}, {99, 1})), "w"),
            (std::vector<float>{5, 6}));
  EXPECT_EQ(values_of(*read(file_of(11, {}, {})), "w"),
            (std::vector<float>{11}));
}

TEST(TorchFile, GivesTensorsInOnePieceFromTheFileItself) {
  const TensorBytes file = bytes_of_text(file_of(2, {2, 3}, {3, 1}));
  const auto reader = read_torch_file(file, "m.bin");
  const TensorBytes bytes = reader->read(reader->require("w"));
  EXPECT_GE(bytes.bytes.data(), file.bytes.data());
  EXPECT_LE(bytes.bytes.data() + 24, file.bytes.data() + file.bytes.size());
}

TEST(TorchFile, RefusesElementsOutsideOfTheStorage) {
  const std::size_t huge = std::numeric_limits<std::int64_t>::max();
  EXPECT_SAYS(message(file_of(0, {13}, {1})),
              "tensor 'w': reaches element 12 of a storage of 12 elements");
  EXPECT_SAYS(message(file_of(12, {}, {})), "reaches element 12");
  EXPECT_SAYS(message(file_of(0, {2}, {12})), "reaches element 12");
  EXPECT_SAYS(message(file_of(huge, {2}, {huge})), "reaches element");
  EXPECT_SAYS(message(file_of(huge, {3}, {huge})), "size overflows");
  EXPECT_SAYS(message(file_of(0, {huge, huge}, {0, 0})), "size overflows");
  EXPECT_SAYS(message(file_of(0, {1u << 20, 1u << 20}, {0, 0})),
              "repeats 48 octets of its storage to 4398046511104");
  EXPECT_SAYS(message(file_of(0, {2}, {1, 1})), "1 sizes and 2 strides");
  EXPECT_EQ(message(file_of(huge, {0, huge}, {huge, huge})), "no error");
}

std::string archive(const std::string& tensor,
                    const std::vector<std::string>& storages = {}) {
  return torch_archive(pickle_of(pickle_dict({{"w", tensor}})), storages);
}

TEST(TorchFile, NamesWhatIsNoTensor) {
  EXPECT_SAYS(message(archive("K\x07")), "'w' is no tensor");
  EXPECT_SAYS(message(torch_archive(pickle_of("]"), {})),
              "holds no dict of tensors");
  const std::string storage = torch_storage("FloatStorage", "0", 1);
  const std::string tensor = torch_tensor(storage, 0, {1}, {1});
  EXPECT_SAYS(message(archive(tensor)), "'m/data/0' needs 4 octets");
  EXPECT_SAYS(message(archive(tensor, {"123"})), "the archive has 3");
  EXPECT_EQ(message(archive(tensor, {"1234"})), "no error");
  EXPECT_SAYS(message(archive(
                  pickle_call("torch._utils", "_rebuild_tensor_v2", {storage}),
                  {"1234"})),
              "has too few arguments");
  EXPECT_SAYS(message(archive(pickle_call("torch._utils", "_rebuild_tensor_v2",
                                          {storage, pickle_integer(-1)}),
                              {"1234"})),
              "wanted a size");
  EXPECT_SAYS(
      message(archive(pickle_call("torch._utils", "_rebuild_tensor_v2",
                                  {storage, pickle_integer(0),
                                   pickle_sizes({1}), pickle_sizes({1}), "\x89",
                                   "}", pickle_dict({{"neg", "\x88"}})}),
                      {"1234"})),
      "a view that changes its numbers");
  EXPECT_SAYS(message(archive(
                  torch_storage("FloatStorage", "0", 1, pickle_tuple({"N"})) +
                      "0" + tensor,
                  {"1234"})),
              "a storage that is a part of another one");
  EXPECT_SAYS(
      message(torch_archive(
          pickle_of(pickle_dict({{"w", tensor}, {"w", tensor}})), {"1234"})),
      "has 'w' twice");
  EXPECT_SAYS(message(archive(torch_storage("QInt8Storage", "0", 1))),
              "names 'torch.QInt8Storage'");
}

TEST(TorchFile, FindsTheModelInATrainingRunsState) {
  const std::string tensor =
      torch_tensor(torch_storage("FloatStorage", "0", 1), 0, {1}, {1});
  const std::string state =
      pickle_dict({{"epoch", "K\x03"},
                   {"model", pickle_dict({{"a.weight", tensor}})},
                   {"optimizer", "]"}});
  const auto reader = read(torch_archive(pickle_of(state), {floats({4})}));
  ASSERT_EQ(reader->tensors().size(), 1u);
  EXPECT_EQ(values_of(*reader, "a.weight"), (std::vector<float>{4}));
}

// __reduce__ of a pickled object, as an attacker would place it.
TEST(TorchFile, RefusesAMaliciousFileAndRunsNothing) {
  const TemporaryDirectory tmp;
  const fs::path mark = tmp.path() / "ran";
  const std::string command = "touch " + mark.string();
  const std::string tensor =
      torch_tensor(torch_storage("FloatStorage", "0", 1), 0, {1}, {1});
  const std::string evil = pickle_call("os", "system", {pickle_text(command)});
  const std::string said = message(torch_archive(
      pickle_of(pickle_dict({{"w", tensor}, {"x", evil}})), {floats({1})}));
  EXPECT_SAYS(said, "m.bin: m/data.pkl: pickle, octet ");
  EXPECT_SAYS(said, "names 'os.system'");
  for (const char* golden :
       {"reduce_system.bin", "reduce_eval.bin", "reduce_popen.bin"}) {
    EXPECT_SAYS(message(read_file(kGoldens / golden)), "nothing of it was run");
  }
  EXPECT_FALSE(fs::exists(mark));
  EXPECT_FALSE(fs::exists("llmpress_pickle_ran"));
}

TEST(TorchFile, RefusesOtherByteOrdersAndProgramsByName) {
  const std::string pickle = pickle_of("}");
  EXPECT_SAYS(
      message(zip_archive({{"m/data.pkl", pickle}, {"m/byteorder", "big"}})),
      "byteorder is 'big'");
  EXPECT_SAYS(
      message(zip_archive({{"m/data.pkl", pickle}, {"m/constants.pkl", ""}})),
      "is a TorchScript program");
  EXPECT_SAYS(message(zip_archive({{"a.txt", "x"}})), "without data.pkl");
  EXPECT_SAYS(message("version https://git-lfs.github.com/spec/v1\n"),
              "is a git-lfs pointer");
  EXPECT_SAYS(message("\x80\x04}."), "is a Python pickle");
  EXPECT_SAYS(message("hello"), "is no file of torch.save");
  EXPECT_SAYS(message(""), "is no file of torch.save");
}

TEST(TorchFile, RefusesEveryCut) {
  for (const char* name : {"zip.bin", "legacy.bin"}) {
    const std::string whole = read_file(kGoldens / name);
    const std::size_t step = name == "zip.bin"s ? 7 : 1;
    for (std::size_t size = 0; size < whole.size(); size += step) {
      EXPECT_NE(message(whole.substr(0, size)), "no error") << name << size;
    }
  }
}

TEST(TorchFile, IsFoundInAFolder) {
  const TemporaryDirectory tmp;
  const auto put = [&](const char* name, const std::string& content) {
    std::ofstream(tmp.path() / name, std::ios::binary) << content;
  };
  EXPECT_EQ(find_torch_weights(tmp.path()), std::nullopt);
  const std::string file = file_of(0, {1}, {1});
  put("training_args.bin", file);
  put("optimizer.pt", file);
  put("tokenizer.bin", "x");
  EXPECT_EQ(find_torch_weights(tmp.path()), std::nullopt);
  put("model.pth", file);
  EXPECT_EQ(find_torch_weights(tmp.path())->filename(), "model.pth");
  put("other.pt", file);
  EXPECT_THROW((void)find_torch_weights(tmp.path()), Error);
  put("pytorch_model.bin", file);
  EXPECT_EQ(find_torch_weights(tmp.path())->filename(), "pytorch_model.bin");
  EXPECT_EQ(open_tensors(tmp.path())->tensors().size(), 1u);
}

}  // namespace
}  // namespace llmpress
