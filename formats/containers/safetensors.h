// safetensors: named tensors in one file, as Hugging Face stores models.
//
//   | u64 N | N octets of JSON | tensors |         N <= 100 000 000
//   {"__metadata__":{"format":"pt"},
//    "a.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}, ...}
//
// Offsets count from the end of the header and cover the rest of the file
// without holes or overlaps. The reference (safetensors/src/tensor.rs) writes
// tensors by falling dtype, then by name, and pads the header with spaces to a
// multiple of 8; so do we, octet for octet. Reading maps the file and checks
// all of the header before any tensor is touched; a tensor may lie at any
// alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/containers/tensor_io.h"

namespace llmpress {

inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors{};  // sorted by name
  std::vector<std::size_t>
      begins{};  // of each, in octets from the file's start
  std::map<std::string, std::string> metadata{};
};

// Checks everything that can be known without reading tensor data. `where`
// stands in front of messages. Throws Error(kCorruptFile), or kUnsupported for
// a dtype that this version does not know.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file,
                                    const std::string& where);

std::unique_ptr<TensorReader> open_safetensors(
    const std::filesystem::path& path);

// The same over bytes in memory; `owner` keeps them alive.
std::unique_ptr<TensorReader> read_safetensors(TensorBytes file,
                                               const std::string& where);

// Indices of `tensors` in the order of the reference writer.
std::vector<std::size_t> safetensors_order(std::span<const TensorInfo> tensors);

// The first 8 + N octets of a file that holds `tensors` in that order, or in
// the one that is given; at least `room`, padded with spaces.
std::string safetensors_header(
    std::span<const TensorInfo> tensors,
    const std::map<std::string, std::string>& metadata);
std::string safetensors_header(
    std::span<const TensorInfo> tensors,
    const std::map<std::string, std::string>& metadata,
    std::span<const std::size_t> order, std::size_t room);

// A whole small file in memory.
std::string write_safetensors(
    std::span<const NamedTensor> tensors,
    const std::map<std::string, std::string>& metadata);

// shape and size of a tensor agree, or Error(kInvalidArgument).
TensorInfo info_of(const NamedTensor& tensor);

}  // namespace llmpress
