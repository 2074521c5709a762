#include "compress/core/linear_bytes.h"

#include <cstring>
#include <type_traits>
#include <utility>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

// Without padding, whose bytes are anyone's: equal Linears have equal bytes.
template <class T>
concept Plain = std::is_trivially_copyable_v<T> &&
    (std::has_unique_object_representations_v<T> ||
     std::is_floating_point_v<T>);

class Writer {
 public:
  template <Plain T>
  void value(const T& x) {
    bytes_.append(reinterpret_cast<const char*>(&x), sizeof(x));
  }
  template <Plain T>
  void value(const std::vector<T>& x) {
    value(x.size());
    bytes_.append(reinterpret_cast<const char*>(x.data()),
                  x.size() * sizeof(T));
  }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  template <Plain T>
  void value(T& x) {
    copy(&x, 1, sizeof(x));
  }
  template <Plain T>
  void value(std::vector<T>& x) {
    std::size_t size = 0;
    value(size);
    if (size > bytes_.size() / sizeof(T)) refuse();
    x.resize(size);
    copy(x.data(), size, sizeof(T));
  }
  void end() const {
    if (!bytes_.empty()) refuse();
  }

 private:
  [[noreturn]] static void refuse() {
    fail(ErrorCode::kCorruptFile, "a Linear's bytes are not what was sent");
  }
  void copy(void* to, std::size_t count, std::size_t size) {
    if (count == 0) return;
    if (count > bytes_.size() / size) refuse();
    std::memcpy(to, bytes_.data(), count * size);
    bytes_.remove_prefix(count * size);
  }

  std::string_view bytes_;
};

// Every field of a struct, in order: one that is added and forgotten here does
// not compile.
template <class Bytes, class... Fields>
void fields(Bytes& bytes, Fields&... each) {
  (bytes.value(each), ...);
}

template <class Bytes>
void visit(Bytes& bytes, auto& w, const DenseWeight*) {
  auto& [out, in, dtype, data] = w;
  fields(bytes, out, in, dtype, data);
}
template <class Bytes>
void visit(Bytes& bytes, auto& w, const GroupedIntWeight*) {
  auto& [out, in, bits, group_size, symmetric, scale_dtype, codes, scales,
         zeros, float_zeros, g_idx] = w;
  fields(bytes, out, in, bits, group_size, symmetric, scale_dtype, codes,
         scales, zeros, float_zeros, g_idx);
}
template <class Bytes>
void visit(Bytes& bytes, auto& w, const Int8Weight*) {
  auto& [out, in, scale_dtype, codes, scales, zeros, outlier_columns,
         outlier_values] = w;
  fields(bytes, out, in, scale_dtype, codes, scales, zeros, outlier_columns,
         outlier_values);
}
template <class Bytes>
void visit(Bytes& bytes, auto& w, const Fp8Weight*) {
  auto& [out, in, format, block_rows, block_cols, scale_dtype, codes, scales] =
      w;
  fields(bytes, out, in, format, block_rows, block_cols, scale_dtype, codes,
         scales);
}
template <class Bytes>
void visit(Bytes& bytes, auto& w, const Table4Weight*) {
  auto& [out, in, kind, block_size, codes, absmax, absmax_codes, nested_absmax,
         nested_offset] = w;
  fields(bytes, out, in, kind, block_size, codes, absmax, absmax_codes,
         nested_absmax, nested_offset);
}
template <class Bytes>
void visit(Bytes& bytes, auto& w, const MicroFp4Weight*) {
  auto& [out, in, kind, codes, scales, global_scale] = w;
  fields(bytes, out, in, kind, codes, scales, global_scale);
}
template <class Bytes>
void visit(Bytes& bytes, auto& w, const SparseWeight*) {
  auto& [out, in, pattern, mask, row_offsets, dtype, data, bits, group_size,
         scale_dtype, codes, scales, zeros] = w;
  fields(bytes, out, in, pattern, mask, row_offsets, dtype, data, bits,
         group_size, scale_dtype, codes, scales, zeros);
}
template <class Bytes>
void visit(Bytes& bytes, auto& w, const GgmlWeight*) {
  auto& [out, in, type, blocks] = w;
  fields(bytes, out, in, type, blocks);
}

template <class Bytes>
void visit_linear(Bytes& bytes, auto& linear) {
  auto& [weight, bias, input, input_hadamard] = linear;
  std::visit(
      [&](auto& w) {
        visit(bytes, w,
              static_cast<std::remove_cvref_t<decltype(w)>*>(nullptr));
      },
      weight);
  auto& [kind, bits, range, group_size, symmetric, static_scale, static_zero,
         outlier_threshold] = input;
  fields(bytes, bias, kind, bits, range, group_size, symmetric, static_scale,
         static_zero, outlier_threshold, input_hadamard);
}

template <std::size_t... kIndices>
PackedWeight empty_weight(std::size_t index,
                          std::index_sequence<kIndices...> /*all*/) {
  PackedWeight weight;
  const bool known =
      ((index == kIndices && (weight.emplace<kIndices>(), true)) || ...);
  if (!known) {
    fail(ErrorCode::kCorruptFile, "a Linear's bytes are of no packed type");
  }
  return weight;
}

}  // namespace

std::string to_bytes(const LinearWeights& linear) {
  Writer writer;
  writer.value(linear.weight.index());
  visit_linear(writer, linear);
  return writer.take();
}

LinearWeights linear_from_bytes(std::string_view bytes) {
  Reader reader(bytes);
  std::size_t index = 0;
  reader.value(index);
  LinearWeights linear;
  linear.weight = empty_weight(
      index, std::make_index_sequence<std::variant_size_v<PackedWeight>>());
  visit_linear(reader, linear);
  reader.end();
  return linear;
}

}  // namespace llmpress
