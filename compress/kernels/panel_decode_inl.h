// Panels into floats, one step at a time, and the end of a block, for one
// instruction set S. Included once by each panel_kernels_*.cpp, inside its
// target stretch and its anonymous namespace; everything it needs is included
// there.

// --- decoding: one step of a panel, 16 rows, into floats --------------------

// What decoders that need none are given.
struct NoTable {
  static LLMPRESS_INLINE NoTable of(const PanelWeight&) { return {}; }
};

// The formats whose step is one input.
template <class S, PanelFormat Format, std::size_t LaneBytes>
struct DecodeElement {
  static constexpr std::size_t kInputs = 1;
  static constexpr std::size_t kBytes = LaneBytes * kPanelRows;
  static constexpr bool kDense = false;
  using State = typename S::F;
  using Table = NoTable;
  static LLMPRESS_INLINE State load(const std::byte* p, Table) {
    if constexpr (Format == PanelFormat::kF16) return S::load_f16(p);
    if constexpr (Format == PanelFormat::kBF16) return S::load_bf16(p);
    if constexpr (Format == PanelFormat::kE4M3) return S::load_e4m3(p);
    if constexpr (Format == PanelFormat::kE5M2) return S::load_e5m2(p);
    return S::load(p);
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F get(State s, Table) {
    return s;
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F in_place(State s, Table) {
    return s;
  }
};

// Where the code of input J stands in a lane of 32 / Bits codes.
template <unsigned Bits>
constexpr unsigned place_of(std::size_t j) {
  if (Bits == 4) {
    return static_cast<unsigned>(8 * (j % 4) + (j < 4 ? 0 : 4));
  }
  return static_cast<unsigned>(Bits * j);
}

// Codes that are their values but for PanelWeight::least.
template <class S, unsigned Bits>
struct DecodePlain {
  static constexpr std::size_t kInputs = 32 / Bits, kBytes = 4 * kPanelRows;
  static constexpr bool kDense = Bits <= 4;
  using State = typename S::I;
  using Table = NoTable;
  static LLMPRESS_INLINE State load(const std::byte* p, Table) {
    return S::load_lanes(p);
  }
  // 2^place code, to be multiplied with x / 2^place (place_factors()).
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F in_place(State s, Table) {
    constexpr unsigned kPlace = place_of<Bits>(J);
    if constexpr (kPlace + Bits == 32) {
      return S::to_float(S::template shift_right<kPlace>(s));
    } else {
      constexpr auto kMask =
          static_cast<std::int32_t>(((1u << Bits) - 1) << kPlace);
      return S::to_float(S::and_(s, S::broadcast_lanes(kMask)));
    }
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F get(State s, Table) {
    constexpr auto kMask = static_cast<std::int32_t>((1u << Bits) - 1);
    const State low = S::template shift_right<place_of<Bits>(J)>(s);
    return S::to_float(S::and_(low, S::broadcast_lanes(kMask)));
  }
};

// Codes of a table of floats.
template <class S, unsigned Bits>
struct DecodeTable {
  static constexpr std::size_t kInputs = 32 / Bits, kBytes = 4 * kPanelRows;
  static constexpr bool kDense = Bits <= 4;
  using State = typename S::I;
  struct Table {
    typename S::Table values;
    static LLMPRESS_INLINE Table of(const PanelWeight& W) {
      return {S::load_table(W.table)};
    }
  };
  static LLMPRESS_INLINE State load(const std::byte* p, Table) {
    return S::load_lanes(p);
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F get(State s, Table table) {
    return S::look_up(table.values,
                      S::template shift_right<place_of<Bits>(J)>(s));
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F in_place(State s, Table table) {
    return get<J>(s, table);
  }
};

// Nibbles of a table of floats, where octets are looked up faster than floats.
template <class S>
struct DecodeTogether {
  static constexpr std::size_t kInputs = 8, kBytes = 4 * kPanelRows;
  static constexpr bool kDense = true;
  struct State {
    typename S::F values[8];
  };
  struct Table {
    typename S::OctetPlanes planes;
    static LLMPRESS_INLINE Table of(const PanelWeight& W) {
      return {S::load_octet_planes(W.table)};
    }
  };
  static LLMPRESS_INLINE State load(const std::byte* p, Table table) {
    const auto lanes = S::transpose_fours(S::load_lanes(p));
    const auto mask = S::broadcast_lanes(0x0f0f0f0f);
    State state;
    S::look_up_fours(table.planes, S::and_(lanes, mask), state.values);
    S::look_up_fours(table.planes,
                     S::and_(S::template shift_right<4>(lanes), mask),
                     state.values + 4);
    return state;
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F get(const State& s, Table) {
    return s.values[J];
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F in_place(const State& s, Table) {
    return s.values[J];
  }
};

// Nibbles that stand for small whole numbers: all of a lane are looked up at
// once, then they are octets.
template <class S>
struct DecodeMapped {
  static constexpr std::size_t kInputs = 8, kBytes = 4 * kPanelRows;
  static constexpr bool kDense = false;
  using Octets = DecodePlain<S, 8>;
  struct State {
    typename S::I low, high;
  };
  struct Table {
    typename S::OctetTable numbers;
    static LLMPRESS_INLINE Table of(const PanelWeight& W) {
      return {S::load_octet_table(W.map_high)};
    }
  };
  static LLMPRESS_INLINE State load(const std::byte* p, Table table) {
    const auto lanes = S::load_lanes(p);
    const auto mask = S::broadcast_lanes(0x0f0f0f0f);
    return {
        S::look_up_octets(table.numbers, S::and_(lanes, mask)),
        S::look_up_octets(table.numbers,
                          S::and_(S::template shift_right<4>(lanes), mask))};
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F get(State s, Table) {
    return Octets::template get<J % 4>(J < 4 ? s.low : s.high, NoTable{});
  }
  template <std::size_t J>
  static LLMPRESS_INLINE typename S::F in_place(State s, Table) {
    return Octets::template in_place<J % 4>(J < 4 ? s.low : s.high, NoTable{});
  }
};

// Calls f with the decoder of W's codes as a type.
template <class S, class F>
LLMPRESS_INLINE void with_decoder(const PanelWeight& W, F f) {
  const bool plain = W.codes == PanelCodes::kPlain;
  switch (W.format) {
    case PanelFormat::kF32:
      return f(DecodeElement<S, PanelFormat::kF32, 4>{});
    case PanelFormat::kF16:
      return f(DecodeElement<S, PanelFormat::kF16, 2>{});
    case PanelFormat::kBF16:
      return f(DecodeElement<S, PanelFormat::kBF16, 2>{});
    case PanelFormat::kE4M3:
      return f(DecodeElement<S, PanelFormat::kE4M3, 1>{});
    case PanelFormat::kE5M2:
      return f(DecodeElement<S, PanelFormat::kE5M2, 1>{});
    case PanelFormat::kByte:
      return f(DecodePlain<S, 8>{});
    case PanelFormat::kNibble:
      if (W.codes == PanelCodes::kMapped) return f(DecodeMapped<S>{});
      if (plain) return f(DecodePlain<S, 4>{});
      if constexpr (S::kLooksUpOctets) return f(DecodeTogether<S>{});
      return f(DecodeTable<S, 4>{});
    case PanelFormat::kCrumb:
      return plain ? f(DecodePlain<S, 2>{}) : f(DecodeTable<S, 2>{});
  }
}

// --- the end of a block -----------------------------------------------------

// The zeros less what whole numbers leave out.
template <class S>
LLMPRESS_INLINE typename S::F load_offsets(const PanelWeight& W,
                                           std::size_t slot) {
  const typename S::F zeros = load_zeros<S>(W, slot);
  return W.multiplies_in_place() ? S::sub(zeros, S::broadcast(W.least)) : zeros;
}

// total + s (acc - z sum), the same operations wherever a block ends; z is the
// zero less what plain codes leave out.
template <class S>
struct BlockEnd {
  typename S::F scale, scaled_zero;
  bool has_zero;

  static LLMPRESS_INLINE BlockEnd load(const PanelWeight& W, std::size_t panel,
                                       std::size_t group) {
    const std::size_t slot = W.slot(panel, group);
    BlockEnd e{load_scales<S>(W, slot), S::zero(), W.needs_sums()};
    if (e.has_zero) {
      e.scaled_zero = S::mul(e.scale, load_offsets<S>(W, slot));
    }
    if (W.codes == PanelCodes::kMapped) {
      e.scale = S::mul(e.scale, S::broadcast(W.unit));
    }
    return e;
  }
  // `slot` of the sums belongs to the block and the token.
  LLMPRESS_INLINE typename S::F apply(typename S::F total, typename S::F acc,
                                      const float* sums,
                                      std::size_t slot) const {
    total = S::fma(scale, acc, total);
    if (has_zero) {
      total = S::fnma(scaled_zero, S::broadcast(sums[slot]), total);
    }
    return total;
  }
};
