#include "formats/hdf5_file.h"

#include "compress/core/error.h"

namespace llmpress {

bool is_hdf5_file(const std::filesystem::path&) { return false; }

std::unique_ptr<TensorReader> open_hdf5_tensors(
    const std::filesystem::path& path) {
  throw Error(ErrorCode::kUnsupported, path.string() + ": HDF5");
}

}  // namespace llmpress
