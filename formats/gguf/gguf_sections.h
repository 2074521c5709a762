// Decoders of vision-language models turn parts of a head by different positions
// (mrope_section): rope.dimension_sections. Of text all positions are the same,
// but llama.cpp has 0 for pairs that no section has.
#pragma once

#include "formats/gguf/gguf_keys.h"

namespace llmpress {

enum class GgufSections {
  kInTurn,       // the first pairs, those behind them, the last
  kInterleaved,  // every third pair
};

// Behind read_gguf_rope() and write_gguf_rope().
void read_gguf_sections(const GgufReading& in, JsonFields& out);
// Where config.json has none, all pairs are shared out.
void write_gguf_sections(const GgufWriting& out, GgufSections kind);

}  // namespace llmpress
