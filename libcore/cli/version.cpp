#include "libcore/cli/version.h"

#include <fmt/format.h>

#include "libcore/tensor/backend.h"

namespace ds::cli {

std::string version_number() { return DEEPSEEK_VERSION; }

std::string commit() { return DEEPSEEK_COMMIT; }

std::string version_text(const std::string& program) {
  return fmt::format(
      "{} {}\ncommit           {}\ncompiler         {}\nmatrix library   {}\n"
      "CUDA             {}\ninstruction set  {}\n",
      program, version_number(), commit(), "g++ " __VERSION__, matrix_library(),
      cuda_compiled() ? (cuda_available() ? "yes" : "compiled, no device") : "no",
      instruction_set());
}

}  // namespace ds::cli
