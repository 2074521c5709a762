// What a changed weight does to a Linear's output: tr(D S D^T) / out with the
// second moment S = E[x x^T] of its inputs [in, in], or the identity where S is
// empty. Sums run in double, in one order at any number of threads.
#pragma once

#include <cstddef>
#include <span>

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"

namespace llmpress {

struct WeightDifference {
  double output_error = 0;   // of D = W' - W
  double zero_fraction = 0;  // of W'
};

// `changed` is decoded some rows at a time.
WeightDifference difference_of(ConstMatrixView W, const PackedWeight& changed,
                               ConstMatrixView S, ThreadPool& pool);
// Of a weight by itself, 0 to 1; decoded some rows at a time.
double zero_fraction(const PackedWeight& weight, ThreadPool& pool);
double output_error(ConstMatrixView W, ConstMatrixView changed,
                    ConstMatrixView S, ThreadPool& pool);
// Of D = W: the mean square of an output.
double output_energy(ConstMatrixView W, ConstMatrixView S, ThreadPool& pool);

// One row's part of these where S is the identity.
struct RowDifference {
  double error = 0;       // |w' - w|^2
  double energy = 0;      // |w|^2
  std::size_t zeros = 0;  // of w'
};
RowDifference row_difference(std::span<const float> changed,
                             std::span<const float> w);
// What difference_of() and output_energy() say of all rows [out, in].
struct RowTotals {
  WeightDifference difference{};
  double energy = 0;
};
RowTotals total_of(std::span<const RowDifference> rows, std::size_t in);

}  // namespace llmpress
