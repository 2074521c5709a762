#include "formats/containers/hdf5_catalog.h"

#include <hdf5.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/containers/hdf5_file.h"

namespace llmpress {
namespace {

constexpr int kMaxDepth = 32;
constexpr std::size_t kMaxTensors = 1'000'000;

// What a dataset without a "dtype" attribute holds; nullopt if not numbers.
std::optional<DType> dtype_of(const Hdf5Handle& type) {
  const std::size_t size = H5Tget_size(type.get());
  const H5T_class_t kind = H5Tget_class(type.get());
  if (kind == H5T_FLOAT) {
    if (size == 4) return DType::kF32;
    if (size == 8) return DType::kF64;
    return std::nullopt;
  }
  if (kind != H5T_INTEGER) return std::nullopt;
  const bool is_signed = H5Tget_sign(type.get()) == H5T_SGN_2;
  switch (size) {
    case 1:
      return is_signed ? DType::kI8 : DType::kU8;
    case 2:
      return is_signed ? DType::kI16 : DType::kU16;
    case 4:
      return is_signed ? DType::kI32 : DType::kU32;
    case 8:
      return is_signed ? DType::kI64 : DType::kU64;
    default:
      return std::nullopt;
  }
}

Hdf5Handle open_dataset(const Hdf5Handle& file, const std::string& path,
                        const std::string& where) {
  return {H5Dopen2(file.get(), path.c_str(), H5P_DEFAULT), where};
}

Hdf5Handle open_group(const Hdf5Handle& file, const std::string& path,
                      const std::string& where) {
  return {H5Gopen2(file.get(), path.c_str(), H5P_DEFAULT), where};
}

bool contains(const std::vector<std::string>& names, const char* name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Where the octets of `type` lie as they are in memory.
std::optional<std::size_t> plain_offset(const Hdf5Handle& dataset,
                                        const Hdf5Handle& type, DType dtype,
                                        const std::string& where) {
  const Hdf5Handle plist(H5Dget_create_plist(dataset.get()), where);
  const haddr_t at = H5Dget_offset(dataset.get());
  if (at == HADDR_UNDEF || H5Pget_layout(plist.get()) != H5D_CONTIGUOUS ||
      H5Tequal(type.get(), hdf5_type_of(dtype, where)) <= 0) {
    return std::nullopt;
  }
  return at;
}

class CatalogReader {
 public:
  CatalogReader(const std::string& path, const std::string& where)
      : where_(where),
        file_name_(std::filesystem::path(where).filename().string()),
        file_(open_hdf5(path, where)) {}

  Hdf5Catalog read() {
    const Hdf5Handle root = open_group(file_, "/", where_);
    catalog_.metadata = read_string_attributes(root, where_);
    if (contains(hdf5_members(root, where_).groups, kHdf5TensorGroup)) {
      add_group(formatted("/{}/", kHdf5TensorGroup), "", kMaxDepth);
    } else {
      add_group("/", "", 0);
    }
    auto& all = catalog_.datasets;
    std::ranges::sort(all, {},
                      [](const Hdf5Dataset& d) { return d.info.name; });
    const auto twice = std::ranges::adjacent_find(
        all, {}, [](const Hdf5Dataset& d) { return d.info.name; });
    if (twice != all.end()) {
      fail(ErrorCode::kCorruptFile, "{}: tensor '{}': is there twice", where_,
           twice->info.name);
    }
    return std::move(catalog_);
  }

 private:
  // Groups below /tensors (depth kMaxDepth) are not ours; elsewhere they are
  // part of names.
  void add_group(const std::string& path, const std::string& prefix,
                 int depth) {
    const Hdf5Members members =
        hdf5_members(open_group(file_, path, where_), where_ + ": " + path);
    for (const std::string& name : members.datasets) {
      add_dataset(path + name, prefix + name, depth == kMaxDepth);
    }
    if (depth == kMaxDepth) return;
    for (const std::string& name : members.groups) {
      if (depth + 1 == kMaxDepth) {
        fail(ErrorCode::kUnsupported, "{}: groups nested more than 30 deep",
             where_);
      }
      add_group(path + name + "/", prefix + name + ".", depth + 1);
    }
  }

  void add_dataset(const std::string& path, const std::string& name,
                   bool ours) {
    const std::string where = where_ + ": tensor '" + name + "'";
    if (catalog_.datasets.size() == kMaxTensors) {
      fail(ErrorCode::kUnsupported, "{}: more than 1000000 tensors", where_);
    }
    const Hdf5Handle dataset = open_dataset(file_, path, where);
    const Hdf5Handle type(H5Dget_type(dataset.get()), where);
    const auto plain = dtype_of(type);
    const auto named = read_string_attribute(dataset, "dtype", where);
    if (!plain && !named && !ours) return;  // strings, tables: not tensors
    TensorInfo info{.name = name, .file = file_name_};
    info.dtype = dtype_from(type, plain, named, where);
    info.shape = hdf5_shape(dataset, where);
    info.bytes = checked_mul(checked_elements(info.shape, where),
                             facts(info.dtype).bits / 8, where);
    check_hdf5_storage(dataset, info.bytes, where);
    const auto offset = plain_offset(dataset, type, info.dtype, where);
    catalog_.datasets.push_back({std::move(info), path, offset});
  }

  static DType dtype_from(const Hdf5Handle& type, std::optional<DType> plain,
                          const std::optional<std::string>& named,
                          const std::string& where) {
    if (!named && plain) return *plain;
    const auto dtype = named ? parse_dtype(*named) : std::nullopt;
    if (!dtype) {
      fail(ErrorCode::kUnsupported, "{}: unknown dtype '{}'", where,
           named.value_or(""));
    }
    const std::int64_t wanted = hdf5_type_of(*dtype, where);
    if (H5Tget_class(type.get()) != H5Tget_class(wanted) ||
        H5Tget_size(type.get()) != H5Tget_size(wanted)) {
      fail(ErrorCode::kCorruptFile, "{}: its HDF5 type is not that of {}",
           where, *named);
    }
    return *dtype;
  }

  const std::string where_, file_name_;
  const Hdf5Handle file_;
  Hdf5Catalog catalog_{};
};

void put(std::string& out, std::uint64_t number) {
  out.append(reinterpret_cast<const char*>(&number), sizeof number);
}

void put(std::string& out, std::string_view text) {
  put(out, text.size());
  out += text;
}

// Takes apart what put() joined.
class Parser {
 public:
  Parser(std::string_view text, const std::string& where)
      : text_(text), where_(where) {}

  std::uint64_t number() {
    std::uint64_t value = 0;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string string() { return std::string(take(number())); }
  bool at_end() const { return text_.empty(); }
  [[noreturn]] void corrupt() const {
    fail(ErrorCode::kCorruptFile, "{}: its list is damaged", where_);
  }

 private:
  std::string_view take(std::size_t size) {
    if (size > text_.size()) corrupt();
    const std::string_view part = text_.substr(0, size);
    text_.remove_prefix(size);
    return part;
  }

  std::string_view text_;
  const std::string& where_;
};

void put(std::string& out, const std::map<std::string, std::string>& strings) {
  put(out, strings.size());
  for (const auto& [name, text] : strings) {
    put(out, std::string_view(name));
    put(out, std::string_view(text));
  }
}

std::map<std::string, std::string> strings_of(Parser& parser) {
  std::map<std::string, std::string> strings;
  for (std::uint64_t left = parser.number(); left > 0; --left) {
    std::string name = parser.string();
    strings[std::move(name)] = parser.string();
  }
  return strings;
}

void put(std::string& out, const Hdf5Dataset& dataset) {
  const TensorInfo& info = dataset.info;
  for (const auto& text : {info.name, info.file, dataset.path}) {
    put(out, std::string_view(text));
  }
  put(out, std::string_view(facts(info.dtype).name));
  put(out, info.shape.size());
  for (const std::size_t d : info.shape) put(out, d);
  put(out, dataset.offset.has_value() ? 1 + *dataset.offset : 0);
}

Hdf5Dataset dataset_of(Parser& parser, const std::string& where) {
  Hdf5Dataset dataset;
  dataset.info.name = parser.string();
  dataset.info.file = parser.string();
  dataset.path = parser.string();
  const auto dtype = parse_dtype(parser.string());
  if (!dtype) parser.corrupt();
  dataset.info.dtype = *dtype;
  for (std::uint64_t left = parser.number(); left > 0; --left) {
    dataset.info.shape.push_back(parser.number());
  }
  dataset.info.bytes = checked_mul(checked_elements(dataset.info.shape, where),
                                   facts(*dtype).bits / 8, where);
  const std::uint64_t offset = parser.number();
  if (offset != 0) dataset.offset = offset - 1;
  return dataset;
}

}  // namespace

Hdf5Catalog read_hdf5_catalog(const std::string& file,
                              const std::string& where) {
  const Hdf5Session session;
  return CatalogReader(file, where).read();
}

void read_hdf5_dataset(const std::string& file, const Hdf5Dataset& dataset,
                       const std::string& where, std::span<std::byte> into) {
  const Hdf5Session session;
  const Hdf5Handle root = open_hdf5(file, where);
  const std::string at = where + ": tensor '" + dataset.info.name + "'";
  const Hdf5Handle opened = open_dataset(root, dataset.path, at);
  if (hdf5_shape(opened, at) != dataset.info.shape) {
    fail(ErrorCode::kCorruptFile, "{}: its shape has changed", at);
  }
  read_hdf5(opened, hdf5_type_of(dataset.info.dtype, at), into, at);
}

std::map<std::string, std::string> read_hdf5_carried(const std::string& file,
                                                     const std::string& where) {
  const Hdf5Session session;
  const Hdf5Handle opened = open_hdf5(file, where);
  const Hdf5Handle root = open_group(opened, "/", where);
  std::map<std::string, std::string> files;
  if (!contains(hdf5_members(root, where).groups, kHdf5FileGroup)) return files;
  const Hdf5Handle group = open_group(root, kHdf5FileGroup, where);
  for (const std::string& name : hdf5_members(group, where).datasets) {
    const std::string at = where + ": file '" + name + "'";
    const Hdf5Handle dataset = open_dataset(group, name, at);
    const Hdf5Handle type(H5Dget_type(dataset.get()), at);
    const auto shape = hdf5_shape(dataset, at);
    if (dtype_of(type) != DType::kU8 || shape.size() != 1) {
      fail(ErrorCode::kCorruptFile, "{}: is not a list of octets", at);
    }
    check_hdf5_storage(dataset, shape[0], at);
    std::string& text = files[name];
    text.resize(shape[0]);
    read_hdf5(dataset, H5T_STD_U8LE, std::as_writable_bytes(std::span(text)),
              at);
  }
  return files;
}

std::string serialize(const Hdf5Catalog& catalog) {
  std::string out;
  put(out, catalog.metadata);
  for (const Hdf5Dataset& dataset : catalog.datasets) put(out, dataset);
  return out;
}

std::string serialize(const std::map<std::string, std::string>& strings) {
  std::string out;
  put(out, strings);
  return out;
}

Hdf5Catalog parse_hdf5_catalog(std::string_view text,
                               const std::string& where) {
  Parser parser(text, where);
  Hdf5Catalog catalog{.metadata = strings_of(parser)};
  while (!parser.at_end())
    catalog.datasets.push_back(dataset_of(parser, where));
  const auto name = [](const Hdf5Dataset& d) { return d.info.name; };
  if (!std::ranges::is_sorted(catalog.datasets, {}, name)) parser.corrupt();
  return catalog;
}

std::map<std::string, std::string> parse_strings(std::string_view text,
                                                 const std::string& where) {
  Parser parser(text, where);
  return strings_of(parser);
}

}  // namespace llmpress
