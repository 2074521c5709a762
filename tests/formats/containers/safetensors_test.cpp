#include "formats/containers/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

TensorBytes bytes_of_text(const std::string& text) {
  auto owner = std::make_shared<const std::string>(text);
  return {std::as_bytes(std::span(*owner)), owner};
}

std::unique_ptr<TensorReader> read_text(const std::string& text) {
  return read_safetensors(bytes_of_text(text), "m.safetensors");
}

std::string file_of(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + header + data;
}

NamedTensor tensor(std::string name, DType dtype,
                   std::vector<std::size_t> shape,
                   std::initializer_list<int> octets) {
  NamedTensor t{
      .name = std::move(name), .dtype = dtype, .shape = std::move(shape)};
  for (const int o : octets) t.bytes.push_back(static_cast<std::byte>(o));
  return t;
}

std::vector<NamedTensor> golden_tensors() {
  return {tensor("z.u", DType::kU8, {1}, {0x2a}),
          tensor("a.codes", DType::kI8, {3}, {1, 0xff, 0x7f}),
          tensor("b.weight", DType::kF32, {2},
                 {0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0}),
          tensor("c.h", DType::kF16, {1, 2}, {0, 0x38, 0, 0xbc}),
          tensor("a.idx", DType::kI64, {1}, {7, 0, 0, 0, 0, 0, 0, 0})};
}

// Written by the reference implementation.
const std::string kGoldenHeader =
    R"({"__metadata__":{"format":"pt"},"a.idx":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
    R"("b.weight":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},)"
    R"("c.h":{"dtype":"F16","shape":[1,2],"data_offsets":[16,20]},)"
    R"("a.codes":{"dtype":"I8","shape":[3],"data_offsets":[20,23]},)"
    R"("z.u":{"dtype":"U8","shape":[1],"data_offsets":[23,24]}}   )";

TEST(Safetensors, WritesTheReferenceFileOctetForOctet) {
  const std::string file =
      write_safetensors(golden_tensors(), {{"format", "pt"}});
  ASSERT_EQ(file.size(), 360u);
  EXPECT_EQ(file.substr(8, 328), kGoldenHeader);
  EXPECT_EQ(sha256_hex(file),
            "2fa5f832edad4e31986553657e2cee40f821056fdd1f9afad6d08b8619371558");
}

TEST(Safetensors, ReadsBackWhatItWrote) {
  const auto tensors = golden_tensors();
  const auto reader = read_text(write_safetensors(tensors, {{"k", "v"}}));
  ASSERT_EQ(reader->tensors().size(), tensors.size());
  EXPECT_EQ(reader->metadata().at("k"), "v");
  for (const NamedTensor& t : tensors) {
    const TensorInfo& info = reader->require(t.name);
    EXPECT_EQ(info.dtype, t.dtype);
    EXPECT_EQ(info.shape, t.shape);
    EXPECT_EQ(info.file, "m.safetensors");
    const TensorBytes stored = reader->read(info);
    EXPECT_TRUE(std::equal(stored.bytes.begin(), stored.bytes.end(),
                           t.bytes.begin(), t.bytes.end()))
        << t.name;
  }
  EXPECT_EQ(reader->find("absent"), nullptr);
  EXPECT_THROW((void)reader->require("absent"), Error);
}

TEST(Safetensors, KeepsScalarsAndEmptyTensorsAndOddAlignment) {
  const std::vector<NamedTensor> tensors{tensor("one", DType::kU8, {1}, {1}),
                                         tensor("none", DType::kU8, {0, 4}, {}),
                                         tensor("scalar", DType::kU8, {}, {9})};
  const auto reader = read_text(write_safetensors(tensors, {}));
  EXPECT_EQ(reader->require("none").bytes, 0u);
  EXPECT_EQ(reader->read(reader->require("scalar")).bytes[0], std::byte{9});

  // F32 data at an odd offset is legal.
  const auto odd = read_text(file_of(
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
      std::string("\x01\x00\x00\x80\x3f", 5)));
  EXPECT_EQ(read_matrix(*odd, "b")(0, 0), 1.0f);
}

TEST(Safetensors, IgnoresUnknownFieldsOfATensor) {
  const auto reader = read_text(file_of(
      R"({"a":{"dtype":"U8","x":{"y":[1,{"dtype":2}]},"shape":[1],"z":[[]],"data_offsets":[0,1],"n":null}})",
      "7"));
  EXPECT_EQ(reader->require("a").bytes, 1u);
}

struct Broken {
  const char* what;  // must stand in the message
  std::string file;
};

std::vector<Broken> broken_files() {
  const auto one = [](const std::string& body,
                      const std::string& data = "0123") {
    return file_of("{" + body + "}", data);
  };
  const std::string u8 =
      R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  std::string long_header = one(u8);
  long_header[2] = 1;  // N + 65536
  return {
      {"too short", "1234567"},
      {"exceeds the file", long_header},
      {"begin with '{'", file_of("", "")},
      {"begin with '{'", file_of("[]", "")},
      {"NUL", file_of(std::string("{}\0", 3), "")},
      {"not JSON", file_of("{", "")},
      {"not JSON", file_of("{}{}", "")},
      {"not JSON", file_of("{\"\xff\":{}}", "")},
      {"unexpected", one(R"("a":1)")},
      {"unexpected", one(R"("a":[1])")},
      {"unexpected",
       one(R"("a":{"dtype":1,"shape":[4],"data_offsets":[0,4]})")},
      {"unexpected",
       one(R"("a":{"dtype":"U8","shape":4,"data_offsets":[0,4]})")},
      {"unexpected",
       one(R"("a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]})")},
      {"unexpected",
       one(R"("a":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]})")},
      {"unexpected",
       one(R"("a":{"dtype":"U8","shape":[[4]],"data_offsets":[0,4]})")},
      {"unexpected",
       one(R"("a":{"dtype":"U8","shape":["4"],"data_offsets":[0,4]})")},
      {"needs dtype", one(R"("a":{"dtype":"U8","shape":[4]})")},
      {"needs 2", one(R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0]})")},
      {"more than 2",
       one(R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4,4]})")},
      {"unknown dtype",
       one(R"("a":{"dtype":"U9","shape":[4],"data_offsets":[0,4]})")},
      {"duplicate key", one(u8 + "," + u8)},
      {"duplicate key",
       one(R"("a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]})")},
      {"duplicate key", one(R"("__metadata__":{"k":"v","k":"v"})", "")},
      {"unexpected", one(R"("__metadata__":{"k":1})", "")},
      {"unexpected", one(R"("__metadata__":{"k":{}})", "")},
      {"unexpected", one(R"("__metadata__":[])", "")},
      {"exceed 4",
       one(R"("a":{"dtype":"U8","shape":[4000000],"data_offsets":[0,4000000]})")},
      {"exceed 4",
       one(R"("a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]})")},
      {"hole", one(R"("a":{"dtype":"U8","shape":[3],"data_offsets":[1,4]})")},
      {"overlap",
       one(R"("a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
           R"("b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]})")},
      {"its shape needs",
       one(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]})")},
      {"overflows",
       one(R"("a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,4]})")},
      {"overflows",
       one(R"("a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,4]})")},
      {"whole number",
       one(R"("a":{"dtype":"F4","shape":[7],"data_offsets":[0,4]})")},
      {"of 5 octets", one(u8, "01234")},
      {"exceed 3", one(u8, "012")},
      {"unexpected",
       one(R"("a":{"dtype":"U8","shape":[99999999999999999999999999x)")},
  };
}

TEST(Safetensors, RefusesBrokenFilesAndSaysWhy) {
  for (const Broken& broken : broken_files()) {
    try {
      read_text(broken.file);
      ADD_FAILURE() << "accepted: " << broken.file;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(broken.what), std::string::npos)
          << e.what() << "\nwanted: " << broken.what << "\nin: " << broken.file;
      EXPECT_EQ(std::string(e.what()).rfind("m.safetensors", 0), 0u)
          << e.what();
    }
  }
}

TEST(Safetensors, RefusesEveryTruncation) {
  const std::string whole =
      write_safetensors(golden_tensors(), {{"format", "pt"}});
  for (std::size_t n = 0; n < whole.size(); ++n) {
    EXPECT_THROW(read_text(whole.substr(0, n)), Error) << n;
  }
  EXPECT_NO_THROW(read_text(whole));
}

TEST(Safetensors, SurvivesRandomOctets) {
  const std::string whole =
      write_safetensors(golden_tensors(), {{"format", "pt"}});
  std::mt19937 rng(1);
  int refused = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string file = whole;
    for (int flips = 1 + round % 3; flips > 0; --flips) {
      file[rng() % 336] = static_cast<char>(rng());
    }
    try {
      const auto reader = read_text(file);
      for (const TensorInfo& info : reader->tensors()) {
        EXPECT_EQ(reader->read(info).bytes.size(), info.bytes);
      }
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 2500);
}

TEST(Safetensors, WriterRefusesWhatItCouldNotReadBack) {
  auto wrong_size = golden_tensors();
  wrong_size[0].bytes.push_back({});
  EXPECT_THROW(write_safetensors(wrong_size, {}), Error);
  auto twice = golden_tensors();
  twice.push_back(twice[0]);
  EXPECT_THROW(write_safetensors(twice, {}), Error);
  auto metadata_name = golden_tensors();
  metadata_name[0].name = "__metadata__";
  EXPECT_THROW(write_safetensors(metadata_name, {}), Error);
  auto not_text = golden_tensors();
  not_text[0].name = "\xff";
  EXPECT_THROW(write_safetensors(not_text, {}), Error);
}

TEST(Safetensors, MapsTheShippedModel) {
  const auto reader = open_tensors(std::filesystem::path(source_dir()) /
                                   "models/tinystories-3.7m");
  const MatrixF embeddings = read_matrix(*reader, "model.embed_tokens.weight");
  EXPECT_EQ(embeddings.rows(), 2048u);
  EXPECT_EQ(embeddings.cols(), 256u);
  EXPECT_EQ(read_vector(*reader, "model.norm.weight", 256).size(), 256u);
  EXPECT_THROW(read_vector(*reader, "model.norm.weight", 255), Error);
}

}  // namespace
}  // namespace llmpress
