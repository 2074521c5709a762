// OpenBLAS 0.3.21 knows processors by family and model and takes those newer
// than itself for a Prescott of 2004, at a fifth of the speed.
// blas_core_type.cpp names the kernel set in OPENBLAS_CORETYPE by the
// processor's feature bits, before OpenBLAS's start-up code reads it.
#pragma once

namespace llmpress {

// Does nothing: a call makes the linker keep the start-up function.
void link_blas_core_type();

}  // namespace llmpress
