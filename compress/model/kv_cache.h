// Keys and values of one sequence for every layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "compress/core/matrix.h"

namespace llmpress {

// How a key or value vector of one head and token is stored. int8 and int4 are
// affine with a float scale (and minimum) per head and token; fp8 is E4M3 with a
// scale per head and token.
enum class KvType { kF32, kInt8, kFp8, kInt4 };
struct KvFormat {
  KvType type = KvType::kF32;
};

class KvCache {
 public:
  // width = kv_heads * head_dim.
  KvCache(std::size_t layers, std::size_t kv_heads, std::size_t head_dim,
          std::size_t capacity, KvFormat format = {});

  std::size_t tokens() const { return tokens_; }
  std::size_t capacity() const { return capacity_; }
  std::size_t bytes() const;

  // Appends rows K, V [n, width] of `layer` at position tokens(); they become
  // visible to the other layers when advance(n) is called after the last layer.
  // Throws Error(kInvalidArgument) beyond capacity.
  void append(std::size_t layer, ConstMatrixView K, ConstMatrixView V);
  void advance(std::size_t n);
  void truncate(std::size_t tokens);

  // Positions [begin, begin + K.rows()) of `layer`, all heads, decoded to float.
  void read(std::size_t layer, std::size_t begin, MatrixView<float> K,
            MatrixView<float> V) const;

 private:
  std::size_t layers_, kv_heads_, head_dim_, capacity_, tokens_ = 0;
  KvFormat format_;
  std::vector<std::vector<std::byte>> keys_, values_;  // one per layer
};

}  // namespace llmpress
