// GGUF, version 3: metadata and tensors in one file, as llama.cpp stores models.
//
//   | "GGUF" | u32 version | u64 tensors | u64 keys |
//   | key: string | u32 type | value |  ...
//   | name: string | u32 dimensions | u64 sizes, fastest first | u32 type |
//     u64 offset |  ...
//   | padding | tensor data, each tensor padded to the alignment |
//
// A string is a u64 length and its octets; everything is little-endian. Offsets
// count from the first octet of data and are multiples of general.alignment (32
// if it is not there). Version 2 has the same layout. A model may be cut into
// files NAME-00001-of-00003.gguf, of which the first has the metadata. Reading
// maps the files and checks all of every header before any tensor is touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "compress/core/ggml/ggml_type.h"
#include "formats/containers/tensor_io.h"

namespace llmpress {

inline constexpr std::uint32_t kGgufVersion = 3;
inline constexpr std::size_t kGgufAlignment = 32;

struct GgufArray;
// In the order of the numbers of types in the file: index() is the type.
using GgufValue =
    std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t,
                 std::uint32_t, std::int32_t, float, bool, std::string,
                 std::shared_ptr<const GgufArray>, std::uint64_t, std::int64_t,
                 double>;
struct GgufArray {
  using Elements =
      std::variant<std::vector<std::uint8_t>, std::vector<std::int8_t>,
                   std::vector<std::uint16_t>, std::vector<std::int16_t>,
                   std::vector<std::uint32_t>, std::vector<std::int32_t>,
                   std::vector<float>, std::vector<bool>,
                   std::vector<std::string>, std::vector<GgufArray>,
                   std::vector<std::uint64_t>, std::vector<std::int64_t>,
                   std::vector<double>>;
  Elements elements{};
};

// Keys in the order of the file.
class GgufMetadata {
 public:
  // `origin` stands in front of messages.
  explicit GgufMetadata(std::string origin = {}) : origin_(std::move(origin)) {}

  void set(std::string key, GgufValue value);  // replaces what was there
  template <class T>
  void set_array(std::string key, std::vector<T> elements) {
    set(std::move(key), std::make_shared<const GgufArray>(
                            GgufArray{.elements = std::move(elements)}));
  }
  const std::vector<std::pair<std::string, GgufValue>>& all() const {
    return values_;
  }
  const GgufValue* find(std::string_view key) const;  // nullptr if absent

  // nullopt (or an empty list) if the key is absent. Throw Error(kInvalidInput)
  // naming the key for a value of another type, or a size that is negative.
  std::optional<std::string> text(std::string_view key) const;
  std::optional<std::size_t> size(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> flag(std::string_view key) const;
  std::span<const std::string> texts(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;  // one or many
  [[noreturn]] void invalid(std::string_view key,
                            std::string_view wanted) const;
  const std::string& origin() const { return origin_; }

 private:
  std::string origin_;
  std::vector<std::pair<std::string, GgufValue>> values_{};
  std::map<std::string, std::size_t, std::less<>> places_{};  // in values_
};

// A value for people: text as it is, of an array how many elements it has and
// the first few.
std::string to_text(const GgufValue& value);

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<std::size_t> shape{};  // slowest first: [out, in]
  std::size_t bytes = 0;
  std::size_t begin = 0;  // in octets from the file's start
};

struct GgufHeader {
  std::uint32_t version = kGgufVersion;
  GgufMetadata metadata{};
  std::vector<GgufTensor> tensors{};  // as in the file
};

// Checks everything that can be known without reading tensor data. Throws
// Error(kCorruptFile), or kUnsupported for a version or a type that this
// version does not know.
GgufHeader parse_gguf(std::span<const std::byte> file,
                      const std::string& where);

bool is_gguf_file(const std::filesystem::path& path);  // by its first octets

// One model: all files of a split one.
class GgufFile {
 public:
  const GgufMetadata& metadata() const { return metadata_; }
  std::span<const GgufTensor> tensors() const { return tensors_; }  // by name
  const GgufTensor* find(std::string_view name) const;
  TensorBytes read(const GgufTensor& tensor) const;
  // The name of the file that holds `tensor`, for messages.
  const std::string& file_of(const GgufTensor& tensor) const;
  std::span<const std::filesystem::path> files() const { return paths_; }

  // `path` is the only file or the first. Throws as parse_gguf() does, kIo or
  // kCorruptFile if a part is missing or is of another model.
  static GgufFile open(const std::filesystem::path& path);
  static GgufFile read(TensorBytes file, const std::string& where);

 private:
  std::size_t index_of(const GgufTensor& tensor) const;
  void add(GgufHeader header, TensorBytes bytes, std::string name);
  void sort_tensors();

  GgufMetadata metadata_{};
  std::vector<GgufTensor> tensors_{};
  std::vector<std::size_t> part_of_{};  // [tensors]
  std::vector<TensorBytes> parts_{};
  std::vector<std::string> names_{};
  std::vector<std::filesystem::path> paths_{};
};

// "model-00001-of-00003.gguf" for part 0 of 3 of "model.gguf".
std::string gguf_part_name(std::string_view stem, std::size_t part,
                           std::size_t count);

// --- writing (gguf_writer.cpp)

// All octets in front of the tensor data, padding with them. `tensors` are laid
// one after another in their order; their `begin` and `bytes` are filled in.
std::string gguf_header(const GgufMetadata& metadata,
                        std::span<GgufTensor> tensors);
// What is written after a tensor of so many octets.
std::string_view gguf_padding(std::size_t bytes, std::size_t alignment);
// general.alignment, or its default. Throws Error(kCorruptFile) if it is no
// power of two.
std::size_t gguf_alignment(const GgufMetadata& metadata);

// Octets of a tensor. Throws Error(kCorruptFile) if a row is no whole number of
// blocks or the size overflows.
std::size_t gguf_bytes(GgmlType type, std::span<const std::size_t> shape,
                       const std::string& what);

}  // namespace llmpress
