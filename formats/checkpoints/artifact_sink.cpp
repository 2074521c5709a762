#include "formats/checkpoints/artifact_sink.h"

#include <stdexcept>

#include "compress/core/formatted.h"
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

void ArtifactSink::put_blocks(const NamedTensor& tensor, GgmlType) {
  throw std::logic_error("'" + tensor.name + "': blocks for another format");
}

void TensorLedger::add(const NamedTensor& tensor) {
  const TensorInfo info = info_of(tensor);
  const auto [at, added] = entries_.emplace(
      info.name, Entry{info.dtype, info.shape, hash_of(tensor.bytes)});
  if (!added) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}' was added twice", info.name);
  }
  total_bytes_ += info.bytes;
}

void TensorLedger::compare(const TensorReader& reader) const {
  const auto differs = [](const std::string& name, const char* what) {
    fail(ErrorCode::kIo, "reading back: tensor '{}' {}", name, what);
  };
  for (const TensorInfo& info : reader.tensors()) {
    if (!entries_.contains(info.name)) differs(info.name, "was never written");
  }
  for (const auto& [name, entry] : entries_) {
    const TensorInfo* const info = reader.find(name);
    if (info == nullptr) differs(name, "is missing");
    if (info->dtype != entry.dtype || info->shape != entry.shape) {
      differs(name, "has another type or shape");
    }
    if (hash_of(reader.read(*info).bytes) != entry.sha256) {
      differs(name, "has other octets than were written");
    }
  }
}

}  // namespace llmpress
