// Distance between hidden states of a student and a teacher.
//
// Of one row, y = P s with a learned P [teacher width, student width], or y = s
// where both have one width; t of the teacher, n its width:
//   squared error  L = sum (y - t)^2 / n     dL/dy = 2 (y - t) / n
//   cosine         L = 1 - c, c = y.t / (|y| |t|)
//                                  dL/dy = (c y / |y| - t / |t|) / |y|
// and dL/ds = P^T dL/dy, dL/dP = dL/dy s^T. A row whose y or t is 0 has c = 0
// and no gradient. Squared error through P: TinyBERT, arXiv:1909.10351, Eq. 8;
// cosine: DistilBERT, arXiv:1910.01108, section 3.
#pragma once

#include <span>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

enum class HiddenStateDistance { kSquaredError, kCosine };

// Returns sum_r row_weights[r] L_r and adds row_weights[r] dL_r to dStudent and
// dP. student and dStudent [rows, student width], teacher [rows, teacher
// width], P and dP as above or both empty, row_weights [rows]. Rows of weight 0
// are left out and may hold anything. Throws Error(kInvalidArgument) where the
// widths do not fit each other or P.
double hidden_state_loss(HiddenStateDistance distance, ConstMatrixView student,
                         ConstMatrixView teacher, ConstMatrixView P,
                         std::span<const float> row_weights,
                         MatrixView<float> dStudent, MatrixView<float> dP,
                         ThreadPool& pool);

}  // namespace llmpress
