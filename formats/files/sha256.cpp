#include "formats/files/sha256.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "compress/core/checked.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/files/mapped_file.h"

namespace llmpress {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

namespace {

void require(bool ok) {
  if (!ok) throw std::logic_error("libcrypto refuses SHA-256");
}

}  // namespace

Sha256::Sha256() : state_(std::make_unique<State>()) {
  require(state_->context != nullptr &&
          EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;

void Sha256::add(std::span<const std::byte> bytes) {
  require(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
}

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  require(EVP_DigestFinal_ex(state_->context, digest.data(), &size) == 1);
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    out += "0123456789abcdef"[digest[i] >> 4];
    out += "0123456789abcdef"[digest[i] & 15];
  }
  return out;
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 hash;
  hash.add(std::as_bytes(std::span(bytes)));
  return hash.hex();
}

std::string sha256_of_file(const std::filesystem::path& path) {
  Sha256 hash;
  for_parts(map_file(path),
            [&](std::span<const std::byte> part) { hash.add(part); });
  return hash.hex();
}

std::vector<std::string> sha256_of_parts(const std::filesystem::path& path,
                                         std::size_t part, ThreadPool& pool) {
  const TensorBytes file = map_file(path);
  const std::size_t size = file.bytes.size();
  std::vector<std::string> hashes(
      std::max<std::size_t>(1, ceil_div(size, part)));
  pool.for_each(hashes.size(), [&](std::size_t i) {
    Sha256 hash;
    const std::size_t begin = i * part;
    for_parts(
        {file.bytes.subspan(begin, std::min(part, size - begin)), file.owner},
        [&](std::span<const std::byte> bytes) { hash.add(bytes); });
    hashes[i] = hash.hex();
  });
  return hashes;
}

}  // namespace llmpress
