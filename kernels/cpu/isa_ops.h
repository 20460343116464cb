// The per-instruction-set entry points: cpu/ops/*.cpp define run() in namespace DSK_ISA, once for
// each; dispatch.cpp calls the one the context names.
#pragma once

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/block_quantise.h"
#include "kernels/cast.h"
#include "kernels/context.h"
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

#define DSK_CPU_OP(op) void run(CpuContext& context, const op& args);
#define DSK_CPU_CUDA_OP(op) void run(CpuContext& context, const op& args);
namespace ds::kernels::baseline {
#include "kernels/ops.def"
}
namespace ds::kernels::avx2 {
#include "kernels/ops.def"
}
namespace ds::kernels::avx512 {
#include "kernels/ops.def"
}
#undef DSK_CPU_OP
#undef DSK_CPU_CUDA_OP
