// Octets as an HDF5 file. libhdf5 itself fails on some, in the child process
// that reads for us: here everything ends in a reader or an Error.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "formats/containers/hdf5_file.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  using namespace llmpress;
  static const std::filesystem::path path =
      std::filesystem::temp_directory_path() /
      formatted("llmpress-fuzz-{}.h5", ::getpid());
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(data),
             static_cast<std::streamsize>(size));
  try {
    const auto reader = open_hdf5_tensors(path);
    for (const TensorInfo& info : reader->tensors()) (void)reader->read(info);
    (void)read_hdf5_files(path);
  } catch (const Error&) {
  }
  return 0;
}
