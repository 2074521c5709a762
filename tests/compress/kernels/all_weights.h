// Random weights of every packed type, and of its forms, side by side.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tests/compress/kernels/random_weights.h"

namespace llmpress::testing {

struct NamedWeight {
  std::string name;
  PackedWeight weight;
};

struct Shape {
  std::size_t out, in;
};
inline void add_grouped(std::vector<NamedWeight>& all, Shape s, Rng& rng) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const std::size_t group :
         std::initializer_list<std::size_t>{7, 32, 128, 100000}) {
      const auto zeros = static_cast<Zeros>(rng.below(3));
      const bool permuted = rng.below(3) == 0;
      const DType scale = rng.below(2) == 0 ? DType::kF16 : DType::kBF16;
      all.push_back({"int" + std::to_string(bits) + " g" +
                         std::to_string(group) + " zeros " +
                         std::to_string(static_cast<int>(zeros)) +
                         (permuted ? " g_idx" : ""),
                     random_grouped(s.out, s.in, bits, group, zeros, permuted,
                                    scale, rng)});
    }
  }
}

// Of each four columns two hold the code of their zero point.
inline SparseWeight two_of_four_codes(std::size_t out, std::size_t in, int bits,
                                      std::size_t group, Rng& rng) {
  GroupedIntWeight w = random_grouped(out, in, bits, group, Zeros::kInteger,
                                      false, DType::kF32, rng);
  Matrix<std::uint8_t> codes = unpack_rows(w);
  for (std::size_t o = 0; o < out; ++o) {
    for (std::size_t i = 0; i < in; i += 4) {
      const std::size_t first = rng.below(4);
      for (const std::size_t c : {first, (first + 1 + rng.below(3)) % 4}) {
        codes(o, i + c) = w.zeros[o * w.groups() + (i + c) / w.group_size];
      }
    }
  }
  w.codes = pack_rows(codes.view(), bits);
  return make_sparse(w, SparsePattern::k2of4);
}

inline std::vector<NamedWeight> all_weights(Shape s, Rng& rng) {
  std::vector<NamedWeight> all;
  for (const DType d : {DType::kF32, DType::kF16, DType::kBF16}) {
    const MatrixF W = random_matrix(s.out, s.in, rng);
    all.push_back(
        {"dense " + std::string(facts(d).name), make_dense(W.view(), d)});
  }
  add_grouped(all, s, rng);
  all.push_back({"int8 row", random_int8(s.out, s.in, true, false, 0, rng)});
  all.push_back(
      {"int8 tensor zero", random_int8(s.out, s.in, false, true, 0, rng)});
  all.push_back(
      {"int8 outliers", random_int8(s.out, s.in, true, true, 5, rng)});
  for (const DType d : {DType::kF8E4M3, DType::kF8E5M2}) {
    all.push_back({"fp8 channel", random_fp8(s.out, s.in, d, 1, s.in, rng)});
    all.push_back({"fp8 block", random_fp8(s.out, s.in, d, 20, 24, rng)});
  }
  for (const std::size_t block : std::initializer_list<std::size_t>{32, 64}) {
    all.push_back({"nf4", random_table4(s.out, s.in, Table4Kind::kNf4, block,
                                        block == 64, rng)});
    all.push_back({"fp4", random_table4(s.out, s.in, Table4Kind::kFp4, block,
                                        block == 32, rng)});
  }
  all.push_back(
      {"mxfp4", random_micro(s.out, s.in, MicroFp4Kind::kMxfp4, rng)});
  all.push_back(
      {"nvfp4", random_micro(s.out, s.in, MicroFp4Kind::kNvfp4, rng)});
  for (const GgmlTypeFacts& f : all_ggml_types()) {
    if (f.plain || !f.decodes || s.in % f.elements != 0) continue;
    all.push_back({std::string(f.name), random_ggml(s.out, s.in, f.type, rng)});
  }
  for (const double kept : {0.5, 0.1}) {
    const MatrixF W =
        random_sparse(s.out, s.in, SparsePattern::kBitmask, kept, rng);
    for (const DType d : {DType::kF32, DType::kF16, DType::kBF16}) {
      all.push_back(
          {"sparse", make_sparse(W.view(), SparsePattern::kBitmask, d)});
    }
  }
  for (const int bits : {4, 8}) {
    for (const std::size_t group : std::initializer_list<std::size_t>{7, 32}) {
      const auto w = random_grouped(s.out, s.in, bits, group, Zeros::kInteger,
                                    false, DType::kF32, rng);
      all.push_back({"sparse codes", make_sparse(w, SparsePattern::kBitmask)});
    }
  }
  if (s.in % 4 == 0) {
    const MatrixF W =
        random_sparse(s.out, s.in, SparsePattern::k2of4, 0.5, rng);
    for (const DType d : {DType::kF32, DType::kF16, DType::kBF16}) {
      all.push_back({"2:4 " + std::string(facts(d).name),
                     make_sparse(W.view(), SparsePattern::k2of4, d)});
    }
    for (const int bits : {4, 8}) {
      for (const std::size_t group :
           std::initializer_list<std::size_t>{7, 16, 128}) {
        all.push_back(
            {"2:4 codes", two_of_four_codes(s.out, s.in, bits, group, rng)});
      }
    }
  }
  return all;
}

}  // namespace llmpress::testing
