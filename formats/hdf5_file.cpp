#include "formats/hdf5_file.h"

#include <hdf5.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <optional>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/error.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxDepth = 32;
constexpr std::size_t kMaxTensors = 1'000'000;

// The HDF5 type that stands for `dtype`, in a file and, as every machine that
// this runs on is little-endian, in memory.
hid_t stored_type(DType dtype, const std::string& where) {
  switch (dtype) {
    case DType::kBool:
    case DType::kU8:
    case DType::kF8E5M2:
    case DType::kF8E4M3:
    case DType::kF8E8M0:
      return H5T_STD_U8LE;
    case DType::kI8:
      return H5T_STD_I8LE;
    case DType::kU16:
    case DType::kF16:
    case DType::kBF16:
      return H5T_STD_U16LE;
    case DType::kI16:
      return H5T_STD_I16LE;
    case DType::kI32:
      return H5T_STD_I32LE;
    case DType::kU32:
      return H5T_STD_U32LE;
    case DType::kF32:
      return H5T_IEEE_F32LE;
    case DType::kF64:
      return H5T_IEEE_F64LE;
    case DType::kI64:
      return H5T_STD_I64LE;
    case DType::kU64:
      return H5T_STD_U64LE;
    case DType::kF4:
      break;
  }
  throw Error(
      ErrorCode::kUnsupported,
      where + ": F4 elements are half an octet, which HDF5 cannot hold");
}

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

class Hdf5Reader : public TensorReader {
 public:
  explicit Hdf5Reader(const fs::path& path)
      : where_(path.string()), file_name_(path.filename().string()) {
    const Hdf5Session session;
    file_ = open_hdf5(where_);
    const Hdf5Handle root = open_group(file_, "/", where_);
    metadata_ = read_string_attributes(root, where_);
    if (contains(hdf5_members(root, where_).groups, kHdf5TensorGroup)) {
      add_group(std::string("/") + kHdf5TensorGroup + "/", "", kMaxDepth);
    } else {
      add_group("/", "", 0);
    }
    std::sort(tensors_.begin(), tensors_.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
  }

  std::span<const TensorInfo> tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override {
    return metadata_;
  }

  TensorBytes read(const TensorInfo& info) const override {
    const TensorInfo& own = require(info.name);
    const std::string where = where_ + ": tensor '" + own.name + "'";
    const Hdf5Session session;
    const Hdf5Handle dataset = open_dataset(file_, paths_.at(own.name), where);
    auto data = std::make_shared<const std::vector<std::byte>>(
        read_hdf5(dataset, stored_type(own.dtype, where), own.bytes, where));
    return {*data, data};
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
        throw Error(ErrorCode::kUnsupported,
                    where_ + ": groups nested more than 30 deep");
      }
      add_group(path + name + "/", prefix + name + ".", depth + 1);
    }
  }

  void add_dataset(const std::string& path, const std::string& name,
                   bool ours) {
    const std::string where = where_ + ": tensor '" + name + "'";
    if (tensors_.size() == kMaxTensors) {
      throw Error(ErrorCode::kUnsupported,
                  where_ + ": more than 1000000 tensors");
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
    if (!paths_.emplace(name, path).second) {
      throw Error(ErrorCode::kCorruptFile, where + ": is there twice");
    }
    tensors_.push_back(std::move(info));
  }

  static DType dtype_from(const Hdf5Handle& type, std::optional<DType> plain,
                          const std::optional<std::string>& named,
                          const std::string& where) {
    if (!named && plain) return *plain;
    const auto dtype = named ? parse_dtype(*named) : std::nullopt;
    if (!dtype) {
      throw Error(ErrorCode::kUnsupported,
                  where + ": unknown dtype '" + named.value_or("") + "'");
    }
    const hid_t wanted = stored_type(*dtype, where);
    if (H5Tget_class(type.get()) != H5Tget_class(wanted) ||
        H5Tget_size(type.get()) != H5Tget_size(wanted)) {
      throw Error(ErrorCode::kCorruptFile,
                  where + ": its HDF5 type is not that of " + *named);
    }
    return *dtype;
  }

  std::string where_, file_name_;
  Hdf5Handle file_{};
  std::vector<TensorInfo> tensors_{};
  std::map<std::string, std::string> paths_{}, metadata_{};
};

// "" and "." are not links, '/' would make groups.
void check_link_name(const std::string& name, const std::string& where) {
  if (name.empty() || name == "." || name == ".." ||
      name.find_first_of(std::string_view("/\0", 2)) != std::string::npos) {
    throw Error(ErrorCode::kUnsupported,
                where + ": '" + name + "' cannot be a name in an HDF5 file");
  }
}

}  // namespace

bool is_hdf5_file(const fs::path& path) {
  constexpr char kSignature[] = "\x89HDF\r\n\x1a\n";
  std::ifstream file(path, std::ios::binary);
  for (std::streamoff at = 0; file; at = at == 0 ? 512 : at * 2) {
    char found[8] = {};
    if (!file.seekg(at).read(found, sizeof found)) break;
    if (std::memcmp(found, kSignature, sizeof found) == 0) return true;
    if (at > (std::streamoff{1} << 30)) break;
  }
  return false;
}

std::unique_ptr<TensorReader> open_hdf5_tensors(const fs::path& path) {
  return std::make_unique<Hdf5Reader>(path);
}

std::map<std::string, std::string> read_hdf5_files(const fs::path& path) {
  const Hdf5Session session;
  const std::string where = path.string();
  const Hdf5Handle file = open_hdf5(where);
  const Hdf5Handle root = open_group(file, "/", where);
  std::map<std::string, std::string> files;
  if (!contains(hdf5_members(root, where).groups, kHdf5FileGroup)) return files;
  const Hdf5Handle group = open_group(root, kHdf5FileGroup, where);
  for (const std::string& name : hdf5_members(group, where).datasets) {
    const std::string at = where + ": file '" + name + "'";
    const Hdf5Handle dataset = open_dataset(group, name, at);
    const Hdf5Handle type(H5Dget_type(dataset.get()), at);
    const auto shape = hdf5_shape(dataset, at);
    if (dtype_of(type) != DType::kU8 || shape.size() != 1) {
      throw Error(ErrorCode::kCorruptFile, at + ": is not a list of octets");
    }
    const auto octets = read_hdf5(dataset, H5T_STD_U8LE, shape[0], at);
    files[name].assign(reinterpret_cast<const char*>(octets.data()),
                       octets.size());
  }
  return files;
}

void write_hdf5_tensor(const Hdf5Handle& group, const NamedTensor& tensor,
                       const std::string& where) {
  const Hdf5Session session;
  const std::string at = where + ": tensor '" + tensor.name + "'";
  check_link_name(tensor.name, where);
  if (tensor.shape.size() > H5S_MAX_RANK) {
    throw Error(ErrorCode::kUnsupported, at + ": has too many dimensions");
  }
  const Hdf5Handle dataset =
      write_hdf5(group, tensor.name, stored_type(tensor.dtype, at),
                 tensor.shape, tensor.bytes, at);
  write_string_attribute(dataset, "dtype",
                         std::string(facts(tensor.dtype).name), at);
}

void write_hdf5_octets(const Hdf5Handle& group, const std::string& name,
                       const std::string& content, const std::string& where) {
  const Hdf5Session session;
  check_link_name(name, where);
  const std::vector<std::size_t> shape{content.size()};
  write_hdf5(group, name, H5T_STD_U8LE, shape,
             std::as_bytes(std::span(content)),
             where + ": file '" + name + "'");
}

}  // namespace llmpress
