// What HDF5 needs around every call: one thread at a time (the library keeps
// global state), no messages of its own, and ids that are closed again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/dtype.h"

namespace llmpress {

// Held while HDF5 is called: the process-wide lock, and silence.
class Hdf5Session {
 public:
  Hdf5Session();
  ~Hdf5Session();
  Hdf5Session(const Hdf5Session&) = delete;
  Hdf5Session& operator=(const Hdf5Session&) = delete;

 private:
  std::scoped_lock<std::recursive_mutex> lock_;
  void* printer_ = nullptr;
  void* printer_data_ = nullptr;
};

// An hid_t that is released at the end, whatever it identifies.
class Hdf5Handle {
 public:
  Hdf5Handle() = default;
  // Throws Error(kCorruptFile, "<what>: <the library's reason>") if `id` says
  // that the call that made it failed.
  Hdf5Handle(std::int64_t id, const std::string& what);
  ~Hdf5Handle();
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  std::int64_t get() const { return id_; }

 private:
  std::int64_t id_ = -1;
};

// Throws as above if `status` is negative.
void hdf5_check(int status, const std::string& what);

// A string attribute, of fixed or variable length; nullopt if there is none or
// it is not one string.
std::optional<std::string> read_string_attribute(const Hdf5Handle& object,
                                                 const std::string& name,
                                                 const std::string& where);
std::map<std::string, std::string> read_string_attributes(
    const Hdf5Handle& object, const std::string& where);
void write_string_attribute(const Hdf5Handle& object, const std::string& name,
                            const std::string& value, const std::string& where);

// The HDF5 type that stands for `dtype`, in a file and, as every machine that
// this runs on is little-endian, in memory. Throws Error(kUnsupported) for F4.
std::int64_t hdf5_type_of(DType dtype, const std::string& where);

// The shape of a dataset. Throws if it has none.
std::vector<std::size_t> hdf5_shape(const Hdf5Handle& dataset,
                                    const std::string& where);

// Throws Error(kCorruptFile) unless the file holds data for `bytes` octets of
// the dataset, in this file and within what its filters can expand to; and
// Error(kUnsupported) for data kept in other files.
void check_hdf5_storage(const Hdf5Handle& dataset, std::size_t bytes,
                        const std::string& where);

// A whole dataset as elements of `memory_type` (an hid_t).
void read_hdf5(const Hdf5Handle& dataset, std::int64_t memory_type,
               std::span<std::byte> into, const std::string& where);

// A new contiguous dataset without time stamps.
Hdf5Handle write_hdf5(const Hdf5Handle& group, const std::string& name,
                      std::int64_t type, std::span<const std::size_t> shape,
                      std::span<const std::byte> bytes,
                      const std::string& where);

// Names of the links in a group, sorted; `datasets` and `groups` split by what
// they lead to. Throws Error(kUnsupported) for links out of the file.
struct Hdf5Members {
  std::vector<std::string> datasets{}, groups{};
};
Hdf5Members hdf5_members(const Hdf5Handle& group, const std::string& where);

Hdf5Handle open_hdf5(const std::string& path, const std::string& where);
// For writing; root attributes may be of any size.
Hdf5Handle create_hdf5(const std::string& path);
void hdf5_flush(const Hdf5Handle& file, const std::string& where);
Hdf5Handle create_hdf5_group(const Hdf5Handle& parent, const std::string& name,
                             const std::string& where);

}  // namespace llmpress
