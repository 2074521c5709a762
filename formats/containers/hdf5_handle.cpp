#include "formats/containers/hdf5_handle.h"

#include <hdf5.h>
#include <pthread.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

static_assert(sizeof(hid_t) == sizeof(std::int64_t));

// Deflate expands at most 1032 times.
constexpr std::size_t kMaxExpansion = 1100;

std::recursive_mutex* library_mutex_now = nullptr;

// A child process gets the library at rest, and a lock that no thread holds
// which it has not.
std::recursive_mutex& library_mutex() {
  static const int ready = [] {
    library_mutex_now = new std::recursive_mutex;
    return ::pthread_atfork(
        [] { library_mutex_now->lock(); }, [] { library_mutex_now->unlock(); },
        [] { library_mutex_now = new std::recursive_mutex; });
  }();
  (void)ready;
  return *library_mutex_now;
}

// The innermost entry of the library's error stack is the cause.
herr_t keep_first(unsigned, const H5E_error2_t* entry, void* text) {
  auto& reason = *static_cast<std::string*>(text);
  if (reason.empty() && entry->desc != nullptr) reason = entry->desc;
  return 0;
}

[[noreturn]] void refuse(const std::string& what) {
  std::string reason;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &reason);
  fail(ErrorCode::kCorruptFile, "{}: HDF5: {}", what,
       reason.empty() ? "failed" : reason);
}

Hdf5Handle simple_space(std::span<const std::size_t> shape,
                        const std::string& where) {
  if (shape.empty()) return {H5Screate(H5S_SCALAR), where};
  const std::vector<hsize_t> dims(shape.begin(), shape.end());
  return {H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr),
          where};
}

Hdf5Handle string_type(std::size_t size, const std::string& where) {
  Hdf5Handle type(H5Tcopy(H5T_C_S1), where);
  hdf5_check(H5Tset_size(type.get(), size), where);
  hdf5_check(H5Tset_strpad(type.get(), H5T_STR_NULLPAD), where);
  hdf5_check(H5Tset_cset(type.get(), H5T_CSET_UTF8), where);
  return type;
}

std::string read_variable_string(const Hdf5Handle& attribute,
                                 const Hdf5Handle& type,
                                 const std::string& where) {
  char* text = nullptr;
  hdf5_check(H5Aread(attribute.get(), type.get(), &text), where);
  const std::unique_ptr<char, herr_t (*)(void*)> owner(text, H5free_memory);
  return text == nullptr ? std::string() : std::string(text);
}

herr_t keep_attribute_name(hid_t, const char* name, const H5A_info_t*,
                           void* names) {
  static_cast<std::vector<std::string>*>(names)->emplace_back(name);
  return 0;
}

herr_t keep_name(hid_t, const char* name, const H5L_info_t*, void* names) {
  static_cast<std::vector<std::string>*>(names)->emplace_back(name);
  return 0;
}

}  // namespace

Hdf5Session::Hdf5Session() : lock_(library_mutex()) {
  // What the library would do at exit crashes after a write that failed; every
  // file is flushed and closed before.
  static const herr_t kept = H5dont_atexit();
  (void)kept;
  H5E_auto2_t printer = nullptr;
  H5Eget_auto2(H5E_DEFAULT, &printer, &printer_data_);
  std::memcpy(&printer_, &printer, sizeof printer);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  H5PLset_loading_state(0);  // no code from a path that a file can choose
}

Hdf5Session::~Hdf5Session() {
  H5E_auto2_t printer = nullptr;
  std::memcpy(&printer, &printer_, sizeof printer);
  H5Eset_auto2(H5E_DEFAULT, printer, printer_data_);
}

Hdf5Handle::Hdf5Handle(std::int64_t id, const std::string& what) : id_(id) {
  if (id_ < 0) refuse(what);
}

Hdf5Handle::~Hdf5Handle() {
  if (id_ < 0) return;
  const Hdf5Session session;
  // Property lists and the like are counted in the same way.
  H5Idec_ref(id_);
}

void hdf5_check(int status, const std::string& what) {
  if (status < 0) refuse(what);
}

std::optional<std::string> read_string_attribute(const Hdf5Handle& object,
                                                 const std::string& name,
                                                 const std::string& where) {
  const Hdf5Session session;
  if (H5Aexists(object.get(), name.c_str()) <= 0) return std::nullopt;
  const Hdf5Handle attribute(H5Aopen(object.get(), name.c_str(), H5P_DEFAULT),
                             where);
  const Hdf5Handle type(H5Aget_type(attribute.get()), where);
  const Hdf5Handle space(H5Aget_space(attribute.get()), where);
  if (H5Tget_class(type.get()) != H5T_STRING ||
      H5Sget_simple_extent_npoints(space.get()) != 1) {
    return std::nullopt;
  }
  if (H5Tis_variable_str(type.get()) > 0) {
    return read_variable_string(attribute, type, where);
  }
  const std::size_t size = H5Tget_size(type.get());
  if (size != H5Aget_storage_size(attribute.get())) refuse(where);
  std::string text(size, '\0');
  hdf5_check(H5Aread(attribute.get(), type.get(), text.data()), where);
  text.resize(std::min(text.find('\0'), text.size()));
  return text;
}

std::map<std::string, std::string> read_string_attributes(
    const Hdf5Handle& object, const std::string& where) {
  const Hdf5Session session;
  std::vector<std::string> names;
  hdf5_check(H5Aiterate2(object.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr,
                         keep_attribute_name, &names),
             where);
  std::map<std::string, std::string> attributes;
  for (const std::string& name : names) {
    if (auto text = read_string_attribute(object, name, where)) {
      attributes[name] = std::move(*text);
    }
  }
  return attributes;
}

void write_string_attribute(const Hdf5Handle& object, const std::string& name,
                            const std::string& value,
                            const std::string& where) {
  const Hdf5Session session;
  const Hdf5Handle type =
      string_type(std::max<std::size_t>(value.size(), 1), where);
  const Hdf5Handle space = simple_space({}, where);
  const Hdf5Handle attribute(H5Acreate2(object.get(), name.c_str(), type.get(),
                                        space.get(), H5P_DEFAULT, H5P_DEFAULT),
                             where);
  const char* const text = value.empty() ? "" : value.data();
  hdf5_check(H5Awrite(attribute.get(), type.get(), text), where);
}

std::int64_t hdf5_type_of(DType dtype, const std::string& where) {
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
  fail(ErrorCode::kUnsupported,
       "{}: F4 elements are half an octet, which HDF5 cannot hold", where);
}

std::vector<std::size_t> hdf5_shape(const Hdf5Handle& dataset,
                                    const std::string& where) {
  const Hdf5Session session;
  const Hdf5Handle space(H5Dget_space(dataset.get()), where);
  if (H5Sget_simple_extent_type(space.get()) == H5S_NULL) {
    fail(ErrorCode::kCorruptFile, "{}: has no shape", where);
  }
  const int rank = H5Sget_simple_extent_ndims(space.get());
  hdf5_check(rank, where);
  std::vector<hsize_t> dims(static_cast<std::size_t>(rank));
  hdf5_check(H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr),
             where);
  return {dims.begin(), dims.end()};
}

void check_hdf5_storage(const Hdf5Handle& dataset, std::size_t bytes,
                        const std::string& where) {
  const Hdf5Session session;
  const Hdf5Handle plist(H5Dget_create_plist(dataset.get()), where);
  const H5D_layout_t layout = H5Pget_layout(plist.get());
  if (layout == H5D_VIRTUAL || H5Pget_external_count(plist.get()) != 0) {
    fail(ErrorCode::kUnsupported, "{}: its data is in another file", where);
  }
  const std::size_t stored = H5Dget_storage_size(dataset.get());
  const bool expands = layout == H5D_CHUNKED;
  if (expands ? bytes / kMaxExpansion > stored || (bytes != 0 && stored == 0)
              : bytes > stored) {
    fail(ErrorCode::kCorruptFile, "{}: needs {} octets, the file holds {}",
         where, bytes, stored);
  }
}

void read_hdf5(const Hdf5Handle& dataset, std::int64_t memory_type,
               std::span<std::byte> into, const std::string& where) {
  const Hdf5Session session;
  check_hdf5_storage(dataset, into.size(), where);
  if (into.empty()) return;
  hdf5_check(H5Dread(dataset.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                     into.data()),
             where);
}

Hdf5Handle write_hdf5(const Hdf5Handle& group, const std::string& name,
                      std::int64_t type, std::span<const std::size_t> shape,
                      std::span<const std::byte> bytes,
                      const std::string& where) {
  const Hdf5Session session;
  const Hdf5Handle space = simple_space(shape, where);
  const Hdf5Handle plist(H5Pcreate(H5P_DATASET_CREATE), where);
  hdf5_check(H5Pset_layout(plist.get(), H5D_CONTIGUOUS), where);
  // The same content makes the same file.
  hdf5_check(H5Pset_obj_track_times(plist.get(), false), where);
  Hdf5Handle dataset(H5Dcreate2(group.get(), name.c_str(), type, space.get(),
                                H5P_DEFAULT, plist.get(), H5P_DEFAULT),
                     where);
  if (!bytes.empty()) {
    hdf5_check(H5Dwrite(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                        bytes.data()),
               where);
  }
  return dataset;
}

Hdf5Members hdf5_members(const Hdf5Handle& group, const std::string& where) {
  const Hdf5Session session;
  std::vector<std::string> names;
  hdf5_check(H5Literate(group.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr,
                        keep_name, &names),
             where);
  std::sort(names.begin(), names.end());
  Hdf5Members members;
  for (std::string& name : names) {
    H5L_info_t link{};
    hdf5_check(H5Lget_info(group.get(), name.c_str(), &link, H5P_DEFAULT),
               where);
    if (link.type != H5L_TYPE_HARD) {
      fail(ErrorCode::kUnsupported, "{}: '{}' is a link to elsewhere", where,
           name);
    }
    const Hdf5Handle object(H5Oopen(group.get(), name.c_str(), H5P_DEFAULT),
                            where);
    const H5I_type_t kind = H5Iget_type(object.get());
    if (kind == H5I_DATASET) members.datasets.push_back(name);
    if (kind == H5I_GROUP) members.groups.push_back(name);
  }
  return members;
}

Hdf5Handle open_hdf5(const std::string& path, const std::string& where) {
  const Hdf5Session session;
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), where);
  // Some network file systems have no locks, and a reader needs none.
  hdf5_check(H5Pset_file_locking(access.get(), false, true), where);
  return {H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), where};
}

Hdf5Handle create_hdf5(const std::string& path) {
  const Hdf5Session session;
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), path);
  // Attributes above 64 KiB (a long config.json) need the newer, dense storage.
  hdf5_check(
      H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_V110),
      path);
  const Hdf5Handle creation(H5Pcreate(H5P_FILE_CREATE), path);
  hdf5_check(H5Pset_attr_phase_change(creation.get(), 0, 0), path);
  hdf5_check(H5Pset_obj_track_times(creation.get(), false), path);
  return {H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()),
          path};
}

void hdf5_flush(const Hdf5Handle& file, const std::string& where) {
  const Hdf5Session session;
  hdf5_check(H5Fflush(file.get(), H5F_SCOPE_LOCAL), where);
}

Hdf5Handle create_hdf5_group(const Hdf5Handle& parent, const std::string& name,
                             const std::string& where) {
  const Hdf5Session session;
  const Hdf5Handle plist(H5Pcreate(H5P_GROUP_CREATE), where);
  hdf5_check(H5Pset_obj_track_times(plist.get(), false), where);
  return {H5Gcreate2(parent.get(), name.c_str(), H5P_DEFAULT, plist.get(),
                     H5P_DEFAULT),
          where};
}

}  // namespace llmpress
