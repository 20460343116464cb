// Every op of ops.def has a parity case and every ...Backward a gradient case: ops_list_test.cpp
// calls the functions declared here for all of them, so a missing one does not link.
#pragma once

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/block_quantise.h"
#include "kernels/cast.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/expert_permute.h"
#include "kernels/gemm.h"
#include "kernels/reduce.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/router.h"
#include "kernels/swiglu.h"

namespace ds::test {

// Picks the overload of one op.
template <class Op>
struct Of {};

// parity: each dtype, instruction set, one and two threads, odd sizes, strided rows and guard bytes
// against an independent f64 reference. gradient: F64 backward against central differences.
#define DSK_CPU_OP(op)          \
  void parity(Of<kernels::op>); \
  void gradient(Of<kernels::op>);
#define DSK_CPU_CUDA_OP(op) DSK_CPU_OP(op)
#include "kernels/ops.def"
#undef DSK_CPU_OP
#undef DSK_CPU_CUDA_OP

}  // namespace ds::test
