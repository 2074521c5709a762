#include "formats/checkpoints/artifact_sink.h"

#include "compress/core/error.h"
#include "formats/containers/safetensors.h"
#include "formats/files/sha256.h"

namespace llmpress {
namespace {

std::string hash_of(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.add(bytes);
  return hash.hex();
}

}  // namespace

void TensorLedger::add(const NamedTensor& tensor) {
  const TensorInfo info = info_of(tensor);
  const auto [at, added] = entries_.emplace(
      info.name, Entry{info.dtype, info.shape, hash_of(tensor.bytes)});
  if (!added) {
    throw Error(ErrorCode::kInvalidArgument,
                "tensor '" + info.name + "' was added twice");
  }
  total_bytes_ += info.bytes;
}

void TensorLedger::compare(const TensorReader& reader) const {
  const auto fail = [](const std::string& name, const char* what) {
    throw Error(ErrorCode::kIo, "reading back: tensor '" + name + "' " + what);
  };
  for (const TensorInfo& info : reader.tensors()) {
    if (!entries_.contains(info.name)) fail(info.name, "was never written");
  }
  for (const auto& [name, entry] : entries_) {
    const TensorInfo* const info = reader.find(name);
    if (info == nullptr) fail(name, "is missing");
    if (info->dtype != entry.dtype || info->shape != entry.shape) {
      fail(name, "has another type or shape");
    }
    if (hash_of(reader.read(*info).bytes) != entry.sha256) {
      fail(name, "has other octets than were written");
    }
  }
}

}  // namespace llmpress
