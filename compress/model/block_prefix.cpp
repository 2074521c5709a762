// Block's prefix.
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/hadamard.h"
#include "compress/model/block.h"
#include "compress/model/prefix_places.h"

namespace llmpress {

void Block::set_prefix(BlockPrefix prefix, ThreadPool& pool) {
  if (prefix.empty()) return prefix_.clear();
  check_prefix_possible(*arch_, layer_);
  const std::vector<CacheSlot>& slots = spec().slots;
  const std::size_t tokens = prefix[0].keys.rows();
  for (std::size_t s = 0; s < slots.size(); ++s) {
    const bool fits =
        prefix.size() == slots.size() && prefix[s].keys.rows() == tokens &&
        prefix[s].values.rows() == tokens &&
        prefix[s].keys.cols() == slots[s].kv_heads * slots[s].key_dim &&
        prefix[s].values.cols() == slots[s].kv_heads * slots[s].value_dim;
    if (fits) continue;
    fail(ErrorCode::kInvalidInput,
         "{}: a prefix does not fit keys and values of {} heads of {} and {}",
         arch_->block_name(layer_), slots[s].kv_heads, slots[s].key_dim,
         slots[s].value_dim);
  }
  prefix_ = std::move(prefix);
  for (std::size_t s = 0; s < slots.size(); ++s) {
    if (kv_scheme_) {
      apply_kv_scheme_in_place(*kv_scheme_, slots[s].kv_heads,
                               prefix_[s].keys.view(),
                               prefix_[s].values.view());
    }
    if (options_.kv.rotate_keys) {
      hadamard_rows_in_place(prefix_[s].keys.view(), slots[s].key_dim, pool);
    }
  }
}

std::size_t Block::prefix_tokens() const {
  return prefix_.empty() ? 0 : prefix_[0].keys.rows();
}

}  // namespace llmpress
