// Keys and values of one sequence for every layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/kernels/attention.h"

namespace llmpress {

// How a key or value vector x [head_dim] of one head and token is stored:
//   f32   | head_dim x f32 |
//   int8  | f32 scale | f32 min | head_dim x u8 |       x' = min + scale * code
//   int4  | f32 scale | f32 min | ceil(head_dim/2) x u8, even index low nibble
//   | fp8   | f32 scale | head_dim x E4M3 |               x' = scale * e4m3
// with scale = (max - min) / (2^bits - 1) or max|x| / 448, so an error is at
// most scale / 2 for integers and |x| / 16 (or scale / 1024) for fp8.
struct KvFormat {
  KvType type = KvType::kF32;
  // Queries and keys go through the same Hadamard transform of a head before
  // the keys are stored (QuaRot, arXiv:2404.00456, section 4.3): their products
  // stay as they are, outlying channels of keys are spread.
  bool rotate_keys = false;
};

// Bytes of one stored vector.
std::size_t kv_bytes(KvFormat format, std::size_t head_dim);
void encode_kv(KvFormat format, std::span<const float> x,
               std::span<std::byte> stored);
void decode_kv(KvFormat format, std::span<const std::byte> stored,
               std::span<float> x);
// Every head of every row of X [tokens, kv_heads * head_dim] through the store
// and back.
void round_kv_in_place(KvFormat format, std::size_t head_dim,
                       MatrixView<float> X);

class KvCache {
 public:
  KvCache(std::size_t layers, std::size_t kv_heads, std::size_t head_dim,
          std::size_t capacity, KvFormat format = {});

  KvFormat format() const { return format_; }
  std::size_t layers() const { return keys_.size(); }
  std::size_t width() const { return kv_heads_ * head_dim_; }
  std::size_t tokens() const { return tokens_; }
  std::size_t capacity() const { return capacity_; }
  std::size_t bytes() const;  // allocated

  // Appends rows K, V [n, width] of `layer` at position tokens(); they become
  // visible to the other layers when advance(n) is called after the last layer.
  // Throws Error(kInvalidArgument) beyond capacity.
  void append(std::size_t layer, ConstMatrixView K, ConstMatrixView V);
  void advance(std::size_t n);
  // Forgets what comes after the first `tokens`.
  void truncate(std::size_t tokens);

  // Positions [begin, begin + K.rows()) of `layer`, all heads, decoded to
  // float.
  void read(std::size_t layer, std::size_t begin, MatrixView<float> K,
            MatrixView<float> V) const;
  // The stored rows, from position 0 on, for attention() without a copy; only
  // for kF32.
  KvView keys(std::size_t layer) const;
  KvView values(std::size_t layer) const;

 private:
  std::size_t row_bytes() const;

  std::size_t kv_heads_, head_dim_, capacity_, tokens_ = 0;
  KvFormat format_;
  std::vector<std::vector<std::byte>> keys_, values_;  // one per layer
};

}  // namespace llmpress
