#include "formats/containers/gguf.h"

#include <gtest/gtest.h>

#include <cstring>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "tests/formats/containers/gguf_example.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

using testing::reference_gguf;

TensorBytes bytes_of_text(const std::string& text) {
  auto owner = std::make_shared<const std::string>(text);
  return {std::as_bytes(std::span(*owner)), owner};
}

GgufFile read_text(const std::string& text) {
  return GgufFile::read(bytes_of_text(text), "m.gguf");
}

std::string message_of(const std::string& file) {
  try {
    (void)read_text(file);
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

// Header and data of a file, as a writer makes it.
std::string file_of(const GgufMetadata& metadata,
                    std::vector<GgufTensor> tensors) {
  std::string file = gguf_header(metadata, tensors);
  for (const GgufTensor& t : tensors) {
    file += std::string(t.bytes, '\1');
    file += gguf_padding(t.bytes, gguf_alignment(metadata));
  }
  return file;
}

template <class T>
std::string octets_of(T value) {
  std::string octets(sizeof value, '\0');
  std::memcpy(octets.data(), &value, sizeof value);
  return octets;
}

std::string with_number(std::string file, std::size_t at, std::uint64_t value,
                        std::size_t size = 8) {
  return file.replace(at, size, octets_of(value).substr(0, size));
}

TEST(Gguf, ReadsTheReferenceFile) {
  const GgufFile file = read_text(reference_gguf());
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.metadata().all().size(), 6u);
  std::size_t q8 = file.tensors()[0].type == GgmlType::kQ8_0 ? 0 : 1;
  EXPECT_EQ(file.tensors()[q8].shape, (std::vector<std::size_t>{2, 32}));
  EXPECT_EQ(file.tensors()[q8].bytes, 68u);
  EXPECT_EQ(file.tensors()[1 - q8].type, GgmlType::kF32);
  EXPECT_EQ(file.read(file.tensors()[q8]).bytes.size(), 68u);
}

TEST(Gguf, WritesTheReferenceFileOctetForOctet) {
  const std::string text = reference_gguf();
  const GgufHeader header = parse_gguf(std::as_bytes(std::span(text)), "m");
  std::vector<GgufTensor> tensors = header.tensors;
  std::string written = gguf_header(header.metadata, tensors);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(tensors[i].begin, header.tensors[i].begin);
    written += text.substr(tensors[i].begin, tensors[i].bytes);
    written += gguf_padding(written.size(), kGgufAlignment);
  }
  EXPECT_EQ(written, text);
}

GgufMetadata every_type() {
  GgufMetadata m("m.gguf");
  m.set("u8", std::uint8_t{200});
  m.set("i8", std::int8_t{-3});
  m.set("u16", std::uint16_t{65535});
  m.set("i16", std::int16_t{-300});
  m.set("u32", std::uint32_t{4000000000});
  m.set("i32", std::int32_t{-7});
  m.set("f32", 1.5f);
  m.set("bool", true);
  m.set("text", std::string("a\0b", 3));
  m.set("u64", std::uint64_t{1} << 40);
  m.set("i64", std::int64_t{-1});
  m.set("f64", 2.25);
  m.set_array("bools", std::vector<bool>{true, false});
  m.set_array("texts", std::vector<std::string>{"", "x"});
  m.set_array("floats", std::vector<float>{1, 2});
  m.set_array("arrays",
              std::vector<GgufArray>{{std::vector<std::int8_t>{1, -1}}});
  return m;
}

TEST(Gguf, KeepsEveryTypeOfValue) {
  const std::string file = file_of(every_type(), {});
  const GgufFile read = read_text(file);
  const GgufMetadata& m = read.metadata();
  EXPECT_EQ(m.size("u8"), 200u);
  EXPECT_EQ(m.number("i8"), -3);
  EXPECT_EQ(m.size("u32"), 4000000000u);
  EXPECT_EQ(m.flag("bool"), true);
  EXPECT_EQ(m.text("text"), std::string("a\0b", 3));
  EXPECT_EQ(m.size("u64"), std::size_t{1} << 40);
  EXPECT_EQ(m.number("f64"), 2.25);
  EXPECT_EQ(m.texts("texts").size(), 2u);
  EXPECT_EQ(m.numbers("floats"), (std::vector<double>{1, 2}));
  EXPECT_EQ(m.numbers("u8"), (std::vector<double>{200}));
  EXPECT_FALSE(m.text("absent"));
  std::vector<GgufTensor> none;
  EXPECT_EQ(gguf_header(m, none), file);
}

TEST(Gguf, NamesTheKeyOfAValueOfAnotherType) {
  const GgufMetadata m = every_type();
  EXPECT_THROW((void)m.text("u8"), Error);
  EXPECT_THROW((void)m.size("i32"), Error);
  EXPECT_THROW((void)m.size("f32"), Error);
  EXPECT_THROW((void)m.flag("u8"), Error);
  EXPECT_THROW((void)m.texts("floats"), Error);
  EXPECT_THROW((void)m.numbers("texts"), Error);
}

TEST(Gguf, RefusesEveryPrefixOfAFile) {
  const std::string text = reference_gguf();
  const GgufFile whole = read_text(text);
  std::size_t end = 0;
  for (const GgufTensor& t : whole.tensors()) {
    end = std::max(end, t.begin + t.bytes);
  }
  for (std::size_t size = 0; size < end; ++size) {
    EXPECT_THROW((void)read_text(text.substr(0, size)), Error) << size;
  }
  EXPECT_NO_THROW((void)read_text(text.substr(0, end)));  // without padding
}

struct Broken {
  const char* what;  // must stand in the message
  std::string file;
};

std::vector<Broken> broken_files() {
  GgufMetadata none("m");
  GgufMetadata one("m");
  one.set("k", std::uint32_t{1});
  const std::string keyed = file_of(one, {});
  const std::string tensor =
      file_of(none, {{.name = "a", .shape = {4}}, {.name = "b", .shape = {4}}});
  // 24 octets, then: u64 1, "a", u32 1, u64 4, u32 type, u64 offset.
  constexpr std::size_t kInfo = 24, kInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;
  const std::size_t second = kInfo + kInfoBytes;
  GgufMetadata odd("m");
  odd.set("general.alignment", std::uint32_t{32});
  std::string misaligned = file_of(odd, {});
  misaligned.replace(24 + 8 + 17 + 4, 4, octets_of(std::uint32_t{24}));
  return {
      {"begin with 'GGUF'", "GGML" + keyed.substr(4)},
      {"version 1", with_number(keyed, 4, 1, 4)},
      {"big-endian", with_number(keyed, 4, 0x03000000, 4)},
      {"number of tensors", with_number(keyed, 8, std::uint64_t{1} << 60)},
      {"number of keys", with_number(keyed, 16, std::uint64_t{1} << 60)},
      {"a key of", with_number(keyed, 24, ~std::uint64_t{0})},
      {"unknown type 13", with_number(keyed, 24 + 8 + 1, 13, 4)},
      {"duplicate tensor 'a'", std::string(tensor).replace(second + 8, 1, "a")},
      {"dimensions", with_number(tensor, kInfo + 9, 9, 4)},
      {"overflows", with_number(tensor, kInfo + 13, ~std::uint64_t{0} / 2)},
      {"unknown type 4", with_number(tensor, kInfo + 21, 4, 4)},
      {"whole number of q4_0", with_number(tensor, kInfo + 21, 2, 4)},
      {"multiple of 32", with_number(tensor, kInfo + 25, 1)},
      {"overflows", with_number(tensor, kInfo + 25, ~std::uint64_t{31})},
      {"exceed the file", with_number(tensor, kInfo + 25, 4096)},
      {"overlap", with_number(tensor, second + 25, 0)},
      {"power of two", misaligned},
  };
}

TEST(Gguf, RefusesBrokenFilesSayingWhatIsWrong) {
  for (const Broken& broken : broken_files()) {
    const std::string message = message_of(broken.file);
    EXPECT_NE(message.find(broken.what), std::string::npos)
        << broken.what << ": " << message;
  }
}

TEST(Gguf, RefusesDuplicateKeysAndArraysThatNestTooDeep) {
  GgufMetadata two("m");
  two.set("k", std::uint32_t{1});
  two.set("l", std::uint32_t{1});
  std::string file = file_of(two, {});
  file.replace(24 + 8 + 1 + 4 + 4 + 8, 1, "k");
  EXPECT_NE(message_of(file).find("duplicate key 'k'"), std::string::npos);

  GgufArray deep{std::vector<std::uint8_t>{1}};
  for (int i = 0; i < 5; ++i) {
    deep = GgufArray{std::vector<GgufArray>{deep}};
  }
  GgufMetadata nested("m");
  nested.set("k", std::make_shared<const GgufArray>(deep));
  EXPECT_NE(message_of(file_of(nested, {})).find("deeper"), std::string::npos);
}

// The parts of a model of two tensors; `count` and `number` of the second.
void write_parts(const std::filesystem::path& folder, std::uint16_t count,
                 std::uint16_t number, const char* second = "b") {
  GgufMetadata first("m"), other("m");
  first.set("split.no", std::uint16_t{0});
  first.set("split.count", std::uint16_t{2});
  first.set("split.tensors.count", std::int32_t{2});
  other.set("split.no", number);
  other.set("split.count", count);
  write_file_atomically(folder / "m-00001-of-00002.gguf",
                        file_of(first, {{.name = "a", .shape = {4}}}));
  write_file_atomically(folder / "m-00002-of-00002.gguf",
                        file_of(other, {{.name = second, .shape = {8}}}));
}

TEST(Gguf, ReadsASplitModelFromItsFirstFile) {
  const TemporaryDirectory folder;
  write_parts(folder.path(), 2, 1);
  const GgufFile file = GgufFile::open(folder.path() / "m-00001-of-00002.gguf");
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.files().size(), 2u);
  EXPECT_EQ(file.file_of(*file.find("b")), "m-00002-of-00002.gguf");
  EXPECT_EQ(file.read(*file.find("b")).bytes.size(), 32u);
  EXPECT_EQ(file.find("c"), nullptr);
}

TEST(Gguf, RefusesASplitModelThatDoesNotFitTogether) {
  const TemporaryDirectory folder;
  const auto first = folder.path() / "m-00001-of-00002.gguf";
  write_parts(folder.path(), 2, 1);
  EXPECT_THROW((void)GgufFile::open(folder.path() / "m-00002-of-00002.gguf"),
               Error);
  write_parts(folder.path(), 3, 1);
  EXPECT_THROW((void)GgufFile::open(first), Error);
  write_parts(folder.path(), 2, 0);
  EXPECT_THROW((void)GgufFile::open(first), Error);
  write_parts(folder.path(), 2, 1, "a");
  EXPECT_THROW((void)GgufFile::open(first), Error);
  std::filesystem::remove(folder.path() / "m-00002-of-00002.gguf");
  EXPECT_THROW((void)GgufFile::open(first), Error);
}

}  // namespace
}  // namespace llmpress
