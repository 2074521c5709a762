// What an HDF5 file holds, found by the library itself, which crashes, loops
// and leaks on damaged files (1.10.8): call these in a child process alone, as
// hdf5_file.cpp does, or on a file that was just written.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/containers/tensor_io.h"

namespace llmpress {

struct Hdf5Dataset {
  TensorInfo info{};
  std::string path{};  // in the file: "/tensors/a.weight"
  // Where its octets lie as they are in memory; none if they must be decoded.
  std::optional<std::size_t> offset{};
};

struct Hdf5Catalog {
  std::map<std::string, std::string> metadata{};
  std::vector<Hdf5Dataset> datasets{};  // sorted by name
};

// `where` names the file in messages. Throw Error(kCorruptFile) or
// Error(kUnsupported).
Hdf5Catalog read_hdf5_catalog(const std::string& file,
                              const std::string& where);
void read_hdf5_dataset(const std::string& file, const Hdf5Dataset& dataset,
                       const std::string& where, std::span<std::byte> into);
std::map<std::string, std::string> read_hdf5_carried(const std::string& file,
                                                     const std::string& where);

// Between processes; parsing throws Error(kCorruptFile) on anything else.
std::string serialize(const Hdf5Catalog& catalog);
std::string serialize(const std::map<std::string, std::string>& strings);
Hdf5Catalog parse_hdf5_catalog(std::string_view text, const std::string& where);
std::map<std::string, std::string> parse_strings(std::string_view text,
                                                 const std::string& where);

}  // namespace llmpress
