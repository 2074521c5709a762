// A model in one HDF5 file.
//
//   /            attributes "llmpress_format" = "1", and strings by name
//                (config.json, __metadata__ entries)
//   /tensors     one dataset a tensor, under its name with its dots; attribute
//                "dtype" is the safetensors name of its type, since HDF5 has
//                none for most: F16 and BF16 lie as 16-bit unsigned integers,
//                8-bit floats and booleans as octets, the rest as themselves
//   /files       carried files (tokenizer.json), each a dataset of octets
//
// A file without /tensors is read too: every dataset of a numeric type, named
// by its path with dots for slashes. Calls into HDF5 are serialized, and those
// that read are made in a child process (child_process.h).
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "formats/containers/hdf5_handle.h"
#include "formats/containers/tensor_io.h"

namespace llmpress {

inline constexpr const char* kHdf5FormatAttribute = "llmpress_format";
inline constexpr const char* kHdf5TensorGroup = "tensors";
inline constexpr const char* kHdf5FileGroup = "files";

// By its signature, which stands at octet 0 or 512, 1024, 2048, ...
bool is_hdf5_file(const std::filesystem::path& path);

// Throws Error(kCorruptFile) or Error(kUnsupported).
std::unique_ptr<TensorReader> open_hdf5_tensors(
    const std::filesystem::path& path);

// The carried files by name.
std::map<std::string, std::string> read_hdf5_files(
    const std::filesystem::path& path);

void write_hdf5_tensor(const Hdf5Handle& group, const NamedTensor& tensor,
                       const std::string& where);
void write_hdf5_octets(const Hdf5Handle& group, const std::string& name,
                       const std::string& content, const std::string& where);

}  // namespace llmpress
