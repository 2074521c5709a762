#include "quantizers/rotation.h"

#include <algorithm>
#include <cassert>

#include "compress/core/formatted.h"
#include "compress/core/hadamard.h"
#include "compress/core/rng.h"

namespace llmpress {
namespace {

constexpr std::size_t kVectorsPerChunk = 16;

void check_size(std::size_t size, const Rotation& rotation) {
  if (rotation.block > 0 && size % rotation.block == 0 &&
      (rotation.signs.empty() || rotation.signs.size() == size)) {
    return;
  }
  fail(ErrorCode::kInvalidArgument,
       "rotation: vectors of {} do not match blocks of {} and {} signs", size,
       rotation.block, rotation.signs.size());
}

void flip_signs(std::span<float> x, const Rotation& rotation) {
  for (std::size_t i = 0; i < rotation.signs.size(); ++i) {
    x[i] *= rotation.signs[i];
  }
}

void rotate(std::span<float> x, const Rotation& rotation) {
  flip_signs(x, rotation);
  for (std::size_t i = 0; i < x.size(); i += rotation.block) {
    hadamard_in_place(x.subspan(i, rotation.block));
  }
}

void unrotate(std::span<float> x, const Rotation& rotation) {
  for (std::size_t i = 0; i < x.size(); i += rotation.block) {
    hadamard_transposed_in_place(x.subspan(i, rotation.block));
  }
  flip_signs(x, rotation);
}

}  // namespace

Rotation random_rotation(std::size_t size, std::uint64_t seed) {
  Rotation rotation{.block = largest_hadamard_block(size)};
  Rng rng(seed);
  for (std::size_t i = 0; i < size; ++i) {
    rotation.signs.push_back(rng.below(2) == 0 ? 1.0f : -1.0f);
  }
  return rotation;
}

void rotate_vectors_in_place(MatrixView<float> X, const Rotation& rotation,
                             ThreadPool& pool) {
  check_size(X.cols(), rotation);
  pool.for_ranges(X.rows(), kVectorsPerChunk,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t r = begin; r < end; ++r) {
                      rotate(X.row(r), rotation);
                    }
                  });
}

void unrotate_vectors_in_place(MatrixView<float> X, const Rotation& rotation,
                               ThreadPool& pool) {
  check_size(X.cols(), rotation);
  pool.for_ranges(X.rows(), kVectorsPerChunk,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t r = begin; r < end; ++r) {
                      unrotate(X.row(r), rotation);
                    }
                  });
}

// Row w of W R^T is (R w^T)^T.
void rotate_input_in_place(MatrixView<float> W, const Rotation& rotation,
                           ThreadPool& pool) {
  rotate_vectors_in_place(W, rotation, pool);
}

void rotate_output_in_place(MatrixView<float> W, const Rotation& rotation,
                            ThreadPool& pool) {
  check_size(W.rows(), rotation);
  pool.for_ranges(W.cols(), kVectorsPerChunk,
                  [&](std::size_t begin, std::size_t end) {
                    // A panel of columns, transposed: reads whole cache lines
                    // of W.
                    MatrixF panel(end - begin, W.rows());
                    for (std::size_t o = 0; o < W.rows(); ++o) {
                      for (std::size_t i = begin; i < end; ++i)
                        panel(i - begin, o) = W(o, i);
                    }
                    for (std::size_t i = begin; i < end; ++i) {
                      rotate(panel.row(i - begin), rotation);
                    }
                    for (std::size_t o = 0; o < W.rows(); ++o) {
                      for (std::size_t i = begin; i < end; ++i)
                        W(o, i) = panel(i - begin, o);
                    }
                  });
}

void fold_gain_in_place(MatrixView<float> W, std::span<const float> gain) {
  assert(gain.size() == W.cols());
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (std::size_t i = 0; i < W.cols(); ++i) W(o, i) *= gain[i];
  }
}

std::vector<float> shifted_bias(ConstMatrixView W, std::span<const float> shift,
                                std::span<const float> bias) {
  assert(shift.size() == W.cols());
  assert(bias.empty() || bias.size() == W.rows());
  std::vector<float> shifted(W.rows());
  for (std::size_t o = 0; o < W.rows(); ++o) {
    double sum = bias.empty() ? 0.0 : static_cast<double>(bias[o]);
    for (std::size_t i = 0; i < W.cols(); ++i) {
      sum += static_cast<double>(W(o, i)) * static_cast<double>(shift[i]);
    }
    shifted[o] = static_cast<float>(sum);
  }
  return shifted;
}

void center_output_in_place(MatrixView<float> W) {
  std::vector<double> mean(W.cols());
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (std::size_t i = 0; i < W.cols(); ++i) {
      mean[i] += static_cast<double>(W(o, i));
    }
  }
  for (double& m : mean) m /= static_cast<double>(W.rows());
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (std::size_t i = 0; i < W.cols(); ++i) {
      W(o, i) = static_cast<float>(static_cast<double>(W(o, i)) - mean[i]);
    }
  }
}

}  // namespace llmpress
