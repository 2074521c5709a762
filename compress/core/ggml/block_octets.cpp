// Blocks from octets and to octets; ggml_block.h draws the layouts. Every
// function goes both ways, so that reading and writing cannot differ.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "compress/core/float_formats.h"
#include "compress/core/ggml/ggml_block.h"
#include "compress/core/ggml/ggml_grid.h"
#include "compress/core/ggml/grid_octets.h"

namespace llmpress {
namespace {

enum class Way { kRead, kWrite };

using Octets = std::span<std::uint8_t>;

// The octets of one block; reading leaves them alone.
template <Way kWay>
class Parts {
 public:
  Parts(Octets octets, GgmlBlock& block) : octets_(octets), block_(block) {}

  Octets take(std::size_t count) {
    const Octets taken = octets_.first(count);
    octets_ = octets_.subspan(count);
    return taken;
  }

  void half(float& value) {
    const Octets two = take(2);
    if constexpr (kWay == Way::kRead) {
      value = f16_to_float(static_cast<std::uint16_t>(two[0] | two[1] << 8));
    } else {
      const std::uint16_t code = f16_from_float(value);
      two[0] = static_cast<std::uint8_t>(code);
      two[1] = static_cast<std::uint8_t>(code >> 8);
    }
  }

  // `bits` of the octet at `shift` are bits [from, from + bits) of `value`.
  template <class T>
  static void field(std::uint8_t& octet, int shift, int bits, T& value,
                    int from = 0) {
    const int mask = (1 << bits) - 1;
    if constexpr (kWay == Way::kRead) {
      value = static_cast<T>(value | (octet >> shift & mask) << from);
    } else {
      octet =
          static_cast<std::uint8_t>(octet | (value >> from & mask) << shift);
    }
  }

  // Low halves are the first `half` elements from `begin`, high ones the next.
  void nibbles(std::size_t begin, std::size_t half) {
    const Octets octets = take(half);
    for (std::size_t i = 0; i < half; ++i) {
      field(octets[i], 0, 4, block_.codes[begin + i]);
      field(octets[i], 4, 4, block_.codes[begin + half + i]);
    }
  }

  // Two bits of each element, four stretches of 32 in 32 octets.
  void crumbs(int from) {
    for (std::size_t begin = 0; begin < kGgmlMostElements; begin += 128) {
      const Octets octets = take(32);
      for (std::size_t i = 0; i < 128; ++i) {
        field(octets[i % 32], static_cast<int>(i / 32 * 2), 2,
              block_.codes[begin + i], from);
      }
    }
  }

  // One bit of each element, eight stretches of 32 in 32 octets.
  void bit_planes(int from) {
    const Octets octets = take(32);
    for (std::size_t i = 0; i < kGgmlMostElements; ++i) {
      field(octets[i % 32], static_cast<int>(i / 32), 1, block_.codes[i], from);
    }
  }

  // The fifth bits of 32 elements.
  void fifth_bits() {
    const Octets octets = take(4);
    for (std::size_t i = 0; i < 32; ++i) {
      field(octets[i / 8], static_cast<int>(i % 8), 1, block_.codes[i], 4);
    }
  }

  // Eight scales and minima of six bits: the first four whole in eight octets,
  // of the others the low halves in four more and the rest on top of the first.
  void scales_and_minima() {
    const Octets octets = take(12);
    for (std::size_t j = 0; j < 4; ++j) {
      field(octets[j], 0, 6, block_.scale_codes[j]);
      field(octets[j + 4], 0, 6, block_.min_codes[j]);
      field(octets[j + 8], 0, 4, block_.scale_codes[j + 4]);
      field(octets[j], 6, 2, block_.scale_codes[j + 4], 4);
      field(octets[j + 8], 4, 4, block_.min_codes[j + 4]);
      field(octets[j + 4], 6, 2, block_.min_codes[j + 4], 4);
    }
  }

  // Codes of scales that are stored with 32 added.
  template <class Fields>
  void offset_scales(std::size_t count, Fields fields) {
    for (std::size_t j = 0; j < count; ++j) {
      std::int16_t code =
          kWay == Way::kRead
              ? std::int16_t{0}
              : static_cast<std::int16_t>(block_.scale_codes[j] + 32);
      fields(j, code);
      if constexpr (kWay == Way::kRead) {
        block_.scale_codes[j] = static_cast<std::int16_t>(code - 32);
      }
    }
  }

  GgmlBlock& block() { return block_; }

 private:
  Octets octets_;
  GgmlBlock& block_;
};

template <Way kWay>
void q8_0(Parts<kWay>& p) {
  p.half(p.block().d);
  const Octets octets = p.take(32);
  for (std::size_t i = 0; i < 32; ++i) {  // a signed octet is the code - 128
    if constexpr (kWay == Way::kRead) {
      p.block().codes[i] = octets[i] ^ 0x80;
    } else {
      octets[i] = p.block().codes[i] ^ 0x80;
    }
  }
}

template <Way kWay>
void q2_k(Parts<kWay>& p) {
  const Octets octets = p.take(16);
  for (std::size_t j = 0; j < 16; ++j) {
    p.field(octets[j], 0, 4, p.block().scale_codes[j]);
    p.field(octets[j], 4, 4, p.block().min_codes[j]);
  }
  p.crumbs(0);
  p.half(p.block().d);
  p.half(p.block().dmin);
}

template <Way kWay>
void q3_k(Parts<kWay>& p) {
  p.bit_planes(2);
  p.crumbs(0);
  const Octets octets = p.take(12);
  p.offset_scales(16, [&](std::size_t j, std::int16_t& code) {
    p.field(octets[j % 8], j < 8 ? 0 : 4, 4, code);
    p.field(octets[8 + j % 4], static_cast<int>(j / 4 * 2), 2, code, 4);
  });
  p.half(p.block().d);
}

template <Way kWay>
void q4_k(Parts<kWay>& p) {
  p.half(p.block().d);
  p.half(p.block().dmin);
  p.scales_and_minima();
  for (std::size_t i = 0; i < 256; i += 64) p.nibbles(i, 32);
}

template <Way kWay>
void q5_k(Parts<kWay>& p) {
  p.half(p.block().d);
  p.half(p.block().dmin);
  p.scales_and_minima();
  p.bit_planes(4);
  for (std::size_t i = 0; i < 256; i += 64) p.nibbles(i, 32);
}

template <Way kWay>
void q6_k(Parts<kWay>& p) {
  for (std::size_t i = 0; i < 256; i += 128) p.nibbles(i, 64);
  p.crumbs(4);
  const Octets octets = p.take(16);
  for (std::size_t j = 0; j < 16; ++j) {
    if constexpr (kWay == Way::kRead) {
      p.block().scale_codes[j] = static_cast<std::int8_t>(octets[j]);
    } else {
      octets[j] = static_cast<std::uint8_t>(p.block().scale_codes[j]);
    }
  }
  p.half(p.block().d);
}

template <Way kWay>
void iq4_xs(Parts<kWay>& p) {
  p.half(p.block().d);
  const Octets high = p.take(2), low = p.take(4);
  p.offset_scales(8, [&](std::size_t j, std::int16_t& code) {
    p.field(low[j / 2], static_cast<int>(j % 2 * 4), 4, code);
    p.field(high[j / 4], static_cast<int>(j % 4 * 2), 2, code, 4);
  });
  for (std::size_t i = 0; i < 256; i += 32) p.nibbles(i, 16);
}

// `digits` trits of a stretch of elements `stride` apart in each octet. An octet
// is ceil(256 t / 243) of t = the trits as digits to base 3, the first on top,
// so that multiplying by 3 brings out the next one above it.
template <Way kWay>
void trits(Parts<kWay>& p, std::size_t begin, std::size_t stride,
           std::size_t digits) {
  auto& codes = p.block().codes;
  const Octets octets = p.take(stride);
  for (std::size_t m = 0; m < stride; ++m) {
    if constexpr (kWay == Way::kRead) {
      std::uint8_t rest = octets[m];
      for (std::size_t n = 0; n < digits; ++n) {
        codes[begin + n * stride + m] =
            static_cast<std::uint8_t>(rest * 3 >> 8);
        rest = static_cast<std::uint8_t>(rest * 3);
      }
    } else {
      unsigned value = 0;
      for (std::size_t n = 0; n < 5; ++n) {
        value = value * 3 + (n < digits ? codes[begin + n * stride + m] : 0u);
      }
      octets[m] = static_cast<std::uint8_t>((value * 256 + 242) / 243);
    }
  }
}

template <Way kWay>
void tq1_0(Parts<kWay>& p) {
  trits(p, 0, 32, 5);
  trits(p, 160, 16, 5);
  trits(p, 240, 4, 4);
  p.half(p.block().d);
}

// Octets of scales that are no integers.
template <Way kWay>
void float_scales(Parts<kWay>& p, std::size_t count) {
  const Octets octets = p.take(count);
  p.block().d = 1;
  for (std::size_t j = 0; j < count; ++j) {
    p.field(octets[j], 0, 8, p.block().scale_codes[j]);
  }
}

template <Way kWay>
void nvfp4(Parts<kWay>& p) {
  float_scales(p, 4);
  for (std::size_t i = 0; i < 64; i += 16) p.nibbles(i, 8);
}

// minimum = -m.
template <Way kWay>
void offset(Parts<kWay>& p) {
  float m = -p.block().dmin;
  p.half(m);
  p.block().dmin = -m;
}

template <Way kWay>
void pass(GgmlType type, Parts<kWay> p) {
  float& d = p.block().d;
  switch (type) {
    case GgmlType::kQ4_0:
    case GgmlType::kIq4Nl:
      return p.half(d), p.nibbles(0, 16);
    case GgmlType::kQ4_1:
      return p.half(d), offset(p), p.nibbles(0, 16);
    case GgmlType::kQ5_0:
      return p.half(d), p.fifth_bits(), p.nibbles(0, 16);
    case GgmlType::kQ5_1:
      return p.half(d), offset(p), p.fifth_bits(), p.nibbles(0, 16);
    case GgmlType::kQ8_0:
      return q8_0(p);
    case GgmlType::kQ2_K:
      return q2_k(p);
    case GgmlType::kQ3_K:
      return q3_k(p);
    case GgmlType::kQ4_K:
      return q4_k(p);
    case GgmlType::kQ5_K:
      return q5_k(p);
    case GgmlType::kQ6_K:
      return q6_k(p);
    case GgmlType::kIq4Xs:
      return iq4_xs(p);
    case GgmlType::kTq1_0:
      return tq1_0(p);
    case GgmlType::kTq2_0:
      return p.crumbs(0), p.half(d);
    case GgmlType::kMxfp4:
      return float_scales(p, 1), p.nibbles(0, 16);
    case GgmlType::kNvfp4:
      return nvfp4(p);
    case GgmlType::kF32:
    case GgmlType::kF16:
    case GgmlType::kBF16:
    case GgmlType::kF64:
    case GgmlType::kI8:
    case GgmlType::kI16:
    case GgmlType::kI32:
    case GgmlType::kI64:
    case GgmlType::kQ8_1:
    case GgmlType::kQ8_K:
    case GgmlType::kIq1S:
    case GgmlType::kIq1M:
    case GgmlType::kIq2Xxs:
    case GgmlType::kIq2Xs:
    case GgmlType::kIq2S:
    case GgmlType::kIq3Xxs:
    case GgmlType::kIq3S:
      break;
  }
  throw std::logic_error("ggml block: a type without a layout");
}

}  // namespace

GgmlBlock unpack_ggml_block(GgmlType type, std::span<const std::byte> bytes) {
  std::array<std::uint8_t, kGgmlMostElements> octets{};
  std::memcpy(octets.data(), bytes.data(), bytes.size());
  if (grid_of(type) != nullptr) {
    return unpack_grid_block(type, std::span(octets).first(bytes.size()));
  }
  GgmlBlock block;
  pass(type, Parts<Way::kRead>(std::span(octets).first(bytes.size()), block));
  return block;
}

void pack_ggml_block(GgmlType type, const GgmlBlock& block,
                     std::span<std::byte> bytes) {
  std::array<std::uint8_t, kGgmlMostElements> octets{};
  const Octets own = std::span(octets).first(bytes.size());
  GgmlBlock copy = block;
  if (grid_of(type) != nullptr) {
    pack_grid_block(type, block, own);
  } else {
    pass(type, Parts<Way::kWrite>(own, copy));
  }
  std::memcpy(bytes.data(), octets.data(), bytes.size());
}

}  // namespace llmpress
