// A whole file as bytes, mapped read-only: pages come in as they are touched,
// so a checkpoint larger than memory can be read.
#pragma once

#include <filesystem>

#include "formats/tensor_io.h"

namespace llmpress {

// Throws Error(kIo) with the path and the reason; a directory or a device is
// refused.
TensorBytes map_file(const std::filesystem::path& path);

}  // namespace llmpress
