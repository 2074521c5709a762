#include "compress/core/packed/ggml_weight.h"

#include <cmath>
#include <cstdint>
#include <cstring>

#include "compress/core/ggml/ggml_block.h"
#include "compress/core/packed/packed_checker.h"

namespace llmpress {

void decode_row(const GgmlWeight& w, std::size_t o, std::span<float> row) {
  decode_ggml(w.type, w.row(o), row);
}

std::size_t stored_bytes(const GgmlWeight& w) { return w.blocks.size(); }

std::string describe(const GgmlWeight& w) {
  return std::string(facts(w.type).name);
}

void check(const GgmlWeight& w, const PackedChecker& c) {
  const GgmlTypeFacts& f = facts(w.type);
  c.require(f.decodes && !f.plain, "is of no block type that is read");
  c.require(w.in % f.elements == 0, [&] {
    return formatted("rows of {} are no whole number of {} blocks of {}", w.in,
                     f.name, f.elements);
  });
  c.size("blocks", w.blocks.size(), c.mul(w.out, w.row_bytes()));
  const auto finite = [&](bool is, std::size_t at) {
    c.require(is, [&] {
      return formatted("block {}: a scale is not finite", at / f.bytes);
    });
  };
  if (w.type == GgmlType::kQ4_0 || w.type == GgmlType::kQ8_0) {
    for (std::size_t at = 0; at < w.blocks.size(); at += f.bytes) {
      std::uint16_t scale;  // first in the block
      std::memcpy(&scale, w.blocks.data() + at, sizeof scale);
      finite((scale & 0x7c00) != 0x7c00, at);
    }
    return;
  }
  const GgmlLayout& l = layout(w.type);
  for (std::size_t at = 0; at < w.blocks.size(); at += f.bytes) {
    const GgmlBlock block =
        unpack_ggml_block(w.type, std::span(w.blocks).subspan(at, f.bytes));
    for (std::size_t j = 0; j < f.elements / l.step; ++j) {
      finite(std::isfinite(scale_of(l, block, j)) &&
                 std::isfinite(minimum_of(l, block, j)),
             at);
    }
  }
}

}  // namespace llmpress
