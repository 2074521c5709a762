// A tensor of the folder that is several in GGUF: which of its rows each of
// these has (gguf_architecture.h names the parts).
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "formats/gguf/gguf_change.h"

namespace llmpress {

bool is_part(GgufChange change);
// Whether the part is transposed head by head: [heads, columns, rows of a head]
// where the folder has [heads * rows, columns].
bool is_transposed_part(GgufChange change);

// The folder's rows that the part has, in its order; the folder has `rows`.
// Throws Error(kInvalidInput) where `sizes` says other numbers.
std::vector<std::size_t> gguf_part_rows(GgufChange part, std::size_t rows,
                                        const GgufRowSizes& sizes);
// Rows of the folder's tensor by what the metadata says; 0: those of all parts.
std::size_t gguf_joined_rows(GgufChange part, const GgufRowSizes& sizes);
// In GGUF, of a folder's tensor [rows, columns].
std::vector<std::size_t> gguf_part_shape(GgufChange part, std::size_t rows,
                                         std::size_t columns,
                                         const GgufRowSizes& sizes);

// The part's rows, of `row_bytes` each.
std::vector<std::byte> gathered_rows(std::span<const std::byte> matrix,
                                     std::span<const std::size_t> rows,
                                     std::size_t row_bytes);
// And put back.
void scatter_rows(std::span<const std::byte> part,
                  std::span<const std::size_t> rows, std::size_t row_bytes,
                  std::span<std::byte> matrix);

// `matrices` of them, [rows, cols] each, transposed.
std::vector<float> transposed_each(std::span<const float> values,
                                   std::size_t matrices, std::size_t rows,
                                   std::size_t cols);

}  // namespace llmpress
