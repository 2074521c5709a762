#include "formats/gguf/gguf_change.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

using Order = std::vector<std::size_t>;

void require_whole(std::size_t rows, std::size_t parts) {
  if (parts == 0 || rows % parts != 0) {
    fail(ErrorCode::kInvalidInput, "{} rows are not {} equal parts", rows,
         parts);
  }
}

// Coordinates that turn together, j and j + half in the folder, side by side.
Order pairs_order(std::size_t rows, std::size_t heads) {
  require_whole(rows, 2 * heads);
  const std::size_t head = rows / heads, half = head / 2;
  Order order(rows);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t j = r % head;
    order[r] = r - j + j % 2 * half + j / 2;
  }
  return order;
}

// In the folder each key's queries, the key and its value; in GGUF all queries,
// all keys, all values.
Order groups_order(std::size_t rows, const GgufRowSizes& sizes) {
  require_whole(sizes.heads, sizes.kv_heads);
  require_whole(rows, sizes.heads + 2 * sizes.kv_heads);
  const std::size_t queries = sizes.heads / sizes.kv_heads;
  const std::size_t head = rows / (sizes.heads + 2 * sizes.kv_heads);
  Order order;
  const auto take = [&](std::size_t group, std::size_t place) {
    const std::size_t first = (group * (queries + 2) + place) * head;
    for (std::size_t j = 0; j < head; ++j) order.push_back(first + j);
  };
  for (std::size_t q = 0; q < sizes.heads; ++q) take(q / queries, q % queries);
  for (std::size_t place : {queries, queries + 1}) {
    for (std::size_t g = 0; g < sizes.kv_heads; ++g) take(g, place);
  }
  return order;
}

}  // namespace

GgufRowSizes gguf_row_sizes(const GgufMetadata& metadata,
                            std::string_view architecture) {
  const std::string prefix = std::string(architecture) + ".attention.";
  const auto most = [&](const std::string& key, std::size_t fallback) {
    // Layers without attention have none.
    const std::vector<double> counts = metadata.numbers(prefix + key);
    const auto largest = std::ranges::max_element(counts);
    const bool usable =
        largest != counts.end() && *largest >= 1 && *largest <= 1e6;
    return usable ? static_cast<std::size_t>(*largest) : fallback;
  };
  GgufRowSizes sizes{.heads = most("head_count", 1)};
  sizes.kv_heads = most("head_count_kv", sizes.heads);
  const auto size = [&](const char* key) {
    return metadata.size(std::string(architecture) + "." + key).value_or(0);
  };
  const std::size_t key = size("attention.key_length_mla");
  const std::size_t turned = size("rope.dimension_count");
  sizes.latent_keys = key > turned ? key - turned : 0;
  sizes.latent_values = size("attention.value_length_mla");
  sizes.delta_key_heads = size("ssm.group_count");
  sizes.delta_key_dim = size("ssm.state_size");
  sizes.delta_inner = size("ssm.inner_size");
  return sizes;
}

bool moves_rows(GgufChange change) {
  return change == GgufChange::kQueryRows || change == GgufChange::kKeyRows ||
         change == GgufChange::kGroupedHeads;
}

std::vector<std::size_t> gguf_row_order(GgufChange change, std::size_t rows,
                                        const GgufRowSizes& sizes) {
  if (change == GgufChange::kGroupedHeads) return groups_order(rows, sizes);
  return pairs_order(
      rows, change == GgufChange::kQueryRows ? sizes.heads : sizes.kv_heads);
}

std::vector<std::byte> reordered_rows(std::span<const std::byte> rows,
                                      std::span<const std::size_t> order,
                                      bool to_gguf) {
  std::vector<std::byte> out(rows.size());
  if (order.empty()) return out;
  const std::size_t bytes = rows.size() / order.size();
  for (std::size_t r = 0; r < order.size(); ++r) {
    const std::size_t from = to_gguf ? order[r] : r;
    const std::size_t to = to_gguf ? r : order[r];
    std::memcpy(out.data() + to * bytes, rows.data() + from * bytes, bytes);
  }
  return out;
}

std::vector<std::byte> turn_head_rows(std::span<const std::byte> rows,
                                      std::size_t count, std::size_t heads,
                                      bool to_pairs) {
  return reordered_rows(rows, pairs_order(count, heads), to_pairs);
}

bool changes_values(GgufChange change) {
  return change == GgufChange::kPlusOne || change == GgufChange::kMinusExp ||
         change == GgufChange::kMinusExpColumn;
}

void change_values(GgufChange change, bool to_gguf, std::span<float> values) {
  for (float& v : values) {
    if (change == GgufChange::kPlusOne) {
      v += to_gguf ? 1.0f : -1.0f;
    } else {
      v = to_gguf ? -std::exp(v) : std::log(-v);
    }
  }
}

std::vector<std::size_t> gguf_shape(GgufChange change,
                                    std::vector<std::size_t> shape) {
  switch (change) {
    case GgufChange::kTransposed:
      if (shape.size() == 2) std::swap(shape[0], shape[1]);
      break;
    case GgufChange::kOneRow:
      if (shape.size() == 2 && shape[0] == 1) shape.erase(shape.begin());
      break;
    case GgufChange::kTaps:
      if (shape.size() == 3 && shape[1] == 1) shape.erase(shape.begin() + 1);
      break;
    case GgufChange::kColumn:
    case GgufChange::kMinusExpColumn:
      if (shape.size() == 1) shape.push_back(1);
      break;
    case GgufChange::kNone:
    case GgufChange::kQueryRows:
    case GgufChange::kKeyRows:
    case GgufChange::kGroupedHeads:
    case GgufChange::kPlusOne:
    case GgufChange::kMinusExp:
    case GgufChange::kAsF32:
    case GgufChange::kUpperHalf:
    case GgufChange::kLowerHalf:
    case GgufChange::kLatentKeys:
    case GgufChange::kLatentValues:
    case GgufChange::kDeltaInputs:
    case GgufChange::kDeltaGates:
      break;
  }
  return shape;
}

std::vector<std::size_t> folder_shape(GgufChange change,
                                      std::vector<std::size_t> shape) {
  switch (change) {
    case GgufChange::kTransposed:
      if (shape.size() == 2) std::swap(shape[0], shape[1]);
      break;
    case GgufChange::kOneRow:
      if (shape.size() == 1) shape.insert(shape.begin(), 1);
      break;
    case GgufChange::kTaps:
      if (shape.size() == 2) shape.insert(shape.begin() + 1, 1);
      break;
    case GgufChange::kColumn:
    case GgufChange::kMinusExpColumn:
      if (shape.size() == 2 && shape[1] == 1) shape.pop_back();
      break;
    case GgufChange::kNone:
    case GgufChange::kQueryRows:
    case GgufChange::kKeyRows:
    case GgufChange::kGroupedHeads:
    case GgufChange::kPlusOne:
    case GgufChange::kMinusExp:
    case GgufChange::kAsF32:
    case GgufChange::kUpperHalf:
    case GgufChange::kLowerHalf:
    case GgufChange::kLatentKeys:
    case GgufChange::kLatentValues:
    case GgufChange::kDeltaInputs:
    case GgufChange::kDeltaGates:
      break;
  }
  return shape;
}

std::vector<std::byte> transposed_octets(std::span<const std::byte> matrix,
                                         std::size_t rows, std::size_t cols,
                                         std::size_t element_bytes) {
  std::vector<std::byte> out(matrix.size());
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) {
      std::memcpy(out.data() + (c * rows + r) * element_bytes,
                  matrix.data() + (r * cols + c) * element_bytes,
                  element_bytes);
    }
  }
  return out;
}

}  // namespace llmpress
