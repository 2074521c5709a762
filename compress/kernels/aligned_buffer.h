// Bytes aligned for vectors; large buffers ask for huge pages, which spare a
// streaming kernel most of its address translation.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace llmpress {

inline constexpr std::size_t kVectorBytes = 64;

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Zeroed.
  explicit AlignedBuffer(std::size_t bytes);
  // For who writes all of it.
  static AlignedBuffer unset(std::size_t bytes);
  // Bytes at a multiple of kVectorBytes that `owner` keeps, to be read only.
  static AlignedBuffer view(std::span<const std::byte> bytes,
                            std::shared_ptr<const void> owner);
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool is_view() const { return owner_ != nullptr; }
  // data() with the zeros that fill its last vector; not of a view.
  std::span<const std::byte> whole_vectors() const;

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::shared_ptr<const void> owner_{};  // of a view
};

}  // namespace llmpress
