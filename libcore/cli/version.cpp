#include "libcore/cli/version.h"

#include <fmt/format.h>

#include "kernels/context.h"

namespace ds::cli {

std::string version_number() { return DEEPSEEK_VERSION; }

std::string commit() { return DEEPSEEK_COMMIT; }

std::string version_text(const std::string& program) {
  return fmt::format(
      "{} {}\ncommit           {}\ncompiler         {}\nmatrix library   {}\n"
      "CUDA             {}\ninstruction set  {}\n",
      program, version_number(), commit(), "g++ " __VERSION__, kernels::matrix_library_description(),
      kernels::cuda_compiled() ? (kernels::cuda_available() ? "yes" : "compiled, no device") : "no",
      kernels::isa_name(kernels::detect_isa()));
}

}  // namespace ds::cli
