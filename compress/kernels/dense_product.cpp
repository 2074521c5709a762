#include "compress/kernels/dense_product.h"

#include <algorithm>
#include <cassert>

#include "compress/core/checked.h"
#include "compress/kernels/aligned_buffer.h"
#include "compress/kernels/dense_kernels.h"

namespace llmpress {
namespace {

// Of the packed parts of a product, about 2 MiB: they stay in the caches while
// they are used.
constexpr std::size_t kPackedFloats = std::size_t{1} << 19;
constexpr std::size_t kMostColumns = 1024, kMostRows = 4096;
// A task is a block of C of at most this size, smaller where there would be
// too few tasks for the threads.
constexpr std::size_t kTaskRows = 96, kTaskColumns = 1024, kEnoughTasks = 24;
constexpr std::size_t kFewestTaskColumns = 64;
// What a task packs of rows; divides kDenseDepth.
constexpr std::size_t kStepsPerTask = 64;

// Scratch that lives as long as its thread, because a buffer of this size would
// be mapped and unmapped by the allocator at every call.
float* thread_scratch(std::size_t floats) {
  static thread_local AlignedBuffer buffer;
  if (buffer.size() < floats * sizeof(float)) {
    buffer = AlignedBuffer();
    buffer = AlignedBuffer(floats * sizeof(float));
  }
  return reinterpret_cast<float*>(buffer.data());
}

enum class Layout { kPlain, kTransposed };

struct Operand {
  const float* data;
  std::size_t stride;
  Layout layout;
};

std::size_t padded(std::size_t size, std::size_t unit) {
  return ceil_div(size, unit) * unit;
}

class Product {
 public:
  // C [m, n] (+)= A [m, k] B [k, n], where the operand is stored as `layout`
  // says.
  Product(const DenseKernels& kernels, const Operand& A, const Operand& B,
          MatrixView<float> C, std::size_t depth, Accumulate mode,
          ThreadPool& pool)
      : kernels_(kernels),
        A_(A),
        B_(B),
        C_(C),
        depth_(depth),
        mode_(mode),
        pool_(pool),
        packs_a_(A.layout == Layout::kTransposed) {}

  void run() {
    const std::size_t most_rows = packs_a_ ? kMostRows : C_.rows();
    for (std::size_t j = 0; j < C_.cols(); j += kMostColumns) {
      for (std::size_t i = 0; i < C_.rows(); i += most_rows) {
        run_part({i, std::min(most_rows, C_.rows() - i), j,
                  std::min(kMostColumns, C_.cols() - j)});
      }
    }
  }

 private:
  // A part of C, and a stretch [k0, k0 + depth) of the sum.
  struct Part {
    std::size_t i, rows, j, cols, k0 = 0, depth = 0;
  };

  void run_part(Part part) {
    const std::size_t cols = padded(part.cols, kernels_.panel_cols);
    const std::size_t rows =
        packs_a_ ? padded(part.rows, kernels_.tile_rows) : 0;
    const std::size_t most =
        std::max<std::size_t>(1, kPackedFloats / (rows + cols) / kDenseDepth) *
        kDenseDepth;
    const std::size_t depth = std::min(most, depth_);
    packed_b_ = thread_scratch((rows + cols) * depth);
    packed_a_ = packed_b_ + cols * depth;
    for (part.k0 = 0; part.k0 < depth_; part.k0 += depth) {
      part.depth = std::min(depth, depth_ - part.k0);
      pack(part);
      multiply(part);
    }
  }

  // Steps [k, k + steps) of one operand's part, all within one stretch of
  // kDenseDepth: the panels of a stretch lie one after another.
  void pack_b(const Part& part, std::size_t k, std::size_t first,
              std::size_t columns) const {
    const std::size_t stretch = k / kDenseDepth * kDenseDepth;
    const std::size_t depth = std::min(kDenseDepth, part.depth - stretch);
    const std::size_t width = kernels_.panel_cols;
    DensePacking p{
        .stride = B_.stride,
        .depth = depth,
        .columns = columns,
        .to = packed_b_ + stretch * padded(part.cols, width) + first * depth,
        .panel = width * depth};
    if (B_.layout == Layout::kTransposed) {
      p.from = B_.data + (part.j + first) * B_.stride + part.k0 + stretch;
      return kernels_.pack_b_transposed(p);
    }
    p.from = B_.data + (part.k0 + k) * B_.stride + part.j + first;
    p.to += (k - stretch) * width;
    p.depth = std::min(kStepsPerTask, depth - (k - stretch));
    kernels_.pack_b(p);
  }

  void pack_a(const Part& part, std::size_t k) const {
    const std::size_t stretch = k / kDenseDepth * kDenseDepth;
    const std::size_t depth = std::min(kDenseDepth, part.depth - stretch);
    const std::size_t width = kernels_.tile_rows;
    kernels_.pack_a_transposed(
        {.from = A_.data + (part.k0 + k) * A_.stride + part.i,
         .stride = A_.stride,
         .depth = std::min(kStepsPerTask, depth - (k - stretch)),
         .columns = part.rows,
         .to = packed_a_ + stretch * padded(part.rows, width) +
               (k - stretch) * width,
         .panel = width * depth});
  }

  void pack(const Part& part) {
    if (B_.layout == Layout::kTransposed) {
      const std::size_t width = kernels_.panel_cols;
      const std::size_t panels = ceil_div(part.cols, width);
      pool_.for_each(panels * ceil_div(part.depth, kDenseDepth),
                     [&](std::size_t task) {
                       const std::size_t first = task % panels * width;
                       pack_b(part, task / panels * kDenseDepth, first,
                              std::min(width, part.cols - first));
                     });
      return;
    }
    pool_.for_each(ceil_div(part.depth, kStepsPerTask), [&](std::size_t task) {
      pack_b(part, task * kStepsPerTask, 0, part.cols);
      if (packs_a_) pack_a(part, task * kStepsPerTask);
    });
  }

  // [row, col] of a task.
  struct Grid {
    std::size_t rows, cols;
  };

  Grid grid(const Part& part) const {
    Grid g{kTaskRows, kTaskColumns};
    const auto tasks = [&] {
      return ceil_div(part.rows, g.rows) * ceil_div(part.cols, g.cols);
    };
    while (tasks() < kEnoughTasks && g.cols > 4 * kFewestTaskColumns) {
      g.cols /= 2;
    }
    while (tasks() < kEnoughTasks && g.rows > 2 * kernels_.tile_rows) {
      g.rows /= 2;
    }
    while (tasks() < kEnoughTasks && g.cols > kFewestTaskColumns) g.cols /= 2;
    return g;
  }

  void multiply(const Part& part) {
    const Grid g = grid(part);
    const std::size_t across = ceil_div(part.cols, g.cols);
    pool_.for_each(ceil_div(part.rows, g.rows) * across, [&](std::size_t task) {
      Part own = part;
      const std::size_t i = task / across * g.rows, j = task % across * g.cols;
      own.rows = std::min(g.rows, part.rows - i);
      own.cols = std::min(g.cols, part.cols - j);
      multiply_task(part, own, i, j);
    });
  }

  // Block [i, j] of the part.
  void multiply_task(const Part& part, const Part& own, std::size_t i,
                     std::size_t j) const {
    const std::size_t all_rows = padded(part.rows, kernels_.tile_rows);
    const std::size_t all_cols = padded(part.cols, kernels_.panel_cols);
    DenseBlock block{
        .c = C_.data().data() + (part.i + i) * C_.cols() + part.j + j,
        .c_stride = C_.cols(),
        .rows = own.rows,
        .cols = own.cols};
    for (std::size_t k = 0; k < part.depth; k += kDenseDepth) {
      block.depth = std::min(kDenseDepth, part.depth - k);
      block.b = packed_b_ + k * all_cols + j * block.depth;
      block.b_panel = kernels_.panel_cols * block.depth;
      if (packs_a_) {
        block.layout = DenseLayout::kPanels;
        block.a = packed_a_ + k * all_rows + i * block.depth;
      } else {
        block.a = A_.data + (part.i + i) * A_.stride + part.k0 + k;
        block.a_stride = A_.stride;
      }
      block.accumulate = mode_ == Accumulate::kAdd || part.k0 != 0 || k != 0;
      kernels_.multiply(block);
    }
  }

  const DenseKernels& kernels_;
  Operand A_, B_;
  MatrixView<float> C_;
  std::size_t depth_;
  Accumulate mode_;
  ThreadPool& pool_;
  bool packs_a_;
  float *packed_a_ = nullptr, *packed_b_ = nullptr;
};

Operand operand(ConstMatrixView X, Layout layout) {
  return {X.data().data(), X.cols(), layout};
}

}  // namespace

void dense_product_transposed(ConstMatrixView A, ConstMatrixView B,
                              MatrixView<float> C, Accumulate mode,
                              ThreadPool& pool, Isa isa) {
  assert(A.cols() == B.cols() && C.rows() == A.rows() && C.cols() == B.rows());
  const DenseKernels* const kernels = dense_kernels(isa);
  if (kernels == nullptr || A.cols() == 0) {
    return matmul_transposed(A, B, C, pool, 1, mode);
  }
  Product(*kernels, operand(A, Layout::kPlain), operand(B, Layout::kTransposed),
          C, A.cols(), mode, pool)
      .run();
}

void dense_product(ConstMatrixView A, ConstMatrixView B, MatrixView<float> C,
                   Accumulate mode, ThreadPool& pool, Isa isa) {
  assert(A.cols() == B.rows() && C.rows() == A.rows() && C.cols() == B.cols());
  const DenseKernels* const kernels = dense_kernels(isa);
  if (kernels == nullptr || A.cols() == 0) {
    return matmul(A, B, C, pool, 1, mode);
  }
  Product(*kernels, operand(A, Layout::kPlain), operand(B, Layout::kPlain), C,
          A.cols(), mode, pool)
      .run();
}

void add_dense_cross_product(ConstMatrixView A, ConstMatrixView B,
                             MatrixView<float> C, ThreadPool& pool, Isa isa) {
  assert(A.rows() == B.rows() && C.rows() == A.cols() && C.cols() == B.cols());
  const DenseKernels* const kernels = dense_kernels(isa);
  if (kernels == nullptr) return add_cross_gram(A, B, 1, C, pool);
  Product(*kernels, operand(A, Layout::kTransposed), operand(B, Layout::kPlain),
          C, A.rows(), Accumulate::kAdd, pool)
      .run();
}

}  // namespace llmpress
