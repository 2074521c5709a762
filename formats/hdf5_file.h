// Tensors in one HDF5 file (docs/artifacts.md).
#pragma once

#include <filesystem>
#include <memory>

#include "formats/tensor_io.h"

namespace llmpress {

bool is_hdf5_file(const std::filesystem::path& path);
std::unique_ptr<TensorReader> open_hdf5_tensors(
    const std::filesystem::path& path);

}  // namespace llmpress
