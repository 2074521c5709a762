#include "compress/core/packed_weight.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cctype>
#include <span>
#include <string>

#include "compress/core/bit_packing.h"
#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "compress/core/table4.h"

// One overload of `decode_row`, `bytes` and `name_of` for each packed type; the
// checks are in packed_weight_check.cpp.
namespace llmpress {
namespace {

// --- decode_row: row o of W into `row` [in] ---------------------------------

void decode_row(const DenseWeight& w, std::size_t o, std::span<float> row) {
  const std::size_t bytes = bytes_of(w.dtype, w.in);
  decode_floats(w.dtype, std::span(w.data).subspan(o * bytes, bytes), row);
}

// s (q - z) over one stretch of columns that share a group.
void decode_group(std::span<const std::uint8_t> codes, float scale, float zero,
                  std::span<float> out) {
  for (std::size_t i = 0; i < codes.size(); ++i) {
    out[i] = scale * (static_cast<float>(codes[i]) - zero);
  }
}

float zero_of(const GroupedIntWeight& w, std::size_t slot) {
  if (!w.float_zeros.empty()) return w.float_zeros[slot];
  if (!w.zeros.empty()) return static_cast<float>(w.zeros[slot]);
  return static_cast<float>(1 << (w.bits - 1));
}

void decode_row(const GroupedIntWeight& w, std::size_t o,
                std::span<float> row) {
  const std::size_t words = w.words_per_row(), groups = w.groups();
  std::vector<std::uint8_t> codes(w.in);
  unpack_codes(std::span(w.codes).subspan(o * words, words), w.bits, codes);
  if (!w.g_idx.empty()) {
    for (std::size_t i = 0; i < w.in; ++i) {
      const std::size_t slot = o * groups + w.g_idx[i];
      row[i] =
          w.scales[slot] * (static_cast<float>(codes[i]) - zero_of(w, slot));
    }
    return;
  }
  for (std::size_t g = 0; g < groups; ++g) {
    const std::size_t begin = g * w.group_size;
    const std::size_t size = std::min(w.group_size, w.in - begin);
    const std::size_t slot = o * groups + g;
    decode_group(std::span(codes).subspan(begin, size), w.scales[slot],
                 zero_of(w, slot), row.subspan(begin, size));
  }
}

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

void decode_row(const Fp8Weight& w, std::size_t o, std::span<float> row) {
  decode_floats(w.format,
                std::as_bytes(std::span(w.codes).subspan(o * w.in, w.in)), row);
  const std::size_t blocks = ceil_div(w.in, w.block_cols);
  for (std::size_t b = 0; b < blocks; ++b) {
    const float scale = w.scales[o / w.block_rows * blocks + b];
    const std::size_t begin = b * w.block_cols;
    const std::size_t end = begin + std::min(w.block_cols, w.in - begin);
    for (std::size_t i = begin; i < end; ++i) row[i] *= scale;
  }
}

float absmax_of(const Table4Weight& w, std::size_t block) {
  if (w.absmax_codes.empty()) return w.absmax[block];
  return nested_absmax_map()[w.absmax_codes[block]] *
             w.nested_absmax[block / 256] +
         w.nested_offset;
}

void decode_row(const Table4Weight& w, std::size_t o, std::span<float> row) {
  const auto table = table4_values(w.kind);
  // Blocks run over the flattened weight: a row may begin inside one.
  for (std::size_t i = 0; i < w.in;) {
    const std::size_t first = o * w.in + i;
    const std::size_t block = first / w.block_size;
    const std::size_t end =
        std::min(w.in, i + w.block_size - first % w.block_size);
    const float absmax = absmax_of(w, block);
    for (; i < end; ++i) {
      const std::size_t flat = o * w.in + i;
      const std::uint8_t octet = w.codes[flat / 2];
      row[i] = table[flat % 2 == 0 ? octet >> 4 : octet & 15] * absmax;
    }
  }
}

void decode_row(const MicroFp4Weight& w, std::size_t o, std::span<float> row) {
  const std::size_t groups = ceil_div(w.in, w.group());
  const auto octets =
      std::span(w.codes).subspan(o * ceil_div(w.in, 2), ceil_div(w.in, 2));
  for (std::size_t g = 0; g < groups; ++g) {
    const std::uint8_t code = w.scales[o * groups + g];
    const float scale = w.kind == MicroFp4Kind::kMxfp4
                            ? e8m0_to_float(code)
                            : e4m3_to_float(code) / w.global_scale;
    std::array<float, 16> values{};
    for (std::uint8_t c = 0; c < 16; ++c) values[c] = e2m1_to_float(c) * scale;
    const std::size_t begin = g * w.group();
    const std::size_t end = std::min(w.in, begin + w.group());
    for (std::size_t i = begin; i < end; ++i) {
      const unsigned octet = octets[i / 2];
      row[i] = values[i % 2 == 0 ? octet & 15u : octet >> 4];
    }
  }
}

void decode_row(const SparseWeight& w, std::size_t o, std::span<float> row) {
  const std::size_t begin = w.row_offsets[o];
  const std::size_t kept = w.row_offsets[o + 1] - begin;
  std::vector<float> values(kept);
  if (w.bits == 0) {
    decode_floats(w.dtype,
                  std::span(w.data).subspan(bytes_of(w.dtype, begin),
                                            bytes_of(w.dtype, kept)),
                  values);
  } else {
    const auto codes = std::span(w.codes).subspan(begin, kept);
    std::copy(codes.begin(), codes.end(), values.begin());
  }
  const std::size_t octets = ceil_div(w.in, 8);
  const std::size_t groups = w.bits == 0 ? 0 : ceil_div(w.in, w.group_size);
  std::size_t k = 0;
  for (std::size_t i = 0; i < w.in; ++i) {
    if (((w.mask[o * octets + i / 8] >> (i % 8)) & 1) == 0) {
      row[i] = 0.0f;
    } else if (w.bits == 0) {
      row[i] = values[k++];
    } else {
      const std::size_t slot = o * groups + i / w.group_size;
      const float zero = static_cast<float>(
          w.zeros.empty() ? 1 << (w.bits - 1) : int{w.zeros[slot]});
      row[i] = w.scales[slot] * (values[k++] - zero);
    }
  }
}

// --- bytes of the stored form -----------------------------------------------

// Zeros are packed along `out`, `bits` each, in whole 32-bit words.
std::size_t packed_zero_bytes(std::size_t out, std::size_t groups, int bits) {
  return packed_words(out, bits) * groups * sizeof(std::uint32_t);
}

std::size_t bytes(const DenseWeight& w) { return w.data.size(); }

std::size_t bytes(const GroupedIntWeight& w) {
  return w.codes.size() * sizeof(w.codes[0]) +
         bytes_of(w.scale_dtype, w.scales.size()) +
         (w.zeros.empty() ? 0 : packed_zero_bytes(w.out, w.groups(), w.bits)) +
         bytes_of(w.scale_dtype, w.float_zeros.size()) +
         w.g_idx.size() * sizeof(w.g_idx[0]);
}

std::size_t bytes(const Int8Weight& w) {
  return w.codes.size() + bytes_of(w.scale_dtype, w.scales.size()) +
         w.zeros.size() * sizeof(w.zeros[0]) +
         w.outlier_columns.size() * sizeof(w.outlier_columns[0]) +
         w.outlier_values.size() * sizeof(w.outlier_values[0]);
}

std::size_t bytes(const Fp8Weight& w) {
  return w.codes.size() + bytes_of(w.scale_dtype, w.scales.size());
}

std::size_t bytes(const Table4Weight& w) {
  const bool nested = !w.absmax_codes.empty();
  return w.codes.size() + w.absmax.size() * sizeof(float) +
         w.absmax_codes.size() + w.nested_absmax.size() * sizeof(float) +
         (nested ? sizeof(float) : 0);
}

std::size_t bytes(const MicroFp4Weight& w) {
  return w.codes.size() + w.scales.size() +
         (w.kind == MicroFp4Kind::kNvfp4 ? sizeof(float) : 0);
}

// 2:4 needs no row offsets in a file: they are o * in / 2.
std::size_t bytes(const SparseWeight& w) {
  const std::size_t offsets =
      w.pattern == SparsePattern::k2of4 ? 0 : w.out * sizeof(w.row_offsets[0]);
  const std::size_t codes =
      w.bits == 4 ? ceil_div(w.codes.size(), 2) : w.codes.size();
  return w.mask.size() + offsets + w.data.size() + codes +
         bytes_of(w.scale_dtype, w.scales.size()) +
         (w.zeros.empty()
              ? 0
              : packed_zero_bytes(w.out, ceil_div(w.in, w.group_size), w.bits));
}

// --- names ------------------------------------------------------------------

std::string lower_name(DType dtype) {
  std::string name(facts(dtype).name);
  for (char& c : name) {
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return name;
}

std::string int_name(int bits, std::size_t group_size, std::size_t in) {
  return formatted(
      "int{}{}", bits,
      group_size >= in ? " channel" : formatted(" g{}", group_size));
}

std::string name_of(const DenseWeight& w) { return lower_name(w.dtype); }

std::string name_of(const GroupedIntWeight& w) {
  return int_name(w.bits, w.group_size, w.in) +
         (!w.float_zeros.empty() ? " float-zero"
          : w.symmetric          ? " sym"
                                 : " asym") +
         (w.g_idx.empty() ? "" : " g_idx");
}

std::string name_of(const Int8Weight& w) {
  const std::size_t outliers = w.outlier_columns.size();
  return formatted("int8{}{}{}",
                   w.scales.size() == 1 && w.out != 1 ? " tensor" : " channel",
                   w.zeros.empty() ? "" : " asym",
                   outliers == 0 ? "" : formatted(" +{} outliers", outliers));
}

std::string name_of(const Fp8Weight& w) {
  const std::string name =
      w.format == DType::kF8E4M3 ? "fp8_e4m3 " : "fp8_e5m2 ";
  if (w.block_cols >= w.in && w.block_rows >= w.out) return name + "tensor";
  if (w.block_cols >= w.in && w.block_rows == 1) return name + "channel";
  return formatted("{}{}x{}", name, w.block_rows, w.block_cols);
}

std::string name_of(const Table4Weight& w) {
  return formatted("{} b{}{}", w.kind == Table4Kind::kNf4 ? "nf4" : "fp4",
                   w.block_size, w.absmax_codes.empty() ? "" : " dq");
}

std::string name_of(const MicroFp4Weight& w) {
  return w.kind == MicroFp4Kind::kMxfp4 ? "mxfp4" : "nvfp4";
}

std::string name_of(const SparseWeight& w) {
  const std::string pattern =
      w.pattern == SparsePattern::k2of4 ? "2:4 " : "bitmask ";
  if (w.bits == 0) return pattern + lower_name(w.dtype);
  return pattern + int_name(w.bits, w.group_size, w.in) +
         (w.zeros.empty() ? " sym" : " asym");
}

}  // namespace

std::size_t GroupedIntWeight::groups() const {
  return ceil_div(in, group_size);
}

std::size_t GroupedIntWeight::words_per_row() const {
  return packed_words(in, bits);
}

std::size_t rows_of(const PackedWeight& weight) {
  return std::visit([](const auto& w) { return w.out; }, weight);
}

std::size_t cols_of(const PackedWeight& weight) {
  return std::visit([](const auto& w) { return w.in; }, weight);
}

MatrixF dequantize(const PackedWeight& weight) {
  MatrixF W(rows_of(weight), cols_of(weight));
  dequantize_rows(weight, 0, W.view());
  return W;
}

void dequantize_rows(const PackedWeight& weight, std::size_t begin_row,
                     MatrixView<float> rows) {
  assert(rows.cols() == cols_of(weight));
  assert(begin_row + rows.rows() <= rows_of(weight));
  std::visit(
      [&](const auto& w) {
        for (std::size_t r = 0; r < rows.rows(); ++r) {
          decode_row(w, begin_row + r, rows.row(r));
        }
      },
      weight);
}

std::size_t stored_bytes(const PackedWeight& weight) {
  return std::visit([](const auto& w) { return bytes(w); }, weight);
}

double bits_per_weight(const PackedWeight& weight) {
  return 8.0 * static_cast<double>(stored_bytes(weight)) /
         (static_cast<double>(rows_of(weight)) *
          static_cast<double>(cols_of(weight)));
}

std::string describe(const PackedWeight& weight) {
  return std::visit([](const auto& w) { return name_of(w); }, weight);
}

DenseWeight make_dense(ConstMatrixView W, DType dtype) {
  DenseWeight w{.out = W.rows(), .in = W.cols(), .dtype = dtype};
  w.data.resize(bytes_of(dtype, W.size()));
  encode_fitting(dtype, W.data(), w.data);
  return w;
}

std::vector<std::uint32_t> pack_rows(MatrixView<const std::uint8_t> codes,
                                     int bits) {
  const std::size_t words = packed_words(codes.cols(), bits);
  std::vector<std::uint32_t> packed(codes.rows() * words);
  for (std::size_t o = 0; o < codes.rows(); ++o) {
    pack_codes(codes.row(o), bits, std::span(packed).subspan(o * words, words));
  }
  return packed;
}

Matrix<std::uint8_t> unpack_rows(const GroupedIntWeight& weight) {
  const std::size_t words = weight.words_per_row();
  Matrix<std::uint8_t> codes(weight.out, weight.in);
  for (std::size_t o = 0; o < weight.out; ++o) {
    unpack_codes(std::span(weight.codes).subspan(o * words, words), weight.bits,
                 codes.row(o));
  }
  return codes;
}

}  // namespace llmpress
