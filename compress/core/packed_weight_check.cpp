// check() of packed_weight.h: nothing that a reader may index out of bounds
// with gets past it.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <span>
#include <string>
#include <type_traits>

#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "compress/core/packed_weight.h"

namespace llmpress {
namespace {

// Says what is wrong with the weight `name`.
class Checker {
 public:
  explicit Checker(std::string_view name) : name_(name) {}

  [[noreturn]] void refuse(const std::string& what) const {
    fail(ErrorCode::kCorruptFile, "{}: {}", name_, what);
  }

  // `what` is a string or a function that makes one: messages with numbers in
  // them are only built when they are needed.
  template <class What>
  void require(bool condition, const What& what) const {
    if (condition) return;
    if constexpr (std::is_invocable_v<What>) {
      refuse(what());
    } else {
      refuse(what);
    }
  }

  void size(std::string_view buffer, std::size_t found,
            std::size_t wanted) const {
    if (found == wanted) return;
    refuse(formatted("{} holds {} elements, wanted {}", buffer, found, wanted));
  }

  std::size_t mul(std::size_t a, std::size_t b) const {
    return checked_mul(a, b, name_);
  }

  // Rejects what cannot be a Linear, so that products of shapes are safe below.
  void shape(std::size_t out, std::size_t in) const {
    if (out == 0 || in == 0) {
      refuse(formatted("shape [{}, {}] has no elements", out, in));
    }
    // Room for the widest element.
    checked_mul(mul(out, in), 8, name_);
  }

  // Finite, and a value of the type that they are written in.
  void scales(std::string_view buffer, std::span<const float> values,
              DType dtype) const {
    if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
      refuse(formatted("scales of type {}, wanted F32, F16 or BF16",
                       facts(dtype).name));
    }
    std::array<float, 256> rounded{};
    for (std::size_t b = 0; b < values.size(); b += rounded.size()) {
      const auto chunk =
          values.subspan(b, std::min(rounded.size(), values.size() - b));
      std::copy(chunk.begin(), chunk.end(), rounded.begin());
      round_through(dtype, std::span(rounded).first(chunk.size()));
      for (std::size_t k = 0; k < chunk.size(); ++k) {
        if (std::isfinite(chunk[k]) && rounded[k] == chunk[k]) continue;
        refuse(formatted("{}[{}] is {:g}, wanted a finite {}", buffer, b + k,
                         chunk[k], facts(dtype).name));
      }
    }
  }

  void codes(std::string_view buffer, std::span<const std::uint8_t> values,
             int bits) const {
    for (std::size_t k = 0; k < values.size(); ++k) {
      if (values[k] >> bits == 0) continue;
      refuse(formatted("{}[{}] is {}, wanted less than 2^{}", buffer, k,
                       values[k], bits));
    }
  }

 private:
  std::string name_;
};

void check_dense_dtype(const Checker& c, DType dtype) {
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
    c.refuse(formatted("values of type {}, wanted F32, F16 or BF16",
                       facts(dtype).name));
  }
}

void check_group_size(const Checker& c, std::size_t group_size,
                      std::size_t in) {
  if (group_size == 0 || group_size > in) {
    c.refuse(formatted("group_size {}, wanted 1..{}", group_size, in));
  }
}

void check_one(const DenseWeight& w, const Checker& c) {
  check_dense_dtype(c, w.dtype);
  c.size("data", w.data.size(), bytes_of(w.dtype, w.out * w.in));
}

void check_one(const GroupedIntWeight& w, const Checker& c) {
  if (w.bits < 2 || w.bits > 8) {
    c.refuse(formatted("bits {}, wanted 2..8", w.bits));
  }
  check_group_size(c, w.group_size, w.in);
  const std::size_t slots = w.out * w.groups();
  c.size("codes", w.codes.size(), c.mul(w.out, w.words_per_row()));
  c.size("scales", w.scales.size(), slots);
  c.size("zeros", w.zeros.size(),
         w.symmetric || !w.float_zeros.empty() ? 0 : slots);
  c.size("float_zeros", w.float_zeros.size(),
         w.float_zeros.empty() ? 0 : slots);
  c.require(!w.symmetric || w.float_zeros.empty(),
            "float_zeros in a symmetric weight");
  c.size("g_idx", w.g_idx.size(), w.g_idx.empty() ? 0 : w.in);
  for (std::size_t i = 0; i < w.g_idx.size(); ++i) {
    if (w.g_idx[i] < w.groups()) continue;
    c.refuse(formatted("g_idx[{}] is {}, wanted less than {}", i, w.g_idx[i],
                       w.groups()));
  }
  c.codes("zeros", w.zeros, w.bits);
  c.scales("scales", w.scales, w.scale_dtype);
  c.scales("float_zeros", w.float_zeros, w.scale_dtype);
}

void check_outliers(const Int8Weight& w, const Checker& c) {
  const std::size_t columns = w.outlier_columns.size();
  c.size("outlier_values", w.outlier_values.size(), c.mul(w.out, columns));
  for (std::size_t k = 0; k < columns; ++k) {
    const std::uint32_t column = w.outlier_columns[k];
    c.require(column < w.in, [&] {
      return formatted("outlier column {} of {}", column, w.in);
    });
    c.require(k == 0 || w.outlier_columns[k - 1] < column,
              "outlier columns are not ascending");
    for (std::size_t o = 0; o < w.out; ++o) {
      c.require(w.codes[o * w.in + column] == 0, [&] {
        return formatted("a code of outlier column {} is not 0", column);
      });
    }
  }
  for (const std::uint16_t value : w.outlier_values) {
    c.require((value & 0x7c00u) != 0x7c00u, "an outlier value is not finite");
  }
}

void check_one(const Int8Weight& w, const Checker& c) {
  c.size("codes", w.codes.size(), w.out * w.in);
  c.size("scales", w.scales.size(), w.scales.size() == 1 ? 1 : w.out);
  c.size("zeros", w.zeros.size(), w.zeros.empty() ? 0 : w.scales.size());
  for (const std::int32_t z : w.zeros) {
    // A grid that contains 0 needs no zero beyond an octet on either side;
    // codes[i] - z must not overflow.
    c.require(z >= -(1 << 16) && z <= (1 << 16),
              [&] { return formatted("zero point {} out of range", z); });
  }
  c.scales("scales", w.scales, w.scale_dtype);
  check_outliers(w, c);
}

void check_one(const Fp8Weight& w, const Checker& c) {
  c.require(w.format == DType::kF8E4M3 || w.format == DType::kF8E5M2, [&] {
    return formatted("codes of type {}, wanted F8_E4M3 or F8_E5M2",
                     facts(w.format).name);
  });
  c.require(w.block_rows > 0 && w.block_cols > 0, "an empty scale block");
  c.size("codes", w.codes.size(), w.out * w.in);
  c.size("scales", w.scales.size(),
         ceil_div(w.out, w.block_rows) * ceil_div(w.in, w.block_cols));
  c.scales("scales", w.scales, w.scale_dtype);
}

void check_one(const Table4Weight& w, const Checker& c) {
  c.require(w.block_size > 0, "an empty block");
  const std::size_t blocks = ceil_div(w.out * w.in, w.block_size);
  const bool nested = !w.absmax_codes.empty();
  c.size("codes", w.codes.size(), ceil_div(w.out * w.in, 2));
  c.size("absmax", w.absmax.size(), nested ? 0 : blocks);
  c.size("absmax_codes", w.absmax_codes.size(), nested ? blocks : 0);
  c.size("nested_absmax", w.nested_absmax.size(),
         nested ? ceil_div(blocks, 256) : 0);
  c.scales("absmax", w.absmax, DType::kF32);
  c.scales("nested_absmax", w.nested_absmax, DType::kF32);
  c.require(std::isfinite(w.nested_offset), "nested_offset is not finite");
}

void check_one(const MicroFp4Weight& w, const Checker& c) {
  c.size("codes", w.codes.size(), c.mul(w.out, ceil_div(w.in, 2)));
  c.size("scales", w.scales.size(), c.mul(w.out, ceil_div(w.in, w.group())));
  for (std::size_t k = 0; k < w.scales.size(); ++k) {
    const float scale = w.kind == MicroFp4Kind::kMxfp4
                            ? e8m0_to_float(w.scales[k])
                            : e4m3_to_float(w.scales[k]);
    if (std::isfinite(scale)) continue;
    c.refuse(formatted("scales[{}] is NaN", k));
  }
  c.require(std::isfinite(w.global_scale) && w.global_scale > 0, [&] {
    return formatted("global_scale is {:g}, wanted positive and finite",
                     w.global_scale);
  });
}

void check_mask_row(const SparseWeight& w, std::size_t o, const Checker& c) {
  const auto row =
      std::span(w.mask).subspan(o * ceil_div(w.in, 8), ceil_div(w.in, 8));
  std::size_t kept = 0;
  for (const std::uint8_t octet : row) {
    kept += static_cast<std::size_t>(std::popcount(octet));
  }
  if (w.in % 8 != 0) {
    c.require(row.back() >> (w.in % 8) == 0, [&] {
      return formatted("mask row {} goes beyond the last column", o);
    });
  }
  c.require(w.row_offsets[o] <= w.row_offsets[o + 1] &&
                w.row_offsets[o + 1] - w.row_offsets[o] == kept,
            [&] {
              return formatted(
                  "row_offsets of row {} disagree with its mask of {}", o,
                  kept);
            });
  if (w.pattern != SparsePattern::k2of4) return;
  for (std::size_t i = 0; i < w.in; i += 4) {
    const unsigned four = (unsigned{row[i / 8]} >> (i % 8)) & 15u;
    c.require(std::popcount(four) == 2, [&] {
      return formatted("mask row {}, columns {}..{}: wanted exactly two kept",
                       o, i, i + 3);
    });
  }
}

void check_one(const SparseWeight& w, const Checker& c) {
  c.require(w.pattern != SparsePattern::k2of4 || w.in % 4 == 0,
            [&] { return formatted("2:4 with {} columns", w.in); });
  c.size("mask", w.mask.size(), c.mul(w.out, ceil_div(w.in, 8)));
  c.size("row_offsets", w.row_offsets.size(), w.out + 1);
  c.require(w.row_offsets[0] == 0, "row_offsets do not begin at 0");
  for (std::size_t o = 0; o < w.out; ++o) check_mask_row(w, o, c);
  const std::size_t kept = w.row_offsets.back();
  if (w.bits == 0) {
    check_dense_dtype(c, w.dtype);
    c.size("data", w.data.size(), bytes_of(w.dtype, kept));
    c.size("codes", w.codes.size(), 0);
    c.size("scales", w.scales.size(), 0);
    c.size("zeros", w.zeros.size(), 0);
    return;
  }
  c.require(w.bits == 4 || w.bits == 8,
            [&] { return formatted("bits {}, wanted 0, 4 or 8", w.bits); });
  check_group_size(c, w.group_size, w.in);
  const std::size_t slots = w.out * ceil_div(w.in, w.group_size);
  c.size("data", w.data.size(), 0);
  c.size("codes", w.codes.size(), kept);
  c.size("scales", w.scales.size(), slots);
  c.size("zeros", w.zeros.size(), w.zeros.empty() ? 0 : slots);
  c.codes("codes", w.codes, w.bits);
  c.codes("zeros", w.zeros, w.bits);
  c.scales("scales", w.scales, w.scale_dtype);
}

}  // namespace

void check(const PackedWeight& weight, std::string_view name) {
  const Checker checker(name);
  std::visit(
      [&](const auto& w) {
        checker.shape(w.out, w.in);
        check_one(w, checker);
      },
      weight);
}

}  // namespace llmpress
