#include "kernels/cuda/cublaslt.h"

#include <dlfcn.h>

#include <stdexcept>
#include <string>

namespace ds::kernels::cuda {
namespace {

template <class Function>
void bind(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  if (function == nullptr) {
    throw std::runtime_error(std::string("CUDA: libcublasLt has no function ") + name);
  }
}

CublasLt load() {
  const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  void* library = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  // Where the toolkit was at build time, for machines whose loader does not know it.
  if (library == nullptr) library = ::dlopen(DEEPSEEK_CUBLASLT_FILE, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw std::runtime_error("CUDA: " + name + " cannot be loaded (" + ::dlerror() +
                             "); install the CUDA libraries or set LD_LIBRARY_PATH");
  }
  CublasLt lt;
  bind(library, "cublasLtCreate", lt.create);
  bind(library, "cublasLtDestroy", lt.destroy);
  bind(library, "cublasLtGetStatusString", lt.status_string);
  bind(library, "cublasLtMatmul", lt.matmul);
  bind(library, "cublasLtMatmulAlgoGetHeuristic", lt.heuristic);
  bind(library, "cublasLtMatmulDescCreate", lt.desc_create);
  bind(library, "cublasLtMatmulDescDestroy", lt.desc_destroy);
  bind(library, "cublasLtMatmulDescSetAttribute", lt.desc_set);
  bind(library, "cublasLtMatmulPreferenceCreate", lt.preference_create);
  bind(library, "cublasLtMatmulPreferenceDestroy", lt.preference_destroy);
  bind(library, "cublasLtMatmulPreferenceSetAttribute", lt.preference_set);
  bind(library, "cublasLtMatrixLayoutCreate", lt.layout_create);
  bind(library, "cublasLtMatrixLayoutDestroy", lt.layout_destroy);
  return lt;
}

}  // namespace

const CublasLt& cublaslt() {
  static const CublasLt lt = load();
  return lt;
}

}  // namespace ds::kernels::cuda
