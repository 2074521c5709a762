// A hash that tells whether octets are those that were written, at the speed of
// memory: XXH3 of 128 bits (Collet, xxHash). Not against somebody who means to
// deceive, as SHA-256 is (sha256.h).
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "formats/containers/tensor_io.h"

namespace llmpress {

inline constexpr std::size_t kContentHashDigits = 32;

// Lower-case hex, most significant digit first, as xxhsum -H2 prints it.
std::string content_hash(std::span<const std::byte> bytes);
std::string content_hash(std::string_view bytes);
// In pieces, each out of memory again (for_parts()); the file's throws Error(kIo).
std::string content_hash_of_mapped(const TensorBytes& mapped);
std::string content_hash_of_file(const std::filesystem::path& path);

// The same hash of octets that come one piece after another.
class ContentHasher {
 public:
  ContentHasher();
  void add(std::span<const std::byte> piece);
  std::string hash() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace llmpress
