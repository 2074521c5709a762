// The tensors of a file of torch.save as they are read: views of the mapped
// file where they lie in one piece, otherwise gathered by their strides.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/containers/tensor_io.h"
#include "formats/containers/torch_pickle.h"

namespace llmpress {

// Octets [begin, begin + size) of the file.
struct StorageRange {
  std::size_t begin = 0, size = 0;
};
using StorageRanges = std::map<std::string_view, StorageRange>;  // by key

class TorchTensors : public TensorReader {
 public:
  // `storages` has all of the state's, within the file. Throws
  // Error(kCorruptFile) for a tensor with an element outside of its storage,
  // kUnsupported for one that repeats elements to more octets than the file
  // has.
  TorchTensors(TensorBytes file, const TorchState& state,
               const StorageRanges& storages, const std::string& where);

  std::span<const TensorInfo> tensors() const override { return infos_; }
  const std::map<std::string, std::string>& metadata() const override {
    return metadata_;
  }
  TensorBytes read(const TensorInfo& info) const override;

 private:
  struct View {
    StorageRange storage{};
    std::size_t offset = 0;  // in elements
    std::vector<std::size_t> strides{};
    bool in_one_piece = true;
  };

  static View check(const TorchTensor& tensor, const StorageRange& storage,
                    std::size_t file_bytes, const std::string& where);
  static std::vector<std::byte> gathered(const TensorInfo& info,
                                         const View& view,
                                         std::span<const std::byte> storage);

  TensorBytes file_;
  std::vector<TensorInfo> infos_{};  // by name
  std::vector<View> views_{};        // of each
  std::map<std::string, std::string> metadata_{};
};

}  // namespace llmpress
