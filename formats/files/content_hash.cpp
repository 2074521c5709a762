#include "formats/files/content_hash.h"

#include <xxhash.h>

#include <memory>
#include <new>

#include "compress/core/formatted.h"
#include "formats/files/mapped_file.h"

namespace llmpress {
namespace {

std::string digits_of(const XXH128_hash_t& hash) {
  return formatted("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace

std::string content_hash(std::span<const std::byte> bytes) {
  return digits_of(XXH3_128bits(bytes.data(), bytes.size()));
}

std::string content_hash(std::string_view bytes) {
  return content_hash(std::as_bytes(std::span(bytes)));
}

std::string content_hash_of_mapped(const TensorBytes& mapped) {
  ContentHasher hasher;
  for_parts(mapped, [&](std::span<const std::byte> part) { hasher.add(part); });
  return hasher.hash();
}

std::string content_hash_of_file(const std::filesystem::path& path) {
  return content_hash_of_mapped(map_file(path));
}

struct ContentHasher::State {
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> xxh{
      XXH3_createState(), XXH3_freeState};
};

ContentHasher::ContentHasher() : state_(std::make_shared<State>()) {
  if (state_->xxh == nullptr ||
      XXH3_128bits_reset(state_->xxh.get()) == XXH_ERROR) {
    throw std::bad_alloc();
  }
}

void ContentHasher::add(std::span<const std::byte> piece) {
  (void)XXH3_128bits_update(state_->xxh.get(), piece.data(), piece.size());
}

std::string ContentHasher::hash() const {
  return digits_of(XXH3_128bits_digest(state_->xxh.get()));
}

}  // namespace llmpress
