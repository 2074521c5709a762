// Causal attention over the keys and values of each sequence so far.
#pragma once

#include <cstddef>
#include <optional>

#include "compress/kernels/attention.h"
#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

// in: q [tokens, heads * head_dim], k [tokens, kv_heads * head_dim],
// v [tokens, kv_heads * value_dim]; out: [tokens, heads * value_dim].
struct AttentionOp {
  std::size_t heads = 1, kv_heads = 1;
  std::size_t head_dim = 1, value_dim = 1;
  float scale = 1;
  std::size_t window = 0;  // keys seen, the query's own included; 0: all
  std::size_t chunk = 0;   // keys of the same chunk of positions only; 0: all
  float softcap = 0;
  std::optional<std::size_t> sinks{};   // parameter [heads]
  std::optional<std::size_t> slopes{};  // parameter [heads]: ALiBi
  std::size_t slot = 0;                 // of the layer's cache
  // The layer before this one whose keys and values these are: nothing is
  // stored, what that layer stored is read (Gemma 3n and 4).
  std::optional<std::size_t> shared_layer{};

  bool operator==(const AttentionOp&) const = default;
};

void run(const AttentionOp& op, const OpContext& context,
         const OpArguments& arguments);

void backward(const AttentionOp& op, const OpContext& context,
              const OpGradients& gradients);

}  // namespace llmpress
