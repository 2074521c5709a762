#include "compress/kernels/rounded_product.h"

#include <atomic>
#include <cassert>
#include <stdexcept>

#include "compress/core/formatted.h"
#include "compress/kernels/panel_tasks.h"
#include "compress/kernels/rounded_kernels.h"
#include "compress/kernels/target.h"

namespace llmpress {
namespace {

// Rounded rows in gathered order, one after another.
struct RoundedRows {
  std::vector<std::int8_t> codes;       // [tokens, depth]
  std::vector<float> scales{}, sums{};  // [blocks, tokens]

  RoundedRows(const PanelWeight& W, ConstMatrixView X,
              const RoundedKernels& kernels, ThreadPool& pool)
      : codes(X.rows() * W.depth),
        scales(W.blocks.size() * X.rows()),
        sums(scales.size()) {
    constexpr std::size_t kNone = SIZE_MAX;
    std::atomic<std::size_t> wrong{kNone};
    pool.for_each(X.rows(), [&](std::size_t t) {
      std::vector<float> gathered;
      const float* x = X.row(t).data();
      if (!W.gather.empty()) {
        gathered.resize(W.depth);
        gather_row(W, X.row(t), gathered.data());
        x = gathered.data();
      }
      const bool finite =
          kernels.round_row(W, x, codes.data() + t * W.depth, scales.data() + t,
                            sums.data() + t, X.rows());
      if (!finite) wrong = t;
    });
    if (wrong == kNone) return;
    fail(ErrorCode::kNumeric,
         "activation rounding: token {}: a value is not finite, which no grid "
         "can hold",
         wrong.load());
  }
};

// Tile by tile as the register tiles read them: `Unit` inputs of each token, into
// the buffer.
template <class T, std::size_t Unit>
TokenTiles pack_tiles(const PanelWeight& W, std::span<const std::int8_t> codes,
                      std::size_t tokens,
                      std::size_t (*next_tile)(std::size_t remaining),
                      PackingBuffer& buffer, ThreadPool& pool) {
  TokenTiles tiles;
  tiles.tokens = tokens;
  tiles.first = cut_tokens(tokens, next_tile);
  tiles.data = buffer.data();
  auto* const data = reinterpret_cast<T*>(buffer.data());
  pool.for_each(tiles.tiles(), [&](std::size_t i) {
    const std::size_t first = tiles.first[i];
    const std::size_t count = tiles.first[i + 1] - first;
    for (std::size_t m = 0; m < count; ++m) {
      const std::int8_t* const row = codes.data() + (first + m) * W.depth;
      T* to = data + first * W.depth + m * Unit;
      for (std::size_t k = 0; k < W.depth; k += Unit, to += count * Unit) {
        std::copy_n(row + k, Unit, to);
      }
    }
  });
  return tiles;
}

}  // namespace

const RoundedKernels& rounded_kernels(Isa isa) {
#if LLMPRESS_X86
  if (isa == Isa::kAvx2) return rounded_kernels_avx2();
  if (isa == Isa::kAvx512) return rounded_kernels_avx512();
#endif
  (void)isa;
  throw std::logic_error("rounded_kernels: none for this instruction set");
}

bool takes_rounded_inputs(const PanelWeight& W) {
  const bool table =
      W.codes == PanelCodes::kMapped || W.codes == PanelCodes::kMappedPair;
  return W.codes == PanelCodes::kPlain ||
         (table && W.format == PanelFormat::kNibble);
}

void multiply_panels_rounded(const PanelWeight& W, ConstMatrixView X,
                             MatrixView<float> Y, ThreadPool& pool, Isa isa) {
  assert(X.cols() == W.in && Y.cols() == W.out && X.rows() == Y.rows());
  const RoundedKernels& kernels = rounded_kernels(isa);
  const RoundedRows rounded(W, X, kernels, pool);
  const RoundedSums sums{rounded.scales.data(), rounded.sums.data(), X.rows()};
  const auto scale = [&](std::size_t) { return W.final_scale; };
  if (X.rows() <= kFewTokens) {
    const std::int8_t* rows[kFewTokens];
    for (std::size_t t = 0; t < kFewTokens; ++t) {
      rows[t] = rounded.codes.data() + std::min(t, X.rows() - 1) * W.depth;
    }
    run_few(
        W, Y, pool,
        [&](std::size_t group, float* c) {
          kernels.multiply_few(W, group, rows, sums, c);
        },
        scale);
    return;
  }
  const bool words = kernels.takes_words(W);
  PackingBuffer buffer(rounded.codes.size() *
                       (words ? sizeof(std::int16_t) : sizeof(std::int8_t)));
  const TokenTiles tiles =
      words ? pack_tiles<std::int16_t, 2>(W, rounded.codes, X.rows(),
                                          kernels.next_word_tile, buffer, pool)
            : pack_tiles<std::int8_t, 4>(W, rounded.codes, X.rows(),
                                         kernels.next_tile, buffer, pool);
  run_tiles(
      W, tiles, Y, pool,
      [&](const TileRange& range, float* c) {
        kernels.multiply_tiles(W, range, tiles, sums, c);
      },
      scale);
}

}  // namespace llmpress
