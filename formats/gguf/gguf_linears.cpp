#include "formats/gguf/gguf_linears.h"

#include <cmath>

#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"
#include "compress/core/ggml/ggml_block.h"

namespace llmpress {
namespace {

class Encoding {
 public:
  Encoding(const std::string& name, std::optional<GgmlType>& blocks)
      : name_(name), blocks_(blocks) {}

  NamedTensor operator()(const DenseWeight& w) const {
    return {.name = name_ + ".weight",
            .dtype = w.dtype,
            .shape = {w.out, w.in},
            .bytes = w.data};
  }

  NamedTensor operator()(const GgmlWeight& w) const { return tensor(w); }

  NamedTensor operator()(const GroupedIntWeight& w) const {
    const bool whole = w.group_size % 32 == 0 && w.in % 32 == 0 &&
                       w.g_idx.empty() && w.float_zeros.empty();
    if (!whole || (w.bits != 4 && w.bits != 5 && w.bits != 8)) refuse(w);
    const bool centred = is_centred(w);
    if (w.bits == 8 && !centred) refuse(w);
    const GgmlType type = w.bits == 8 ? GgmlType::kQ8_0
                          : w.bits == 5
                              ? (centred ? GgmlType::kQ5_0 : GgmlType::kQ5_1)
                              : (centred ? GgmlType::kQ4_0 : GgmlType::kQ4_1);
    return tensor(blocks_of(w, type, centred));
  }

  NamedTensor operator()(const MicroFp4Weight& w) const {
    if (w.kind != MicroFp4Kind::kMxfp4 || w.in % 32 != 0) refuse(w);
    GgmlWeight blocks{.out = w.out, .in = w.in, .type = GgmlType::kMxfp4};
    blocks.blocks.resize(w.out * blocks.row_bytes());
    const std::size_t count = w.in / 32, bytes = facts(blocks.type).bytes;
    for (std::size_t k = 0; k < w.out * count; ++k) {
      GgmlBlock block{.d = 1};
      block.scale_codes[0] = w.scales[k];
      for (std::size_t i = 0; i < 32; ++i) {
        const std::uint8_t octet = w.codes[k * 16 + i / 2];
        block.codes[i] =
            static_cast<std::uint8_t>(i % 2 == 0 ? octet & 15 : octet >> 4);
      }
      pack_ggml_block(blocks.type, block,
                      std::span(blocks.blocks).subspan(k * bytes, bytes));
    }
    return tensor(blocks);
  }

  NamedTensor operator()(const Int8Weight& w) const { refuse(w); }
  NamedTensor operator()(const Fp8Weight& w) const { refuse(w); }
  NamedTensor operator()(const Table4Weight& w) const { refuse(w); }
  NamedTensor operator()(const SparseWeight& w) const { refuse(w); }

 private:
  template <class Weight>
  [[noreturn]] void refuse(const Weight& w) const {
    fail(ErrorCode::kUnsupported,
         "Linear '{}': GGUF has no blocks like {}; take weights of a type of "
         "GGUF (q4_k, q8_0, ...), integers of 4, 5 or 8 bits in groups of 32, "
         "or bf16",
         name_, describe(w));
  }

  NamedTensor tensor(const GgmlWeight& w) const {
    blocks_ = w.type;
    return {.name = name_ + ".weight",
            .dtype = DType::kU8,
            .shape = {w.out, w.row_bytes()},
            .bytes = w.blocks};
  }

  static bool is_centred(const GroupedIntWeight& w) {
    const int centre = 1 << (w.bits - 1);
    for (const std::uint8_t z : w.zeros) {
      if (z != centre) return false;
    }
    return true;
  }

  float exact_f16(float x) const {
    if (f16_to_float(f16_from_float(x)) == x) return x;
    fail(ErrorCode::kUnsupported,
         "Linear '{}': GGUF stores scales and minima in f16, which does not "
         "hold {}; take weights of a type of GGUF (q4_k, q4_1, ...)",
         name_, x);
  }

  GgmlWeight blocks_of(const GroupedIntWeight& w, GgmlType type,
                       bool centred) const {
    GgmlWeight result{.out = w.out, .in = w.in, .type = type};
    result.blocks.resize(w.out * result.row_bytes());
    const Matrix<std::uint8_t> codes = unpack_rows(w);
    const std::size_t bytes = facts(type).bytes, count = w.in / 32;
    for (std::size_t o = 0; o < w.out; ++o) {
      for (std::size_t b = 0; b < count; ++b) {
        const std::size_t g = o * w.groups() + b * 32 / w.group_size;
        GgmlBlock block{.d = exact_f16(w.scales[g])};
        if (!centred) {
          block.dmin = exact_f16(w.scales[g] * static_cast<float>(w.zeros[g]));
        }
        const auto row = codes.row(o).subspan(b * 32, 32);
        std::copy(row.begin(), row.end(), block.codes.begin());
        pack_ggml_block(
            type, block,
            std::span(result.blocks).subspan((o * count + b) * bytes, bytes));
      }
    }
    return result;
  }

  const std::string& name_;
  std::optional<GgmlType>& blocks_;
};

}  // namespace

EncodedLinear encode_gguf(const std::string& name,
                          const LinearWeights& linear) {
  if (linear.input.kind != ActivationQuant::Kind::kNone ||
      linear.input.outlier_threshold > 0 || linear.input_hadamard > 0) {
    fail(ErrorCode::kUnsupported,
         "Linear '{}': GGUF cannot say that its inputs are {}; write "
         "compressed-tensors",
         name, linear.input_hadamard > 0 ? "rotated" : "rounded");
  }
  EncodedLinear encoded;
  encoded.tensors.push_back(
      std::visit(Encoding(name, encoded.blocks), linear.weight));
  encoded.scheme.format = "gguf";
  add_bias(name, linear, DType::kF32, encoded);
  return encoded;
}

}  // namespace llmpress
