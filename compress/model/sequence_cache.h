// What the layers keep of one sequence: keys and values, recurrent states.
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
//   fp8   | f32 scale | head_dim x E4M3 |                x' = scale * e4m3
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

// What one operation of a block keeps of a sequence.
struct CacheSlot {
  // Keys and values of every token, or
  std::size_t kv_heads = 0, key_dim = 0, value_dim = 0;
  // so many numbers that stand for all tokens so far (a recurrent state).
  std::size_t state = 0;

  bool operator==(const CacheSlot&) const = default;
};

struct CachePlace {
  std::size_t layer = 0, slot = 0;
};

class KvCache {
 public:
  // slots[layer] holds what that layer's operations keep.
  KvCache(const std::vector<std::vector<CacheSlot>>& slots,
          std::size_t capacity, KvFormat format = {});

  KvFormat format() const { return format_; }
  std::size_t layers() const { return layers_.size(); }
  std::size_t tokens() const { return tokens_; }
  std::size_t capacity() const { return capacity_; }
  std::size_t bytes() const;  // allocated

  // Appends rows K [n, kv_heads * key_dim], V [n, kv_heads * value_dim] at
  // position tokens(); they become visible to the other layers when advance(n)
  // is called after the last layer. Throws Error(kInvalidArgument) beyond
  // capacity.
  void append(CachePlace place, ConstMatrixView K, ConstMatrixView V);
  void advance(std::size_t n);
  // Forgets what comes after the first `tokens`. Recurrent states cannot go
  // back: throws Error(kInvalidArgument) if there are some.
  void truncate(std::size_t tokens);

  // Positions [begin, begin + K.rows()), all heads, decoded to float.
  void read(CachePlace place, std::size_t begin, MatrixView<float> K,
            MatrixView<float> V) const;
  // The stored rows, from position 0 on, for attention() without a copy; only
  // for kF32.
  KvView keys(CachePlace place) const;
  KvView values(CachePlace place) const;

  // A recurrent state; zeros before the first token.
  std::span<float> state(CachePlace place);

 private:
  struct Store {
    CacheSlot slot{};
    std::vector<std::byte> keys{}, values{};
    std::vector<float> state{};
  };
  Store& at(CachePlace place) { return layers_.at(place.layer).at(place.slot); }
  const Store& at(CachePlace place) const {
    return layers_.at(place.layer).at(place.slot);
  }

  std::size_t capacity_, tokens_ = 0;
  KvFormat format_;
  std::vector<std::vector<Store>> layers_;
};

}  // namespace llmpress
