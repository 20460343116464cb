#include "kernels/cpu/isa_ops.h"

namespace ds::kernels {

#define DSK_CPU_OP(op)                            \
  void run(CpuContext& context, const op& args) { \
    switch (context.isa()) {                      \
      case Isa::kAvx512Bf16:                      \
      case Isa::kAvx512:                          \
        return avx512::run(context, args);        \
      case Isa::kAvx2:                            \
        return avx2::run(context, args);          \
      case Isa::kBaseline:                        \
        return baseline::run(context, args);      \
    }                                             \
  }
#define DSK_CPU_CUDA_OP(op) DSK_CPU_OP(op)
#include "kernels/ops.def"
#undef DSK_CPU_OP
#undef DSK_CPU_CUDA_OP

}  // namespace ds::kernels
