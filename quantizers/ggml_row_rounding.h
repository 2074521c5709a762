// q4_0 and q8_0 of llama.cpp without an importance matrix, a row at a time in
// loops that compilers vectorize: the octets of fit_ggml_block() and
// pack_ggml_block() at the speed of reading.
#pragma once

#include <cstddef>
#include <span>

#include "compress/core/ggml/ggml_type.h"

namespace llmpress {

// Whether round_plain_row() knows the type.
bool rounds_plain_rows(GgmlType type);

// `row` is finite, of whole blocks; `blocks` its octets.
void round_plain_row(GgmlType type, std::span<const float> row,
                     std::span<std::byte> blocks);

}  // namespace llmpress
