// Reading; writing is in gguf_writer.cpp.
#include "formats/containers/gguf.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <unordered_set>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/core/printable.h"
#include "formats/files/mapped_file.h"

namespace llmpress {
namespace {

constexpr std::size_t kMostDimensions = 8;  // ggml itself has 4
constexpr std::size_t kDeepestArray = 4;
constexpr std::size_t kMaxAlignment = 4096;
constexpr std::size_t kLongestKey = 65535;

// Takes one thing after another from the front of a file.
class Cursor {
 public:
  Cursor(std::span<const std::byte> file, const std::string& where)
      : file_(file), where_(where) {}

  std::size_t at() const { return at_; }
  std::size_t left() const { return file_.size() - at_; }

  [[noreturn]] void corrupt(const std::string& what) const {
    fail(ErrorCode::kCorruptFile, "{}: octet {}: {}", where_, at_, what);
  }

  std::span<const std::byte> octets(std::size_t count, const char* what) {
    if (count > left()) {
      corrupt(formatted("the file of {} octets ends within {}", file_.size(),
                        what));
    }
    const auto found = file_.subspan(at_, count);
    at_ += count;
    return found;
  }

  template <class T>
  T number(const char* what) {
    T value{};
    std::memcpy(&value, octets(sizeof value, what).data(), sizeof value);
    return value;
  }

  bool flag(const char* what) {
    const auto value = number<std::uint8_t>(what);
    if (value > 1) corrupt(formatted("{} is {}, wanted 0 or 1", what, value));
    return value == 1;
  }

  std::string text(const char* what) {
    const auto size = number<std::uint64_t>(what);
    if (size > left()) {
      corrupt(formatted("{} of {} octets exceeds the file of {}", what, size,
                        file_.size()));
    }
    const auto octets_of_text = octets(size, what);
    return {reinterpret_cast<const char*>(octets_of_text.data()), size};
  }

  // A number of things of at least `least` octets each.
  std::size_t count(std::size_t least, const char* what) {
    const auto found = number<std::uint64_t>(what);
    if (found > left() / least) {
      corrupt(formatted("{} is {}, which the file of {} octets cannot hold",
                        what, found, file_.size()));
    }
    return found;
  }

 private:
  std::span<const std::byte> file_;
  const std::string& where_;
  std::size_t at_ = 0;
};

template <std::size_t... kIndex>
GgufArray::Elements empty_elements(std::uint32_t type, Cursor& cursor,
                                   std::index_sequence<kIndex...>) {
  GgufArray::Elements elements;
  const bool known =
      ((type == kIndex ? (elements.emplace<kIndex>(), true) : false) || ...);
  if (!known) cursor.corrupt(formatted("unknown type {} of an array", type));
  return elements;
}

template <class T>
constexpr std::size_t least_octets() {
  if constexpr (std::is_same_v<T, std::string>) return 8;
  if constexpr (std::is_same_v<T, GgufArray>) return 12;
  return sizeof(T);
}

GgufArray read_array(Cursor& cursor, std::size_t depth) {
  if (depth > kDeepestArray) {
    cursor.corrupt(formatted("arrays nest deeper than {}", kDeepestArray));
  }
  const auto type = cursor.number<std::uint32_t>("the type of an array");
  GgufArray array{empty_elements(
      type, cursor,
      std::make_index_sequence<std::variant_size_v<GgufArray::Elements>>())};
  std::visit(
      [&]<class T>(std::vector<T>& elements) {
        const std::size_t count =
            cursor.count(least_octets<T>(), "the length of an array");
        elements.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
          if constexpr (std::is_same_v<T, std::string>) {
            elements.push_back(cursor.text("a string of an array"));
          } else if constexpr (std::is_same_v<T, GgufArray>) {
            elements.push_back(read_array(cursor, depth + 1));
          } else if constexpr (std::is_same_v<T, bool>) {
            elements.push_back(cursor.flag("a boolean of an array"));
          } else {
            elements.push_back(cursor.number<T>("an array"));
          }
        }
      },
      array.elements);
  return array;
}

template <std::size_t... kIndex>
GgufValue empty_value(std::uint32_t type, Cursor& cursor,
                      std::index_sequence<kIndex...>) {
  GgufValue value;
  const bool known =
      ((type == kIndex ? (value.emplace<kIndex>(), true) : false) || ...);
  if (!known) cursor.corrupt(formatted("unknown type {} of a value", type));
  return value;
}

GgufValue read_value(Cursor& cursor) {
  const auto type = cursor.number<std::uint32_t>("the type of a value");
  GgufValue value = empty_value(
      type, cursor, std::make_index_sequence<std::variant_size_v<GgufValue>>());
  std::visit(
      [&]<class T>(T& v) {
        if constexpr (std::is_same_v<T, std::string>) {
          v = cursor.text("a string");
        } else if constexpr (std::is_same_v<T, bool>) {
          v = cursor.flag("a boolean");
        } else if constexpr (std::is_arithmetic_v<T>) {
          v = cursor.number<T>("a value");
        } else {
          v = std::make_shared<const GgufArray>(read_array(cursor, 1));
        }
      },
      value);
  return value;
}

std::uint32_t read_version(Cursor& cursor) {
  const auto magic = cursor.octets(4, "its first octets");
  if (std::memcmp(magic.data(), "GGUF", 4) != 0) {
    cursor.corrupt("is no GGUF file: it does not begin with 'GGUF'");
  }
  const auto version = cursor.number<std::uint32_t>("the version");
  if (version == 2 || version == kGgufVersion) return version;
  const std::uint32_t swapped = version >> 24 | (version >> 8 & 0xff00) |
                                (version << 8 & 0xff0000) | version << 24;
  if (swapped == 2 || swapped == kGgufVersion) {
    throw Error(ErrorCode::kUnsupported,
                "the GGUF file is big-endian, which is not read");
  }
  fail(ErrorCode::kUnsupported, "GGUF version {}, wanted 2 or {}", version,
       kGgufVersion);
}

void read_metadata(Cursor& cursor, std::size_t count, GgufMetadata& metadata) {
  std::unordered_set<std::string> seen;
  for (std::size_t i = 0; i < count; ++i) {
    std::string key = cursor.text("a key");
    if (key.empty() || key.size() > kLongestKey) {
      cursor.corrupt(formatted("a key of {} octets", key.size()));
    }
    if (!seen.insert(key).second) {
      cursor.corrupt("duplicate key '" + printable(key) + "'");
    }
    metadata.set(std::move(key), read_value(cursor));
  }
}

// Its `begin` counts from the first octet of data.
GgufTensor read_tensor_info(Cursor& cursor, const std::string& where) {
  GgufTensor tensor{.name = cursor.text("a tensor's name")};
  const std::string what = where + ": tensor '" + printable(tensor.name) + "'";
  const auto dimensions = cursor.number<std::uint32_t>("a tensor's dimensions");
  if (dimensions > kMostDimensions) {
    fail(ErrorCode::kCorruptFile, "{}: {} dimensions, wanted at most {}", what,
         dimensions, kMostDimensions);
  }
  for (std::uint32_t d = 0; d < dimensions; ++d) {
    tensor.shape.insert(tensor.shape.begin(),
                        cursor.number<std::uint64_t>("a tensor's shape"));
  }
  const auto id = cursor.number<std::uint32_t>("a tensor's type");
  const auto type = ggml_type_of_id(id);
  if (!type) fail(ErrorCode::kUnsupported, "{}: unknown type {}", what, id);
  tensor.type = *type;
  tensor.begin = cursor.number<std::uint64_t>("a tensor's offset");
  tensor.bytes = gguf_bytes(tensor.type, tensor.shape, what);
  return tensor;
}

// Makes `begin` count from the file's start; nothing overlaps or lies outside.
void place_tensors(std::vector<GgufTensor>& tensors, std::size_t data_begin,
                   std::size_t file_bytes, std::size_t alignment,
                   const std::string& where) {
  std::vector<GgufTensor*> order;
  for (GgufTensor& tensor : tensors) {
    const std::string what =
        where + ": tensor '" + printable(tensor.name) + "'";
    if (tensor.begin % alignment != 0) {
      fail(ErrorCode::kCorruptFile, "{}: offset {} is no multiple of {}", what,
           tensor.begin, alignment);
    }
    tensor.begin = checked_add(tensor.begin, data_begin, what);
    const std::size_t end = checked_add(tensor.begin, tensor.bytes, what);
    if (end > file_bytes) {
      fail(ErrorCode::kCorruptFile, "{}: octets [{}, {}) exceed the file of {}",
           what, tensor.begin, end, file_bytes);
    }
    if (tensor.bytes > 0) order.push_back(&tensor);
  }
  std::ranges::sort(order, {}, &GgufTensor::begin);
  for (std::size_t i = 1; i < order.size(); ++i) {
    const GgufTensor& before = *order[i - 1];
    if (before.begin + before.bytes <= order[i]->begin) continue;
    fail(ErrorCode::kCorruptFile, "{}: tensors '{}' and '{}' overlap", where,
         printable(before.name), printable(order[i]->name));
  }
}

// Where the parts of a split model lie, in order.
std::vector<std::filesystem::path> part_paths(
    const std::filesystem::path& first, std::size_t count) {
  if (count > 99999) {
    fail(ErrorCode::kCorruptFile, "{}: split.count is {}", first, count);
  }
  const std::string name = first.filename().string();
  const std::string ending = gguf_part_name("", 0, count);
  if (!name.ends_with(ending)) {
    fail(ErrorCode::kInvalidInput,
         "{}: is a part of {}; give the first, whose name ends in '{}'", first,
         count, ending);
  }
  const std::string stem = name.substr(0, name.size() - ending.size());
  std::vector<std::filesystem::path> paths{first};
  for (std::size_t i = 1; i < count; ++i) {
    paths.push_back(first.parent_path() / gguf_part_name(stem, i, count));
  }
  return paths;
}

}  // namespace

std::size_t gguf_bytes(GgmlType type, std::span<const std::size_t> shape,
                       const std::string& what) {
  const GgmlTypeFacts& f = facts(type);
  const std::size_t elements = checked_elements(shape, what);
  const std::size_t row = shape.empty() ? 1 : shape.back();
  if (row % f.elements != 0) {
    fail(ErrorCode::kCorruptFile,
         "{}: rows of {} elements are no whole number of {} blocks of {}", what,
         row, f.name, f.elements);
  }
  // Room for any element decoded.
  checked_mul(elements, 8, what);
  return checked_mul(elements / f.elements, f.bytes, what);
}

std::size_t gguf_alignment(const GgufMetadata& metadata) {
  const std::size_t alignment =
      metadata.size("general.alignment").value_or(kGgufAlignment);
  if (std::has_single_bit(alignment) && alignment <= kMaxAlignment) {
    return alignment;
  }
  fail(ErrorCode::kCorruptFile,
       "{}: general.alignment is {}, wanted a power of two up to {}",
       metadata.origin(), alignment, kMaxAlignment);
}

GgufHeader parse_gguf(std::span<const std::byte> file,
                      const std::string& where) {
  Cursor cursor(file, where);
  GgufHeader header{.metadata = GgufMetadata(where)};
  try {
    header.version = read_version(cursor);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kUnsupported) throw;
    fail(ErrorCode::kUnsupported, "{}: {}", where, e.what());
  }
  const std::size_t tensors = cursor.count(24, "the number of tensors");
  const std::size_t keys = cursor.count(13, "the number of keys");
  read_metadata(cursor, keys, header.metadata);
  std::unordered_set<std::string> seen;
  for (std::size_t i = 0; i < tensors; ++i) {
    header.tensors.push_back(read_tensor_info(cursor, where));
    const std::string& name = header.tensors.back().name;
    if (!seen.insert(name).second) {
      cursor.corrupt("duplicate tensor '" + printable(name) + "'");
    }
  }
  const std::size_t alignment = gguf_alignment(header.metadata);
  const std::size_t data = ceil_div(cursor.at(), alignment) * alignment;
  place_tensors(header.tensors, data, file.size(), alignment, where);
  return header;
}

bool is_gguf_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  std::array<char, 4> head{};
  std::ifstream stream(path, std::ios::binary);
  stream.read(head.data(), head.size());
  return stream.gcount() == 4 && std::string_view(head.data(), 4) == "GGUF";
}

std::string gguf_part_name(std::string_view stem, std::size_t part,
                           std::size_t count) {
  return formatted("{}-{:05d}-of-{:05d}.gguf", stem, part + 1, count);
}

// --- a model -----------------------------------------------------------------

void GgufFile::add(GgufHeader header, TensorBytes bytes, std::string name) {
  for (GgufTensor& tensor : header.tensors) {
    tensors_.push_back(std::move(tensor));
    part_of_.push_back(parts_.size());
  }
  parts_.push_back(std::move(bytes));
  names_.push_back(std::move(name));
}

void GgufFile::sort_tensors() {
  std::vector<std::size_t> order(tensors_.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, {}, [&](std::size_t i) -> const std::string& {
    return tensors_[i].name;
  });
  std::vector<GgufTensor> tensors;
  std::vector<std::size_t> parts;
  for (const std::size_t i : order) {
    if (!tensors.empty() && tensors.back().name == tensors_[i].name) {
      fail(ErrorCode::kCorruptFile, "{}: tensor '{}' is in {} too",
           names_[part_of_[i]], printable(tensors_[i].name),
           names_[parts.back()]);
    }
    tensors.push_back(tensors_[i]);
    parts.push_back(part_of_[i]);
  }
  tensors_ = std::move(tensors);
  part_of_ = std::move(parts);
}

GgufFile GgufFile::read(TensorBytes file, const std::string& where) {
  GgufFile result;
  GgufHeader header = parse_gguf(file.bytes, where);
  result.metadata_ = std::move(header.metadata);
  result.add(std::move(header), std::move(file),
             std::filesystem::path(where).filename().string());
  result.sort_tensors();
  return result;
}

GgufFile GgufFile::open(const std::filesystem::path& path) {
  GgufFile result;
  TensorBytes bytes = map_file(path);
  GgufHeader header = parse_gguf(bytes.bytes, path.string());
  result.metadata_ = header.metadata;
  const std::size_t count =
      std::max<std::size_t>(1, header.metadata.size("split.count").value_or(1));
  result.paths_ = count == 1 ? std::vector{path} : part_paths(path, count);
  result.add(std::move(header), std::move(bytes), path.filename().string());
  for (std::size_t part = 1; part < count; ++part) {
    const std::filesystem::path& own = result.paths_[part];
    bytes = map_file(own);
    header = parse_gguf(bytes.bytes, own.string());
    const auto number = header.metadata.size("split.no");
    if (header.metadata.size("split.count") != count || number != part) {
      fail(ErrorCode::kCorruptFile, "{}: is no part {} of {} of a model", own,
           part + 1, count);
    }
    result.add(std::move(header), std::move(bytes), own.filename().string());
  }
  const auto wanted = result.metadata_.size("split.tensors.count");
  if (wanted && *wanted != result.tensors_.size()) {
    fail(ErrorCode::kCorruptFile, "{}: {} tensors, split.tensors.count is {}",
         path, result.tensors_.size(), *wanted);
  }
  result.sort_tensors();
  return result;
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto at = std::ranges::lower_bound(
      tensors_, name, {},
      [](const GgufTensor& t) { return std::string_view(t.name); });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

std::size_t GgufFile::index_of(const GgufTensor& tensor) const {
  return static_cast<std::size_t>(&tensor - tensors_.data());
}

TensorBytes GgufFile::read(const GgufTensor& tensor) const {
  return mapped_part(parts_[part_of_[index_of(tensor)]], tensor.begin,
                     tensor.bytes);
}

const std::string& GgufFile::file_of(const GgufTensor& tensor) const {
  return names_[part_of_[index_of(tensor)]];
}

}  // namespace llmpress
