// Causal attention of many sequences over their key/value rows:
//   o = sum_j softmax_j(scale q . k_j) v_j,  j <= position of q
// computed tile by tile with the online softmax (arXiv:1805.02867;
// FlashAttention, arXiv:2205.14135, Algorithm 1): memory is one tile a thread,
// never [T, T]. The same function serves prompts (many queries a sequence) and
// decoding (one). Grouped queries: query head h reads key/value head h / (heads
// / kv_heads).
#pragma once

#include <cstddef>
#include <span>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"
#include "compress/kernels/dropout.h"

namespace llmpress {

// How the numbers of a key or value row are stored. attention() reads kF32; the
// others are stores of the key/value cache, decoded before they come here.
enum class KvType { kF32, kInt8, kFp8, kInt4 };

// Rows of one sequence's keys or values, one a token, each [kv_heads, dim].
struct KvView {
  KvType type = KvType::kF32;
  const std::byte* data = nullptr;
  std::size_t row_bytes = 0;  // from one token's row to the next
};
// Rows [begin, ...) of a matrix [tokens, kv_heads * dim].
inline KvView kv_view(ConstMatrixView rows) {
  return {KvType::kF32, reinterpret_cast<const std::byte*>(rows.data().data()),
          rows.cols() * sizeof(float)};
}

// One sequence: `queries` consecutive rows of Q from row `first_query` on. Its
// keys and values are rows 0 .. past + queries - 1 of `keys` and `values`;
// query r sees keys 0 .. past + r, or with a window W only the last W of them.
struct AttentionSegment {
  std::size_t first_query = 0;
  std::size_t queries = 0;
  std::size_t past = 0;
  KvView keys{}, values{};
};

struct AttentionConfig {
  std::size_t heads = 1, kv_heads = 1;  // heads % kv_heads == 0
  std::size_t head_dim = 1;             // of queries and keys
  std::size_t value_dim = 0;            // of values and outputs; 0: head_dim
  float scale = 1;                      // usually 1 / sqrt(head_dim)
  std::size_t window = 0;               // 0: all the past
  std::size_t chunk = 0;  // keys from the last multiple of it on; 0: all
  float softcap = 0;      // c tanh(z / c) on the scores (Gemma 2); 0: off
  // [heads] or empty: one more score a head that takes its part of the softmax
  // and gives nothing (GPT-OSS's attention sinks).
  std::span<const float> sinks{};
  // [heads] or empty: slope * (key - query) is added to the scores (ALiBi,
  // arXiv:2108.12409).
  std::span<const float> slopes{};
  // Of the probabilities, behind their softmax; of passes whose segments stand
  // alone (attention_dropped()).
  Dropout dropout{};
};

// Q [tokens, heads * head_dim], O [tokens, heads * value_dim]. With a dropout
// every segment stands alone (past 0). Rows of O that
// no segment names stay as they are. The bits of a row depend neither on the
// threads nor on other segments.
void attention(ConstMatrixView Q, std::span<const AttentionSegment> segments,
               const AttentionConfig& config, MatrixView<float> O,
               ThreadPool& pool, Isa isa = best_isa());

}  // namespace llmpress
