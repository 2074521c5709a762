// OpenBLAS 0.3.21 knows processors by family and model and takes those newer
// than itself for a Prescott of 2004, at a fifth of the speed.
// blas_core_type.cpp names the kernel set in OPENBLAS_CORETYPE by the
// processor's feature bits, before OpenBLAS's start-up code reads it.
#pragma once

namespace llmpress {

// Does nothing: a call makes the linker keep the start-up function.
void link_blas_core_type();

// Makes OpenBLAS choose again, the kernels for AVX2 and FMA that it has for
// Haswell: the same sums in the same order on every processor that has both,
// whatever else it has. Before the first product, from one thread. false: this
// OpenBLAS was built for one processor of another kind.
bool use_avx2_blas_kernels();

}  // namespace llmpress
