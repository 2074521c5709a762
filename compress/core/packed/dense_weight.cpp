#include "compress/core/packed/dense_weight.h"

#include <cctype>

#include "compress/core/float_formats.h"
#include "compress/core/packed/packed_checker.h"

namespace llmpress {

void decode_row(const DenseWeight& w, std::size_t o, std::span<float> row) {
  const std::size_t bytes = bytes_of(w.dtype, w.in);
  decode_floats(w.dtype, std::span(w.data).subspan(o * bytes, bytes), row);
}

std::size_t stored_bytes(const DenseWeight& w) { return w.data.size(); }

std::string describe(const DenseWeight& w) { return word_of(w.dtype); }

void check(const DenseWeight& w, const PackedChecker& c) {
  c.plain_dtype(w.dtype);
  c.size("data", w.data.size(), bytes_of(w.dtype, w.out * w.in));
}

DenseWeight make_dense(ConstMatrixView W, DType dtype) {
  DenseWeight w{.out = W.rows(), .in = W.cols(), .dtype = dtype};
  w.data.resize(bytes_of(dtype, W.size()));
  encode_fitting(dtype, W.data(), w.data);
  return w;
}

std::string word_of(DType dtype) {
  std::string name(facts(dtype).name);
  for (char& c : name) {
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return name;
}

}  // namespace llmpress
