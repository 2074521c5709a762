#include "formats/containers/hdf5_file.h"

#include <hdf5.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/containers/hdf5_catalog.h"
#include "formats/files/child_process.h"
#include "formats/files/mapped_file.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

// The file that was opened, whatever its name stands for by now.
class OpenFile {
 public:
  explicit OpenFile(const fs::path& path)
      : where_(path.string()),
        descriptor_(open_regular_file(path)),
        octets_(map_file(descriptor_, path)) {}

  const std::string& where() const { return where_; }
  const TensorBytes& octets() const { return octets_; }
  std::string name_in_child() const {
    return "/proc/self/fd/" + std::to_string(descriptor_.get());
  }

  // A list of names costs some 300 octets an object, of which the library
  // opens 10,000 a second at least; a slow disk gives a megabyte a second. What
  // damage makes of a small file ends within ten seconds.
  ChildLimits limits() const {
    const std::size_t size = octets_.bytes.size();
    return {.cpu_seconds = 1 + std::min<std::size_t>(size >> 22, 59),
            .wall_seconds = 8 + std::min<std::size_t>(size >> 20, 592)};
  }

 private:
  std::string where_;
  FileDescriptor descriptor_;
  TensorBytes octets_;
};

// Memory that a child process writes to.
TensorBytes shared_buffer(std::size_t bytes, const std::string& where) {
  if (bytes == 0) return {};
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) {
    fail(ErrorCode::kResource, "{}: no memory for {} octets: {}", where, bytes,
         std::strerror(errno));
  }
  std::shared_ptr<const void> owner(
      at, [bytes](const void* p) { ::munmap(const_cast<void*>(p), bytes); });
  return {{static_cast<const std::byte*>(at), bytes}, std::move(owner)};
}

// The library only ever runs in a child process; here its list is looked at,
// and octets that lie in the file as they are.
class Hdf5Reader : public TensorReader {
 public:
  explicit Hdf5Reader(const fs::path& path) : file_(path) {
    const std::string list = run_in_child(file_.where(), file_.limits(), [&] {
      return serialize(read_hdf5_catalog(file_.name_in_child(), file_.where()));
    });
    catalog_ = parse_hdf5_catalog(list, file_.where());
    for (const Hdf5Dataset& d : catalog_.datasets) tensors_.push_back(d.info);
  }

  std::span<const TensorInfo> tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override {
    return catalog_.metadata;
  }

  TensorBytes read(const TensorInfo& info) const override {
    const auto at =
        static_cast<std::size_t>(&require(info.name) - tensors_.data());
    const Hdf5Dataset& dataset = catalog_.datasets[at];
    return dataset.offset ? in_place(dataset) : decoded(dataset);
  }

 private:
  TensorBytes in_place(const Hdf5Dataset& dataset) const {
    const auto all = file_.octets().bytes;
    const std::size_t bytes = dataset.info.bytes;
    if (bytes > all.size() || *dataset.offset > all.size() - bytes) {
      fail(ErrorCode::kCorruptFile, "{}: tensor '{}': exceeds the file",
           file_.where(), dataset.info.name);
    }
    return {all.subspan(*dataset.offset, bytes), file_.octets().owner};
  }

  TensorBytes decoded(const Hdf5Dataset& dataset) const {
    const std::size_t bytes = dataset.info.bytes;
    TensorBytes buffer = shared_buffer(bytes, file_.where());
    ChildLimits limits = file_.limits();
    limits.cpu_seconds += bytes >> 24;  // inflating 16 MB/s, at the least
    limits.wall_seconds += bytes >> 22;
    limits.memory_bytes += checked_mul(3, bytes, file_.where());
    run_in_child(file_.where(), limits, [&] {
      read_hdf5_dataset(file_.name_in_child(), dataset, file_.where(),
                        {const_cast<std::byte*>(buffer.bytes.data()), bytes});
      return std::string();
    });
    return buffer;
  }

  OpenFile file_;
  Hdf5Catalog catalog_{};
  std::vector<TensorInfo> tensors_{};
};

// "" and "." are not links, '/' would make groups.
void check_link_name(const std::string& name, const std::string& where) {
  if (name.empty() || name == "." || name == ".." ||
      name.find_first_of(std::string_view("/\0", 2)) != std::string::npos) {
    fail(ErrorCode::kUnsupported, "{}: '{}' cannot be a name in an HDF5 file",
         where, name);
  }
}

}  // namespace

bool is_hdf5_file(const fs::path& path) {
  constexpr char kSignature[] = "\x89HDF\r\n\x1a\n";
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return false;  // a pipe would block
  const TensorBytes file = map_file(path);
  const std::string_view octets(
      reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size());
  for (std::size_t at = 0; at < octets.size() && at <= std::size_t{1} << 30;
       at = at == 0 ? 512 : at * 2) {
    if (octets.substr(at).starts_with(kSignature)) return true;
  }
  return false;
}

std::unique_ptr<TensorReader> open_hdf5_tensors(const fs::path& path) {
  return std::make_unique<Hdf5Reader>(path);
}

std::map<std::string, std::string> read_hdf5_files(const fs::path& path) {
  const OpenFile file(path);
  const std::string files = run_in_child(file.where(), file.limits(), [&] {
    return serialize(read_hdf5_carried(file.name_in_child(), file.where()));
  });
  return parse_strings(files, file.where());
}

void write_hdf5_tensor(const Hdf5Handle& group, const NamedTensor& tensor,
                       const std::string& where) {
  const Hdf5Session session;
  const std::string at = where + ": tensor '" + tensor.name + "'";
  check_link_name(tensor.name, where);
  if (tensor.shape.size() > H5S_MAX_RANK) {
    fail(ErrorCode::kUnsupported, "{}: has too many dimensions", at);
  }
  const Hdf5Handle dataset =
      write_hdf5(group, tensor.name, hdf5_type_of(tensor.dtype, at),
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
