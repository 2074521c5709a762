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

// Calls f(integral_constant<n>) for n = `value` in 1..N.
template <std::size_t N, class F>
LLMPRESS_INLINE void with_constant(std::size_t value, F f) {
  unrolled<N>([&](auto i) LLMPRESS_LAMBDA {
    constexpr std::size_t n = decltype(i)::value + 1;
    if (value == n) f(std::integral_constant<std::size_t, n>{});
  });
}
