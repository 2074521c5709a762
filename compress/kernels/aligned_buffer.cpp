#include "compress/kernels/aligned_buffer.h"

#include <cassert>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace llmpress {
namespace {

constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;

std::size_t in_whole_vectors(std::size_t bytes) {
  return (bytes + kVectorBytes - 1) & ~(kVectorBytes - 1);
}

}  // namespace

AlignedBuffer::AlignedBuffer(std::size_t bytes) : AlignedBuffer(unset(bytes)) {
  if (bytes != 0) std::memset(data_, 0, bytes);
}

AlignedBuffer AlignedBuffer::unset(std::size_t bytes) {
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  const std::size_t alignment =
      bytes >= kHugePageBytes ? kHugePageBytes : kVectorBytes;
  const std::size_t rounded = in_whole_vectors(bytes);
  void* memory = nullptr;
  if (rounded < bytes || posix_memalign(&memory, alignment, rounded) != 0) {
    throw std::bad_alloc();
  }
#if defined(__linux__)
  // A hint: without huge pages everything still works.
  if (bytes >= kHugePageBytes) madvise(memory, rounded, MADV_HUGEPAGE);
#endif
  buffer.data_ = static_cast<std::byte*>(memory);
  buffer.size_ = bytes;
  std::memset(buffer.data_ + bytes, 0, rounded - bytes);
  return buffer;
}

AlignedBuffer AlignedBuffer::view(std::span<const std::byte> bytes,
                                  std::shared_ptr<const void> owner) {
  assert(owner != nullptr);
  assert(reinterpret_cast<std::uintptr_t>(bytes.data()) % kVectorBytes == 0);
  AlignedBuffer buffer;
  buffer.data_ = const_cast<std::byte*>(bytes.data());
  buffer.size_ = bytes.size();
  buffer.owner_ = std::move(owner);
  return buffer;
}

AlignedBuffer::~AlignedBuffer() {
  if (!is_view()) std::free(data_);
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      owner_(std::move(other.owner_)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(owner_, other.owner_);
  return *this;
}

std::span<const std::byte> AlignedBuffer::whole_vectors() const {
  assert(!is_view());
  return {data_, in_whole_vectors(size_)};
}

}  // namespace llmpress
