#include "compress/core/packed/weight_rows.h"

#include <cassert>
#include <numeric>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "compress/core/checked.h"

namespace llmpress {
namespace {

// Rows of a row-major buffer of `out` rows; one that is no multiple of rows
// (empty, or one number for all) as it is.
template <class T>
std::vector<T> rows_in(const std::vector<T>& all, std::size_t out,
                       Stretch rows) {
  if (all.size() < out || all.size() % out != 0) return all;
  const std::size_t width = all.size() / out;
  const auto first =
      all.begin() + static_cast<std::ptrdiff_t>(rows.first * width);
  return {first, first + static_cast<std::ptrdiff_t>(rows.count * width)};
}

DenseWeight take(const DenseWeight& w, Stretch rows) {
  return {.out = rows.count,
          .in = w.in,
          .dtype = w.dtype,
          .data = rows_in(w.data, w.out, rows)};
}

GroupedIntWeight take(const GroupedIntWeight& w, Stretch rows) {
  return {.out = rows.count,
          .in = w.in,
          .bits = w.bits,
          .group_size = w.group_size,
          .symmetric = w.symmetric,
          .scale_dtype = w.scale_dtype,
          .codes = rows_in(w.codes, w.out, rows),
          .scales = rows_in(w.scales, w.out, rows),
          .zeros = rows_in(w.zeros, w.out, rows),
          .float_zeros = rows_in(w.float_zeros, w.out, rows),
          .g_idx = w.g_idx};
}

Int8Weight take(const Int8Weight& w, Stretch rows) {
  return {.out = rows.count,
          .in = w.in,
          .scale_dtype = w.scale_dtype,
          .codes = rows_in(w.codes, w.out, rows),
          .scales = rows_in(w.scales, w.out, rows),
          .zeros = rows_in(w.zeros, w.out, rows),
          .outlier_columns = w.outlier_columns,
          .outlier_values = rows_in(w.outlier_values, w.out, rows)};
}

Fp8Weight take(const Fp8Weight& w, Stretch rows) {
  Fp8Weight part{.out = rows.count,
                 .in = w.in,
                 .format = w.format,
                 .block_rows = w.block_rows,
                 .block_cols = w.block_cols,
                 .scale_dtype = w.scale_dtype,
                 .codes = rows_in(w.codes, w.out, rows)};
  if (w.block_rows >= w.out) {
    part.block_rows = rows.count;
    part.scales = w.scales;
  } else {
    part.scales = rows_in(
        w.scales, ceil_div(w.out, w.block_rows),
        {rows.first / w.block_rows, ceil_div(rows.count, w.block_rows)});
  }
  return part;
}

Table4Weight take(const Table4Weight& w, Stretch rows) {
  const std::size_t first = rows.first * w.in, count = rows.count * w.in;
  assert(first % 2 == 0 && first % w.block_size == 0);
  Table4Weight part{.out = rows.count,
                    .in = w.in,
                    .kind = w.kind,
                    .block_size = w.block_size};
  const auto octets = w.codes.begin() + static_cast<std::ptrdiff_t>(first / 2);
  part.codes.assign(octets,
                    octets + static_cast<std::ptrdiff_t>(ceil_div(count, 2)));
  const std::size_t block = first / w.block_size;
  for (std::size_t b = 0; b < ceil_div(count, w.block_size); ++b) {
    part.absmax.push_back(absmax_of(w, block + b));
  }
  return part;
}

MicroFp4Weight take(const MicroFp4Weight& w, Stretch rows) {
  return {.out = rows.count,
          .in = w.in,
          .kind = w.kind,
          .codes = rows_in(w.codes, w.out, rows),
          .scales = rows_in(w.scales, w.out, rows),
          .global_scale = w.global_scale};
}

SparseWeight take(const SparseWeight& w, Stretch rows) {
  SparseWeight part{.out = rows.count,
                    .in = w.in,
                    .pattern = w.pattern,
                    .mask = rows_in(w.mask, w.out, rows),
                    .dtype = w.dtype,
                    .bits = w.bits,
                    .group_size = w.group_size,
                    .scale_dtype = w.scale_dtype,
                    .scales = rows_in(w.scales, w.out, rows),
                    .zeros = rows_in(w.zeros, w.out, rows)};
  const std::uint64_t first = w.row_offsets[rows.first];
  const std::uint64_t end = w.row_offsets[rows.first + rows.count];
  for (std::size_t o = 0; o <= rows.count; ++o) {
    part.row_offsets.push_back(w.row_offsets[rows.first + o] - first);
  }
  // Of every kept value, a number or a code.
  const auto kept = [&](const auto& all, std::size_t each) {
    const auto at = [&](std::uint64_t k) {
      return all.begin() + static_cast<std::ptrdiff_t>(k * each);
    };
    return std::remove_cvref_t<decltype(all)>(at(first), at(end));
  };
  if (w.bits == 0) {
    part.data = kept(w.data, facts(w.dtype).bits / 8);
  } else {
    part.codes = kept(w.codes, 1);
  }
  return part;
}

GgmlWeight take(const GgmlWeight& w, Stretch rows) {
  return {.out = rows.count,
          .in = w.in,
          .type = w.type,
          .blocks = rows_in(w.blocks, w.out, rows)};
}

// Puts parts below one another in the first of them.
class Stack {
 public:
  explicit Stack(std::size_t parts) : parts_(parts) {}

  template <class W>
  void add(W& all, const W& part) const {
    assert(all.in == part.in);
    add_buffers(all, part);
    all.out += part.out;
  }

 private:
  template <class T>
  void append(std::vector<T>& all, const std::vector<T>& more) const {
    // At the first of them `all` is one part.
    if (all.capacity() < all.size() + more.size()) {
      all.reserve(all.size() * parts_);
    }
    all.insert(all.end(), more.begin(), more.end());
  }

  void add_buffers(DenseWeight& all, const DenseWeight& part) const {
    append(all.data, part.data);
  }
  void add_buffers(GroupedIntWeight& all, const GroupedIntWeight& part) const {
    assert(all.g_idx == part.g_idx);
    append(all.codes, part.codes);
    append(all.scales, part.scales);
    append(all.zeros, part.zeros);
    append(all.float_zeros, part.float_zeros);
  }
  void add_buffers(Int8Weight& all, const Int8Weight& part) const {
    assert(all.outlier_columns == part.outlier_columns);
    append(all.codes, part.codes);
    append(all.scales, part.scales);
    append(all.zeros, part.zeros);
    append(all.outlier_values, part.outlier_values);
  }
  void add_buffers(Fp8Weight& all, const Fp8Weight& part) const {
    assert(all.out % all.block_rows == 0);
    append(all.codes, part.codes);
    append(all.scales, part.scales);
  }
  void add_buffers(Table4Weight& all, const Table4Weight& part) const {
    assert(all.out * all.in % std::lcm<std::size_t>(2, all.block_size) == 0);
    assert(all.absmax_codes.empty() && part.absmax_codes.empty());
    append(all.codes, part.codes);
    append(all.absmax, part.absmax);
  }
  void add_buffers(MicroFp4Weight& all, const MicroFp4Weight& part) const {
    append(all.codes, part.codes);
    append(all.scales, part.scales);
  }
  void add_buffers(SparseWeight& all, const SparseWeight& part) const {
    append(all.mask, part.mask);
    const std::uint64_t kept = all.row_offsets.back();
    for (std::size_t o = 1; o < part.row_offsets.size(); ++o) {
      all.row_offsets.push_back(kept + part.row_offsets[o]);
    }
    append(all.data, part.data);
    append(all.codes, part.codes);
    append(all.scales, part.scales);
    append(all.zeros, part.zeros);
  }
  void add_buffers(GgmlWeight& all, const GgmlWeight& part) const {
    append(all.blocks, part.blocks);
  }

  std::size_t parts_;
};

}  // namespace

std::size_t row_grain(const PackedWeight& weight, std::size_t wanted) {
  if (const auto* const w = std::get_if<Fp8Weight>(&weight)) {
    return w->block_rows >= w->out ? wanted : std::lcm(wanted, w->block_rows);
  }
  if (const auto* const w = std::get_if<Table4Weight>(&weight)) {
    return wanted * w->in % std::lcm<std::size_t>(2, w->block_size) == 0
               ? wanted
               : 0;
  }
  return wanted;
}

PackedWeight take_rows(const PackedWeight& weight, Stretch rows) {
  assert(rows.first + rows.count <= rows_of(weight));
  return std::visit([&](const auto& w) { return PackedWeight(take(w, rows)); },
                    weight);
}

PackedWeight join_rows(std::vector<PackedWeight> parts) {
  assert(!parts.empty());
  PackedWeight all = std::move(parts.front());
  const Stack stack(parts.size());
  std::visit(
      [&](auto& first) {
        for (std::size_t k = 1; k < parts.size(); ++k) {
          stack.add(first, std::get<std::remove_cvref_t<decltype(first)>>(
                               std::exchange(parts[k], {})));
        }
      },
      all);
  return all;
}

}  // namespace llmpress
