#include "formats/checkpoints/artifact_sink.h"

#include <stdexcept>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/containers/safetensors.h"
#include "formats/files/content_hash.h"

namespace llmpress {

namespace {

void check_hash(const StoredTensor& tensor, std::span<const std::byte> bytes) {
  if (tensor.hash.empty() || content_hash(bytes) == tensor.hash) return;
  fail(ErrorCode::kIo, "tensor '{}': {} has other octets than were written",
       tensor.info.name, tensor.from.file);
}

}  // namespace

void ArtifactSink::put_stored(const StoredTensor& tensor) {
  const TensorBytes stored = tensor.read();
  check_hash(tensor, stored.bytes);
  put({.name = tensor.info.name,
       .dtype = tensor.info.dtype,
       .shape = tensor.info.shape,
       .bytes = {stored.bytes.begin(), stored.bytes.end()}});
}

void ArtifactSink::put_blocks(const NamedTensor& tensor, GgmlType) {
  throw std::logic_error("'" + tensor.name + "': blocks for another format");
}

void TensorLedger::add(const NamedTensor& tensor) {
  announce(tensor.name);
  add(info_of(tensor), content_hash(tensor.bytes));
}

void TensorLedger::announce(const std::string& name) {
  if (entries_.contains(name) || !announced_.insert(name).second) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}' was added twice", name);
  }
}

void TensorLedger::add(const TensorInfo& info, std::string hash) {
  announced_.erase(info.name);
  entries_[info.name] = {info.dtype, info.shape, std::move(hash)};
  total_bytes_ += info.bytes;
}

std::map<std::string, std::string> TensorLedger::hashes() const {
  std::map<std::string, std::string> hashes;
  for (const auto& [name, entry] : entries_) hashes[name] = entry.hash;
  return hashes;
}

void TensorLedger::compare(const TensorReader& reader) const {
  ThreadPool alone(1);
  compare(reader, {}, alone);
}

void TensorLedger::compare(const TensorReader& reader,
                           const std::set<std::string>& checked,
                           ThreadPool& pool) const {
  const auto differs = [](const std::string& name, const char* what) {
    fail(ErrorCode::kIo, "reading back: tensor '{}' {}", name, what);
  };
  for (const TensorInfo& info : reader.tensors()) {
    if (!entries_.contains(info.name)) differs(info.name, "was never written");
  }
  struct Unchecked {
    const TensorInfo* info;
    const std::string* hash;
  };
  std::vector<Unchecked> unchecked;
  for (const auto& [name, entry] : entries_) {
    const TensorInfo* const info = reader.find(name);
    if (info == nullptr) differs(name, "is missing");
    if (info->dtype != entry.dtype || info->shape != entry.shape) {
      differs(name, "has another type or shape");
    }
    if (!checked.contains(name)) unchecked.push_back({info, &entry.hash});
  }
  pool.for_each(unchecked.size(), [&](std::size_t i) {
    const auto& [info, hash] = unchecked[i];
    if (hash_of_tensor(reader, *info) != *hash) {
      differs(info->name, "has other octets than were written");
    }
  });
}

}  // namespace llmpress
