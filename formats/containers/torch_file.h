// What torch.save writes: a dict of tensors.
//
//   NAME/data.pkl       pickle of the dict; a tensor is a call of
//                       torch._utils._rebuild_tensor_v2(storage, offset, size,
//                       stride, ...) and a storage the persistent object
//                       ("storage", torch.FloatStorage, key, device, elements)
//   NAME/data/KEY       the storage's octets
//   NAME/byteorder      "little"
//
// in a zip archive of stored members (torch 1.6 and later; torch/serialization.py
// of 2.x), or before that one behind the other:
//
//   | magic | 1001 | {"little_endian": ...} | dict | [keys] |     pickles
//   | i64 elements, octets | ...                       of each key in turn
//
// The pickle is read as values (pickle.h): no global is called, whatever the
// file says, and what is no part of a tensor is refused by name. Tensors that
// lie in one piece are views of the mapped file; others are gathered when they
// are read. Tensors may share a storage.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "formats/containers/tensor_io.h"

namespace llmpress {

// By the first octets.
bool is_torch_file(const std::filesystem::path& path);

// The tensors of the dict, or of the dict in it that is called "state_dict",
// "model_state_dict", "model" or "module", by their keys. Throws
// Error(kCorruptFile) with the place for a file that breaks its form,
// kUnsupported for a global that is not a tensor's, big-endian numbers,
// compressed members, TorchScript, or an entry that is no tensor.
std::unique_ptr<TensorReader> open_torch_file(
    const std::filesystem::path& path);
std::unique_ptr<TensorReader> read_torch_file(TensorBytes file,
                                              const std::string& where);

// The file of torch.save, or index of several, that holds the weights of the
// model in a folder: pytorch_model.bin, pytorch_model.bin.index.json, or the
// only .bin, .pt or .pth of that form but those of a trainer's state. nullopt:
// there is none. Throws Error(kInvalidInput) naming two if there are several.
std::optional<std::filesystem::path> find_torch_weights(
    const std::filesystem::path& folder);

}  // namespace llmpress
