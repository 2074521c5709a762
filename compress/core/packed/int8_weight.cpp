#include "compress/core/packed/int8_weight.h"

#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "compress/core/packed/packed_checker.h"

namespace llmpress {
namespace {

void check_outliers(const Int8Weight& w, const PackedChecker& c) {
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

}  // namespace

void decode_row(const Int8Weight& w, std::size_t o, std::span<float> row) {
  const std::size_t slot = w.scales.size() == 1 ? 0 : o;
  const float scale = w.scales[slot];
  const std::int32_t zero = w.zeros.empty() ? 0 : w.zeros[slot];
  const auto codes = std::span(w.codes).subspan(o * w.in, w.in);
  for (std::size_t i = 0; i < w.in; ++i) {
    row[i] = scale * static_cast<float>(codes[i] - zero);
  }
  const std::size_t columns = w.outlier_columns.size();
  for (std::size_t k = 0; k < columns; ++k) {
    row[w.outlier_columns[k]] = f16_to_float(w.outlier_values[o * columns + k]);
  }
}

std::size_t stored_bytes(const Int8Weight& w) {
  return w.codes.size() + bytes_of(w.scale_dtype, w.scales.size()) +
         w.zeros.size() * sizeof(w.zeros[0]) +
         w.outlier_columns.size() * sizeof(w.outlier_columns[0]) +
         w.outlier_values.size() * sizeof(w.outlier_values[0]);
}

std::string describe(const Int8Weight& w) {
  const std::size_t outliers = w.outlier_columns.size();
  return formatted("int8{}{}{}",
                   w.scales.size() == 1 && w.out != 1 ? " tensor" : " channel",
                   w.zeros.empty() ? "" : " asym",
                   outliers == 0 ? "" : formatted(" +{} outliers", outliers));
}

void check(const Int8Weight& w, const PackedChecker& c) {
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

}  // namespace llmpress
