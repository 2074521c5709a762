// The tensors that a pickle of torch.save describes (torch/_utils.py,
// torch/serialization.py), as numbers: which storage, from where, what shape
// and strides.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/dtype.h"
#include "formats/containers/pickle.h"

namespace llmpress {

struct TorchTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::string_view storage{};                   // its key
  std::size_t offset = 0;                       // in elements of the storage
  std::vector<std::size_t> shape{}, strides{};  // in elements
};

struct TorchState {
  std::vector<TorchTensor> tensors{};  // in the order of the dict
  // Octets of each storage that the pickle names, by key.
  std::map<std::string_view, std::size_t> storages{};
};

// What read_pickle() may find in such a file.
std::span<const std::string_view> torch_globals();

// Throws Error(kCorruptFile, kUnsupported) with the octet of the pickle. The
// result's views are of the pickle's octets.
TorchState read_torch_state(const Pickle& pickle, const std::string& where);

}  // namespace llmpress
