#include "compress/core/hadamard.h"

#include <cblas.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <memory>
#include <vector>

#include "compress/core/blas.h"
#include "compress/core/formatted.h"
#include "compress/core/paley.h"

namespace llmpress {
namespace {

// n = power * paley: H_n = H_paley (x) H_power, H_power Sylvester's.
struct Factors {
  std::size_t paley = 0;  // 0: unsupported
  std::size_t power = 0;
};

// The smallest Paley matrix is the cheapest: it costs n * paley additions.
Factors factor(std::size_t n) {
  if (n == 0) return {};
  if (std::has_single_bit(n)) return {1, n};
  for (std::size_t power = n & (~n + 1); power >= 1; power /= 2) {
    if (paley_order_exists(n / power)) return {n / power, power};
  }
  return {};
}

// The butterflies between elements `half` and between elements 2 * `half`
// apart, in one pass over x.
void two_stages(std::span<float> x, std::size_t half) {
  for (std::size_t block = 0; block < x.size(); block += 4 * half) {
    float* p = x.data() + block;
    for (std::size_t i = 0; i < half; ++i) {
      const float a = p[i], b = p[i + half];
      const float c = p[i + 2 * half], d = p[i + 3 * half];
      const float ab = a + b, cd = c + d, a_b = a - b, c_d = c - d;
      p[i] = ab + cd;
      p[i + half] = a_b + c_d;
      p[i + 2 * half] = ab - cd;
      p[i + 3 * half] = a_b - c_d;
    }
  }
}

void sylvester_in_place(std::span<float> x) {
  std::size_t half = 1;
  for (; 4 * half <= x.size(); half *= 4) two_stages(x, half);
  if (half == x.size()) return;
  for (std::size_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a + b;
    x[i + half] = a - b;
  }
}

// y [m, width] = scale H x [m, width], or with H transposed.
void paley_product(const PaleyMatrix& H, bool transposed, float scale,
                   std::span<const float> x, std::span<float> y,
                   std::size_t width) {
  use_one_blas_thread();
  const int m = blas_int(H.order()), columns = blas_int(width);
  cblas_sgemm(CblasRowMajor, transposed ? CblasTrans : CblasNoTrans,
              CblasNoTrans, m, columns, m, scale, H.signs().data(), m, x.data(),
              columns, 0.0f, y.data(), columns);
}

// One transform, its tables found once for many rows.
class Transform {
 public:
  explicit Transform(std::size_t n) : n_(n) {
    const Factors factors = factor(n);
    if (factors.paley == 0) {
      fail(ErrorCode::kUnsupported,
           "hadamard: no transform of size {}; the largest block that divides "
           "it is {}",
           n, largest_hadamard_block(n));
    }
    power_ = factors.power;
    if (factors.paley > 1) paley_ = paley_matrix(factors.paley);
    normalization_ =
        static_cast<float>(1.0 / std::sqrt(static_cast<double>(n)));
  }

  // `scratch` is resized as needed, to be used again.
  void apply(std::span<float> x, bool transposed,
             std::vector<float>& scratch) const {
    assert(x.size() == n_);
    for (std::size_t begin = 0; begin < n_; begin += power_) {
      sylvester_in_place(x.subspan(begin, power_));
    }
    if (paley_) {
      scratch.assign(x.begin(), x.end());
      paley_product(*paley_, transposed, normalization_, scratch, x, power_);
      return;
    }
    for (float& value : x) value *= normalization_;
  }

 private:
  std::size_t n_, power_ = 1;
  std::shared_ptr<const PaleyMatrix> paley_{};
  float normalization_ = 1;
};

}  // namespace

bool hadamard_size_supported(std::size_t n) { return factor(n).paley != 0; }

std::size_t largest_hadamard_block(std::size_t n) {
  for (std::size_t parts = 1; parts < n; ++parts) {
    if (n % parts == 0 && hadamard_size_supported(n / parts)) return n / parts;
  }
  return 1;
}

void hadamard_in_place(std::span<float> x) {
  std::vector<float> scratch;
  Transform(x.size()).apply(x, false, scratch);
}

void hadamard_transposed_in_place(std::span<float> x) {
  std::vector<float> scratch;
  Transform(x.size()).apply(x, true, scratch);
}

void hadamard_rows_in_place(MatrixView<float> X, std::size_t block,
                            ThreadPool& pool) {
  if (block == 0 || X.cols() % block != 0) {
    fail(ErrorCode::kInvalidArgument,
         "hadamard: blocks of {} do not divide {} columns", block, X.cols());
  }
  const Transform transform(block);
  constexpr std::size_t kElements = std::size_t{1} << 16;
  const std::size_t grain =
      std::max<std::size_t>(1, kElements / std::max<std::size_t>(1, X.cols()));
  pool.for_ranges(X.rows(), grain, [&](std::size_t begin, std::size_t end) {
    std::vector<float> scratch;
    for (std::size_t r = begin; r < end; ++r) {
      for (std::size_t c = 0; c < X.cols(); c += block) {
        transform.apply(X.row(r).subspan(c, block), false, scratch);
      }
    }
  });
}

}  // namespace llmpress
