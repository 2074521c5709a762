// What the products of panels have in common, for one instruction set S.

constexpr std::size_t kLineBytes = 64;
// How many groups ahead to ask for scales.
constexpr std::size_t kScalesAhead = 4;

// --- scales and zeros of one panel and group --------------------------------

template <class S>
LLMPRESS_INLINE typename S::F load_scales(const PanelWeight& W,
                                          std::size_t slot) {
  const std::byte* const p = W.scales.data();
  switch (W.scale_type) {
    case PanelScaleType::kNone:
      break;
    case PanelScaleType::kF32:
      return S::load(p + slot * 4);
    case PanelScaleType::kF16:
      return S::load_f16(p + slot * 2);
    case PanelScaleType::kBF16:
      return S::load_bf16(p + slot * 2);
    case PanelScaleType::kE8M0:
      return S::load_e8m0(p + slot);
    case PanelScaleType::kE4M3:
      return S::load_e4m3(p + slot);
  }
  return S::broadcast(1.0f);
}

template <class S>
LLMPRESS_INLINE typename S::F load_zeros(const PanelWeight& W,
                                         std::size_t slot) {
  switch (W.zero_type) {
    case PanelZeroType::kNone:
      break;
    case PanelZeroType::kI8:
      return S::load_i8(W.zeros.data() + slot);
    case PanelZeroType::kF32:
      return S::load(W.zeros.data() + slot * 4);
  }
  return S::zero();
}

// Asks for the scales of N panels side by side: a stream of its own that is too
// thin for the processor to foresee.
template <class S, std::size_t N>
LLMPRESS_INLINE void prefetch_scales(const PanelWeight& W, std::size_t panel,
                                     std::size_t group) {
  const std::size_t bytes = element_bytes(W.scale_type);
  const std::byte* const p = W.scales.data() + W.slot(panel, group) * bytes;
  for (std::size_t i = 0; i < N * kPanelRows * bytes; i += kLineBytes) {
    S::prefetch(p + i);
  }
}

// How many panels at a time, so that their accumulators fit the registers.
template <class S>
constexpr std::size_t panels_at_once(std::size_t panels, std::size_t tokens) {
  return std::clamp<std::size_t>(S::kFewAccumulators / tokens, 1, panels);
}

// The size of the next tile of tokens, of at most `largest`: of less than two
// whole tiles the first one takes about half.
constexpr std::size_t next_token_tile(std::size_t remaining,
                                      std::size_t largest) {
  if (remaining <= largest || remaining >= 2 * largest) {
    return next_tile_of(remaining, largest);
  }
  std::size_t next = largest;
  for (const std::size_t size : kTileSizes) {
    if (size <= largest && 2 * size >= remaining) next = size;
  }
  return next;
}

// The panels of a register tile.
template <class S>
constexpr std::size_t tile_width(std::size_t panels) {
  return std::min(S::kTilePanels, panels);
}

// The end of a stretch of blocks of at most `depth` inputs together, or of one
// block.
inline std::size_t end_of_stretch(const std::vector<PanelBlock>& blocks,
                                  std::size_t first, std::size_t depth) {
  std::size_t end = first + 1;
  while (end < blocks.size() &&
         blocks[end].end - blocks[first].begin <= depth) {
    ++end;
  }
  return end;
}

// Asks for the results that a register tile of M tokens and P panels adds to.
template <class S, std::size_t M, std::size_t P>
LLMPRESS_INLINE void prefetch_results(const float* C, std::size_t ldc) {
  if constexpr (S::kPrefetchesTiles) {
    LLMPRESS_UNROLL for (std::size_t m = 0; m < M; ++m) {
      LLMPRESS_UNROLL for (std::size_t p = 0; p < P; ++p) {
        S::prefetch(C + m * ldc + p * kPanelRows);
      }
    }
  }
}
