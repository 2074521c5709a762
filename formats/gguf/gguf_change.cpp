#include "formats/gguf/gguf_change.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/gguf/gguf_multipliers.h"

namespace llmpress {
namespace {

using Order = std::vector<std::size_t>;

void require_whole(std::size_t rows, std::size_t parts) {
  if (parts == 0 || rows % parts != 0) {
    fail(ErrorCode::kInvalidInput, "{} rows are not {} equal parts", rows,
         parts);
  }
}

// Coordinates that turn together, j and j + half in the folder, side by side;
// those behind the first `turned` stay.
Order pairs_order(std::size_t rows, std::size_t heads, std::size_t turned) {
  require_whole(rows, 2 * heads);
  const std::size_t head = rows / heads;
  if (turned == 0 || turned > head) turned = head;
  require_whole(turned, 2);
  const std::size_t half = turned / 2;
  Order order(rows);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t j = r % head;
    order[r] = j < turned ? r - j + j % 2 * half + j / 2 : r;
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

// Heads of values, each of `unit` rows behind the first `kept`: in the folder
// those of one key together, in GGUF one of each key after another.
Order tiled_order(std::size_t rows, std::size_t kept,
                  const GgufRowSizes& sizes) {
  const std::size_t keys = sizes.delta_key_heads;
  require_whole(sizes.delta_value_heads, keys);
  if (rows < kept) require_whole(rows, 0);
  require_whole(rows - kept, sizes.delta_value_heads);
  const std::size_t ratio = sizes.delta_value_heads / keys;
  const std::size_t unit = (rows - kept) / sizes.delta_value_heads;
  Order order(rows);
  for (std::size_t r = 0; r < rows; ++r) {
    order[r] = r;
    if (r < kept) continue;
    const std::size_t head = (r - kept) / unit, j = (r - kept) % unit;
    order[r] = kept + (head % keys * ratio + head / keys) * unit + j;
  }
  return order;
}

// Of queries and keys.
std::size_t delta_key_rows(const GgufRowSizes& sizes) {
  const std::string what = "rows of queries and keys";
  return checked_mul(
      2, checked_mul(sizes.delta_key_heads, sizes.delta_key_dim, what), what);
}

// Channels x, B and C, each with its factor.
void multiply_taps(const GgufRowSizes& sizes, bool to_gguf,
                   std::span<float> values) {
  const std::string what = "channels of a convolution";
  const std::size_t bc = checked_mul(sizes.groups, sizes.delta_key_dim, what);
  const std::size_t channels =
      checked_add(sizes.delta_inner, checked_mul(2, bc, what), what);
  require_whole(values.size(), channels);
  const std::size_t taps = values.size() / channels;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t channel = i / taps;
    const std::size_t part = channel < sizes.delta_inner        ? 0
                             : channel < sizes.delta_inner + bc ? 1
                                                                : 2;
    const float factor = sizes.tap_factors[part];
    values[i] = to_gguf ? values[i] * factor : values[i] / factor;
  }
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
  sizes.turned = turned;
  sizes.latent_keys = key > turned ? key - turned : 0;
  sizes.latent_values = size("attention.value_length_mla");
  sizes.groups = sizes.delta_key_heads = size("ssm.group_count");
  sizes.delta_key_dim = size("ssm.state_size");
  sizes.delta_inner = size("ssm.inner_size");
  sizes.delta_value_heads = size("ssm.time_step_rank");
  const GgufMultipliers m = read_multipliers(metadata);
  for (std::size_t i = 0; i < sizes.tap_factors.size(); ++i) {
    sizes.tap_factors[i] = m.parts[i + 1] / m.parts[0];
  }
  sizes.output_factor = m.output;
  sizes.gate_factor = m.gate;
  sizes.embedding_factor = embedding_factor(m);
  return sizes;
}

bool moves_rows(GgufChange change) {
  return change == GgufChange::kQueryRows || change == GgufChange::kKeyRows ||
         change == GgufChange::kGroupedHeads ||
         change == GgufChange::kTiledRows ||
         change == GgufChange::kTiledInputs ||
         change == GgufChange::kTiledTaps ||
         change == GgufChange::kTiledMinusExp;
}

std::vector<std::size_t> gguf_row_order(GgufChange change, std::size_t rows,
                                        const GgufRowSizes& sizes) {
  if (change == GgufChange::kGroupedHeads) return groups_order(rows, sizes);
  if (change == GgufChange::kTiledRows ||
      change == GgufChange::kTiledMinusExp) {
    return tiled_order(rows, 0, sizes);
  }
  if (change == GgufChange::kTiledInputs || change == GgufChange::kTiledTaps) {
    return tiled_order(rows, delta_key_rows(sizes), sizes);
  }
  return pairs_order(
      rows, change == GgufChange::kQueryRows ? sizes.heads : sizes.kv_heads,
      sizes.turned);
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
  return reordered_rows(rows, pairs_order(count, heads, 0), to_pairs);
}

bool moves_columns(GgufChange change) {
  return change == GgufChange::kTiledColumns;
}

std::vector<std::byte> reordered_columns(std::span<const std::byte> matrix,
                                         std::size_t rows, std::size_t columns,
                                         std::size_t elements,
                                         const GgufRowSizes& sizes,
                                         bool to_gguf) {
  const std::size_t heads = sizes.delta_value_heads;
  require_whole(columns, heads);
  const bool moves = heads != sizes.delta_key_heads;
  if (moves && columns / heads % elements != 0) {
    fail(ErrorCode::kUnsupported,
         "heads of {} columns are no whole blocks of {}, and lie in another "
         "order in GGUF; take a type with smaller blocks (q8_0, q5_0, iq4_nl) "
         "for this Linear",
         columns / heads, elements);
  }
  if (!moves || rows == 0) return {matrix.begin(), matrix.end()};
  const Order order = tiled_order(columns / elements, 0, sizes);
  const std::size_t row_bytes = matrix.size() / rows;
  std::vector<std::byte> out;
  out.reserve(matrix.size());
  for (std::size_t r = 0; r < rows; ++r) {
    const auto row = reordered_rows(matrix.subspan(r * row_bytes, row_bytes),
                                    order, to_gguf);
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

namespace {

bool is_times(GgufChange change) {
  return change == GgufChange::kTimes || change == GgufChange::kGateTimes ||
         change == GgufChange::kEmbeddingTimes;
}

float factor_of(GgufChange change, const GgufRowSizes& sizes) {
  return change == GgufChange::kTimes       ? sizes.output_factor
         : change == GgufChange::kGateTimes ? sizes.gate_factor
                                            : sizes.embedding_factor;
}

}  // namespace

bool changes_values(GgufChange change) {
  return change == GgufChange::kPlusOne || is_times(change) ||
         change == GgufChange::kTapsTimes || change == GgufChange::kMinusExp ||
         change == GgufChange::kMinusExpColumn ||
         change == GgufChange::kTiledMinusExp;
}

void change_values(GgufChange change, bool to_gguf, std::span<float> values,
                   const GgufRowSizes& sizes) {
  if (change == GgufChange::kTapsTimes) {
    multiply_taps(sizes, to_gguf, values);
    return;
  }
  const float factor = factor_of(change, sizes);
  for (float& v : values) {
    if (is_times(change)) {
      v = to_gguf ? v * factor : v / factor;
    } else if (change == GgufChange::kPlusOne) {
      v += to_gguf ? 1.0f : -1.0f;
    } else {
      v = to_gguf ? -std::exp(v) : std::log(-v);
    }
  }
}

std::vector<std::size_t> gguf_shape(GgufChange change,
                                    std::vector<std::size_t> shape,
                                    const GgufRowSizes& sizes) {
  switch (change) {
    case GgufChange::kTransposed:
      if (shape.size() == 2) std::swap(shape[0], shape[1]);
      break;
    case GgufChange::kOneRow:
      if (shape.size() == 2 && shape[0] == 1) shape.erase(shape.begin());
      break;
    case GgufChange::kTaps:
    case GgufChange::kTapsTimes:
    case GgufChange::kTiledTaps:
      if (shape.size() == 3 && shape[1] == 1) shape.erase(shape.begin() + 1);
      break;
    case GgufChange::kColumn:
    case GgufChange::kMinusExpColumn:
      if (shape.size() == 1) shape.push_back(1);
      break;
    case GgufChange::kGroups:
      if (shape.size() == 1 && sizes.groups > 1) {
        require_whole(shape[0], sizes.groups);
        shape = {sizes.groups, shape[0] / sizes.groups};
      }
      break;
    case GgufChange::kNone:
    case GgufChange::kQueryRows:
    case GgufChange::kKeyRows:
    case GgufChange::kGroupedHeads:
    case GgufChange::kPlusOne:
    case GgufChange::kTimes:
    case GgufChange::kGateTimes:
    case GgufChange::kEmbeddingTimes:
    case GgufChange::kTiledRows:
    case GgufChange::kTiledInputs:
    case GgufChange::kTiledMinusExp:
    case GgufChange::kTiledColumns:
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
    case GgufChange::kTapsTimes:
    case GgufChange::kTiledTaps:
      if (shape.size() == 2) shape.insert(shape.begin() + 1, 1);
      break;
    case GgufChange::kColumn:
    case GgufChange::kMinusExpColumn:
      if (shape.size() == 2 && shape[1] == 1) shape.pop_back();
      break;
    case GgufChange::kGroups:
      if (shape.size() == 2) {
        shape = {checked_mul(shape[0], shape[1], "groups of a norm")};
      }
      break;
    case GgufChange::kNone:
    case GgufChange::kQueryRows:
    case GgufChange::kKeyRows:
    case GgufChange::kGroupedHeads:
    case GgufChange::kPlusOne:
    case GgufChange::kTimes:
    case GgufChange::kGateTimes:
    case GgufChange::kEmbeddingTimes:
    case GgufChange::kTiledRows:
    case GgufChange::kTiledInputs:
    case GgufChange::kTiledMinusExp:
    case GgufChange::kTiledColumns:
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
