// The functions of rounded_kernels.h for one instruction set S; see
// panel_kernels_inl.h, whose scales and zeros are used.

// --- decoding: one step of a panel into unsigned octets, four a lane --------
//
// kParts of a code: the sum of the first one is multiplied by 64 before the
// second one is added.

// Codes that are the numbers.
template <class S, unsigned Bits>
struct PlainOctets {
  static constexpr std::size_t kInputs = 32 / Bits, kVectors = kInputs / 4;
  static constexpr std::size_t kParts = 1;
  static constexpr int kLargest = (1 << Bits) - 1;
  struct Table {
    static LLMPRESS_INLINE Table of(const PanelWeight&) { return {}; }
  };
  template <std::size_t Part, std::size_t V>
  static LLMPRESS_INLINE typename S::I get(typename S::I lanes, Table) {
    if constexpr (Bits == 8) return lanes;
    constexpr std::int32_t kMask = Bits == 4 ? 0x0f0f0f0f : 0x03030303;
    return S::and_(S::template shift_right<Bits * V>(lanes),
                   S::broadcast_lanes(kMask));
  }
};

// Nibbles that stand for numbers of one part or two.
template <class S, std::size_t Parts, int Largest>
struct MappedOctets {
  static constexpr std::size_t kInputs = 8, kVectors = 2, kParts = Parts;
  static constexpr int kLargest = Largest;
  struct Table {
    typename S::OctetTable high, low;
    static LLMPRESS_INLINE Table of(const PanelWeight& W) {
      return {S::load_octet_table(W.map_high), S::load_octet_table(W.map_low)};
    }
  };
  template <std::size_t Part, std::size_t V>
  static LLMPRESS_INLINE typename S::I get(typename S::I lanes, Table table) {
    return S::look_up_octets(Part == 0 ? table.high : table.low,
                             PlainOctets<S, 4>::template get<0, V>(lanes, {}));
  }
};

template <class S, class F>
LLMPRESS_INLINE void with_octets(const PanelWeight& W, F f) {
  const bool plain = W.codes == PanelCodes::kPlain;
  if (W.format == PanelFormat::kByte) return f(PlainOctets<S, 8>{});
  if (W.format == PanelFormat::kCrumb) return f(PlainOctets<S, 2>{});
  if (plain) return f(PlainOctets<S, 4>{});
  if (W.codes == PanelCodes::kMapped) {
    return f(MappedOctets<S, 1, kSmallOctet>{});
  }
  f(MappedOctets<S, 2, kSmallOctet>{});
}

// Sums of a decoder's products, of none at first.
template <class S, class D>
LLMPRESS_INLINE auto no_products() {
  if constexpr (D::kParts == 2) {
    return S::no_pairs();
  } else {
    return S::zero_lanes();
  }
}

// sum + the products of a step of one panel with those of a token, `x` on.
template <class S, class D>
LLMPRESS_INLINE typename S::I dot_step(typename S::I sum,
                                       const typename S::I (&w)[1][D::kVectors],
                                       const std::int8_t* x) {
  if constexpr (D::kLargest > 127) {
    static_assert(D::kVectors == 1);
    return S::dot(sum, w[0][0], S::broadcast_octets(x));
  } else {
    LLMPRESS_UNROLL for (std::size_t v = 0; v < D::kVectors; v += 2) {
      sum = S::dot_two(sum, w[0][v], S::broadcast_small(x + 4 * v), w[0][v + 1],
                       S::broadcast_small(x + 4 * v + 4));
    }
    return sum;
  }
}
template <class S, class D>
LLMPRESS_INLINE typename S::PairSums dot_step(
    typename S::PairSums sums, const typename S::I (&w)[2][D::kVectors],
    const std::int8_t* x) {
  static_assert(D::kVectors == 2 && D::kLargest <= kSmallOctet);
  return S::dot_pairs(sums, w[0], w[1], S::broadcast_small(x),
                      S::broadcast_small(x + 4));
}

template <class S>
LLMPRESS_INLINE typename S::I total_of(typename S::I sum) {
  return sum;
}
template <class S>
LLMPRESS_INLINE typename S::I total_of(typename S::PairSums sums) {
  return S::total(sums);
}

// --- the end of a block -----------------------------------------------------

template <class S>
struct RoundedEnd {
  typename S::F scale, offset;  // of the integer sums, of the inputs' sums

  static LLMPRESS_INLINE RoundedEnd load(const PanelWeight& W,
                                         std::size_t panel, std::size_t group) {
    const std::size_t slot = W.slot(panel, group);
    const auto s = load_scales<S>(W, slot);
    const auto least = S::sub(S::broadcast(W.least), load_zeros<S>(W, slot));
    return {S::mul(s, S::broadcast(W.unit)), S::mul(s, least)};
  }
  // `slot` of the sums belongs to the block and the token.
  LLMPRESS_INLINE typename S::F apply(typename S::F total, typename S::I acc,
                                      const RoundedSums& sums,
                                      std::size_t slot) const {
    const auto product = S::mul(scale, S::to_float(acc));
    total = S::fma(product, S::broadcast(sums.scales[slot]), total);
    return S::fma(offset, S::broadcast(sums.sums[slot]), total);
  }
};

// --- the inputs -------------------------------------------------------------

// Calls body(values, first place, count) for the block, 16 at a time, zeros
// behind its last ones.
template <class S, class Body>
LLMPRESS_INLINE void for_block(const float* x, PanelBlock block, Body body) {
  std::size_t k = block.begin;
  for (; k + kPanelRows <= block.end; k += kPanelRows) {
    body(S::load(x + k), k, kPanelRows);
  }
  if (k == block.end) return;
  float rest[kPanelRows] = {};
  std::copy(x + k, x + block.end, rest);
  body(S::load(rest), k, block.end - k);
}

// Vector i of a step of crumbs holds inputs i, i + 4, i + 8, i + 12.
inline void sort_for_crumbs(std::int8_t* codes, std::size_t depth) {
  for (std::size_t k = 0; k < depth; k += 16) {
    std::int8_t sorted[16];
    for (std::size_t j = 0; j < 16; ++j) {
      sorted[j] = codes[k + j % 4 * 4 + j / 4];
    }
    std::copy_n(sorted, 16, codes + k);
  }
}

template <class S>
bool round_row(const PanelWeight& W, const float* x, std::int8_t* codes,
               float* scales, float* sums, std::size_t stride) {
  bool finite = true;
  for (std::size_t b = 0; b < W.blocks.size(); ++b) {
    auto most = S::zero(), nothing = S::zero();
    for_block<S>(x, W.blocks[b],
                 [&](typename S::F v, std::size_t, std::size_t)
                     LLMPRESS_LAMBDA {
                       most = S::max(most, S::max(v, S::sub(S::zero(), v)));
                       nothing = S::fma(v, S::zero(), nothing);
                     });
    // 0 * v is 0 just where v is finite.
    finite = finite && S::sum(nothing) == 0.0f;
    const float scale = S::largest(most) / 127;
    const auto inverse = S::broadcast(scale > 0 ? 1 / scale : 0.0f);
    auto sum = S::zero_lanes();
    for_block<S>(
        x, W.blocks[b],
        [&](typename S::F v, std::size_t k, std::size_t count) LLMPRESS_LAMBDA {
          auto r = S::round(S::mul(v, inverse));
          r = S::max(S::broadcast(-127.0f), S::min(r, S::broadcast(127.0f)));
          const auto code = S::to_lanes(r);
          sum = S::add(sum, code);
          if (count == kPanelRows) return S::store_i8(codes + k, code);
          std::int8_t rest[kPanelRows];
          S::store_i8(rest, code);
          std::copy_n(rest, count, codes + k);
        });
    scales[b * stride] = scale;
    sums[b * stride] = scale * S::sum(S::to_float(sum));
  }
  if (W.format == PanelFormat::kCrumb) sort_for_crumbs(codes, W.depth);
  return finite;
}

// --- few tokens -------------------------------------------------------------

// The integer sums of block `block` of panels [first, first + P) of N side by
// side. `p` is where the block begins in the stream.
template <class S, class D, std::size_t N, std::size_t P, std::size_t T>
LLMPRESS_INLINE void rounded_block(const PanelWeight& W, PanelBlock block,
                                   const std::byte* p, std::size_t first,
                                   const std::int8_t* const* rows,
                                   typename S::I (&acc)[P][T]) {
  constexpr std::size_t kBytes = 4 * kPanelRows;
  const auto table = D::Table::of(W);
  decltype(no_products<S, D>()) sums[P][T];
  LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
    LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
      sums[n][t] = no_products<S, D>();
    }
  }
  p += first * kBytes;
  for (std::size_t k = block.begin; k < block.end; k += D::kInputs) {
    LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
      S::prefetch(p + n * kBytes + kPrefetchBytes);
      const auto lanes = S::load_lanes(p + n * kBytes);
      typename S::I w[D::kParts][D::kVectors];
      unrolled<D::kVectors>([&](auto v) LLMPRESS_LAMBDA {
        constexpr std::size_t V = decltype(v)::value;
        unrolled<D::kParts>([&](auto part) LLMPRESS_LAMBDA {
          w[part][V] = D::template get<decltype(part)::value, V>(lanes, table);
        });
      });
      LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
        sums[n][t] = dot_step<S, D>(sums[n][t], w, rows[t] + k);
      }
    }
    p += N * kBytes;
  }
  LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
    LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
      acc[n][t] = total_of<S>(sums[n][t]);
    }
  }
}

template <class S, class D, std::size_t N, std::size_t T>
void few_rounded(const PanelWeight& W, std::size_t group,
                 const std::int8_t* const* rows, const RoundedSums& sums,
                 float* C) {
  constexpr std::size_t P = panels_at_once<S>(N, T * D::kParts);
  const std::byte* p = W.group_data(group);
  const std::size_t panel = W.first_panel(group);
  typename S::F total[N][T];
  LLMPRESS_UNROLL for (std::size_t n = 0; n < N; ++n) {
    LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
      total[n][t] = S::zero();
    }
  }
  for (std::size_t g = 0; g < std::min(kScalesAhead, W.groups); ++g) {
    prefetch_scales<S, N>(W, panel, g);
  }
  for (std::size_t b = 0; b < W.blocks.size(); ++b) {
    const PanelBlock block = W.blocks[b];
    prefetch_scales<S, N>(W, panel, block.group + kScalesAhead);
    LLMPRESS_UNROLL for (std::size_t first = 0; first < N; first += P) {
      typename S::I acc[P][T];
      rounded_block<S, D, N, P, T>(W, block, p, first, rows, acc);
      LLMPRESS_UNROLL for (std::size_t n = 0; n < P; ++n) {
        const auto end = RoundedEnd<S>::load(W, panel + first + n, block.group);
        LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
          auto& sum = total[first + n][t];
          sum = end.apply(sum, acc[n][t], sums,
                          b * sums.tokens + std::min(t, sums.tokens - 1));
        }
      }
    }
    p += (block.end - block.begin) / D::kInputs * N * 4 * kPanelRows;
  }
  LLMPRESS_UNROLL for (std::size_t n = 0; n < N; ++n) {
    LLMPRESS_UNROLL for (std::size_t t = 0; t < T; ++t) {
      S::store(C + t * kGroupRows + n * kPanelRows, total[n][t]);
    }
  }
}

template <class S>
void multiply_few_rounded(const PanelWeight& W, std::size_t group,
                          const std::int8_t* const* rows,
                          const RoundedSums& sums, float* C) {
  with_octets<S>(W, [&](auto octets) LLMPRESS_LAMBDA {
    using D = decltype(octets);
    with_few(sums.tokens, [&](auto t) LLMPRESS_LAMBDA {
      constexpr std::size_t T = decltype(t)::value;
      if (W.panels_in_group(group) == kGroupPanels) {
        few_rounded<S, D, kGroupPanels, T>(W, group, rows, sums, C);
      } else {
        few_rounded<S, D, 1, T>(W, group, rows, sums, C);
      }
    });
  });
}
