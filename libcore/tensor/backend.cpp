#include "libcore/tensor/backend.h"

#include "kernels/context.h"

namespace ds {

std::string matrix_library() { return kernels::matrix_library_description(); }

std::string instruction_set() { return std::string(kernels::isa_name(kernels::detect_isa())); }

bool cuda_available() { return kernels::cuda_available(); }

bool cuda_compiled() { return kernels::cuda_compiled(); }

}  // namespace ds
