#include "formats/gguf/gguf_parts.h"

#include <cstring>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

using Rows = std::vector<std::size_t>;

void append_range(Rows& rows, std::size_t first, std::size_t count) {
  for (std::size_t r = 0; r < count; ++r) rows.push_back(first + r);
}

// Of each of `groups` groups of `length` rows those from `first` on.
Rows of_each(std::size_t groups, std::size_t length, std::size_t first,
             std::size_t count) {
  Rows rows;
  for (std::size_t g = 0; g < groups; ++g) {
    append_range(rows, g * length + first, count);
  }
  return rows;
}

// Queries, keys, values and gates of each key head in the folder.
struct DeltaRows {
  std::size_t heads = 0, key = 0, values = 0;
  std::size_t group() const {
    const std::string what = "rows of a head";
    return checked_mul(2, checked_add(key, values, what), what);
  }
};

DeltaRows delta_rows(const GgufRowSizes& s) {
  const std::size_t heads = s.delta_key_heads;
  return {.heads = heads,
          .key = s.delta_key_dim,
          .values = heads == 0 ? 0 : s.delta_inner / heads};
}

Rows delta_inputs(const DeltaRows& d) {
  Rows rows = of_each(d.heads, d.group(), 0, d.key);
  for (const Rows& more : {of_each(d.heads, d.group(), d.key, d.key),
                           of_each(d.heads, d.group(), 2 * d.key, d.values)}) {
    rows.insert(rows.end(), more.begin(), more.end());
  }
  return rows;
}

}  // namespace

bool is_part(GgufChange change) {
  return change == GgufChange::kUpperHalf || change == GgufChange::kLowerHalf ||
         change == GgufChange::kLatentKeys ||
         change == GgufChange::kLatentValues ||
         change == GgufChange::kDeltaInputs ||
         change == GgufChange::kDeltaGates;
}

bool is_transposed_part(GgufChange change) {
  return change == GgufChange::kLatentKeys;
}

std::size_t gguf_joined_rows(GgufChange part, const GgufRowSizes& sizes) {
  if (part == GgufChange::kLatentKeys || part == GgufChange::kLatentValues) {
    const std::string what = "keys and values of all heads";
    return checked_mul(
        sizes.heads, checked_add(sizes.latent_keys, sizes.latent_values, what),
        what);
  }
  if (part == GgufChange::kDeltaInputs || part == GgufChange::kDeltaGates) {
    const DeltaRows d = delta_rows(sizes);
    return checked_mul(d.heads, d.group(), "rows of all heads");
  }
  return 0;
}

std::vector<std::size_t> gguf_part_rows(GgufChange part, std::size_t rows,
                                        const GgufRowSizes& sizes) {
  const std::size_t wanted = gguf_joined_rows(part, sizes);
  const bool half =
      part == GgufChange::kUpperHalf || part == GgufChange::kLowerHalf;
  if (half ? rows % 2 != 0 : rows != wanted) {
    fail(ErrorCode::kInvalidInput, "{} rows, wanted {}", rows,
         half ? "an even number" : formatted("{}", wanted));
  }
  const std::size_t keys = sizes.latent_keys, values = sizes.latent_values;
  const DeltaRows delta = delta_rows(sizes);
  if (half) {
    return of_each(1, rows, part == GgufChange::kUpperHalf ? 0 : rows / 2,
                   rows / 2);
  }
  if (part == GgufChange::kLatentKeys) {
    return of_each(sizes.heads, keys + values, 0, keys);
  }
  if (part == GgufChange::kLatentValues) {
    return of_each(sizes.heads, keys + values, keys, values);
  }
  if (part == GgufChange::kDeltaInputs) return delta_inputs(delta);
  return of_each(delta.heads, delta.group(), 2 * delta.key + delta.values,
                 delta.values);
}

std::vector<std::size_t> gguf_part_shape(GgufChange part, std::size_t rows,
                                         std::size_t columns,
                                         const GgufRowSizes& sizes) {
  if (part == GgufChange::kLatentKeys) {
    return {sizes.heads, columns, sizes.latent_keys};
  }
  if (part == GgufChange::kLatentValues) {
    return {sizes.heads, sizes.latent_values, columns};
  }
  return {gguf_part_rows(part, rows, sizes).size(), columns};
}

std::vector<std::byte> gathered_rows(std::span<const std::byte> matrix,
                                     std::span<const std::size_t> rows,
                                     std::size_t row_bytes) {
  std::vector<std::byte> out(rows.size() * row_bytes);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::memcpy(out.data() + r * row_bytes, matrix.data() + rows[r] * row_bytes,
                row_bytes);
  }
  return out;
}

void scatter_rows(std::span<const std::byte> part,
                  std::span<const std::size_t> rows, std::size_t row_bytes,
                  std::span<std::byte> matrix) {
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::memcpy(matrix.data() + rows[r] * row_bytes,
                part.data() + r * row_bytes, row_bytes);
  }
}

std::vector<float> transposed_each(std::span<const float> values,
                                   std::size_t matrices, std::size_t rows,
                                   std::size_t cols) {
  std::vector<float> out(values.size());
  for (std::size_t m = 0; m < matrices; ++m) {
    const std::size_t at = m * rows * cols;
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < cols; ++c) {
        out[at + c * rows + r] = values[at + r * cols + c];
      }
    }
  }
  return out;
}

}  // namespace llmpress
