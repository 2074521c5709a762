// Loops whose index is a constant, for the *_inl.h of an instruction set.

// Calls f(integral_constant<0>) .. f(integral_constant<N - 1>): loops whose
// index chooses registers.
template <std::size_t N, class F>
LLMPRESS_INLINE void unrolled(F f) {
  [&]<std::size_t... J>(std::index_sequence<J...>)
      __attribute__((always_inline)) {
    (f(std::integral_constant<std::size_t, J>{}), ...);
  }
  (std::make_index_sequence<N>{});
}

// The sizes that register tiles come in, which bounds how often the kernels are
// compiled; S::kTileTokens is one of them.
constexpr std::size_t kTileSizes[] = {12, 8, 6, 4, 3, 2, 1};

// The size of the next tile of at most `largest` when `remaining` > 0 are left.
constexpr std::size_t next_tile_of(std::size_t remaining, std::size_t largest) {
  for (const std::size_t size : kTileSizes) {
    if (size <= largest && size <= remaining) return size;
  }
  return 1;
}
template <class S>
constexpr std::size_t next_tile(std::size_t remaining) {
  return next_tile_of(remaining, S::kTileTokens);
}

// Calls f(integral_constant<size>) for the tile size `size`.
template <std::size_t Largest, class F>
LLMPRESS_INLINE void with_tile_size_of(std::size_t size, F f) {
  unrolled<std::size(kTileSizes)>([&](auto i) LLMPRESS_LAMBDA {
    constexpr std::size_t n = kTileSizes[decltype(i)::value];
    if constexpr (n <= Largest) {
      if (size == n) f(std::integral_constant<std::size_t, n>{});
    }
  });
}
template <class S, class F>
LLMPRESS_INLINE void with_tile_size(std::size_t size, F f) {
  with_tile_size_of<S::kTileTokens>(size, f);
}

// Up to four tokens: calls f(integral_constant<T>) with T of 1, 2, 4 that holds
// them. Three are taken for four, the last one twice.
template <class F>
LLMPRESS_INLINE void with_few(std::size_t tokens, F f) {
  if (tokens == 1) {
    f(std::integral_constant<std::size_t, 1>{});
  } else if (tokens == 2) {
    f(std::integral_constant<std::size_t, 2>{});
  } else {
    f(std::integral_constant<std::size_t, 4>{});
  }
}
