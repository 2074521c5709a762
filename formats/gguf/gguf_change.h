// How a tensor in GGUF and the same in Hugging Face's folder differ: order of
// rows, shape, values (gguf_architecture.h names the differences).
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "formats/containers/gguf.h"
#include "formats/gguf/gguf_architecture.h"

namespace llmpress {

// What rows are counted by, from the metadata.
struct GgufRowSizes {
  std::size_t heads = 1, kv_heads = 1;
  std::size_t turned = 0;  // coordinates of a head; 0: all
  std::size_t groups = 0;  // of a norm
  std::size_t latent_keys = 0, latent_values = 0;  // rows of a head
  std::size_t delta_key_heads = 0, delta_key_dim = 0, delta_inner = 0;
  std::size_t delta_value_heads = 0;
  // Of a convolution's channels x, B and C; of a norm before the head, and
  // before an MLP; of the embedding.
  std::array<float, 3> tap_factors{1, 1, 1};
  float output_factor = 1, gate_factor = 1, embedding_factor = 1;
};
GgufRowSizes gguf_row_sizes(const GgufMetadata& metadata,
                            std::string_view architecture);

// Whether rows change places.
bool moves_rows(GgufChange change);
// Row r in GGUF is the folder's row order[r]. Throws Error(kInvalidInput) if
// there are not as many rows as `sizes` says. For what moves_rows().
std::vector<std::size_t> gguf_row_order(GgufChange change, std::size_t rows,
                                        const GgufRowSizes& sizes);
// `rows` of order.size() rows, in the other order.
std::vector<std::byte> reordered_rows(std::span<const std::byte> rows,
                                      std::span<const std::size_t> order,
                                      bool to_gguf);

// Rows of heads whose coordinates j and j + half turn together, and side by side
// where pairs are: `to_pairs` from the first to the second. `rows` has `count`
// rows.
std::vector<std::byte> turn_head_rows(std::span<const std::byte> rows,
                                      std::size_t count, std::size_t heads,
                                      bool to_pairs);

// Whether columns change places. A matrix of blocks of so many elements: throws
// Error(kUnsupported) where what changes places is no whole number of blocks.
bool moves_columns(GgufChange change);
std::vector<std::byte> reordered_columns(std::span<const std::byte> matrix,
                                         std::size_t rows, std::size_t columns,
                                         std::size_t elements,
                                         const GgufRowSizes& sizes,
                                         bool to_gguf);

// Whether values change, which are F32 then.
bool changes_values(GgufChange change);
// `values` are those of the whole tensor.
void change_values(GgufChange change, bool to_gguf, std::span<float> values,
                   const GgufRowSizes& sizes = {});

// Of a whole tensor of plain numbers. Throws Error(kInvalidInput) where it is
// not the groups that `sizes` says.
std::vector<std::size_t> gguf_shape(GgufChange change,
                                    std::vector<std::size_t> folder,
                                    const GgufRowSizes& sizes = {});
std::vector<std::size_t> folder_shape(GgufChange change,
                                      std::vector<std::size_t> gguf);

// [cols, rows] from [rows, cols] of elements of so many octets.
std::vector<std::byte> transposed_octets(std::span<const std::byte> matrix,
                                         std::size_t rows, std::size_t cols,
                                         std::size_t element_bytes);

}  // namespace llmpress
