// What the kernels were built with and find on this machine, in words.
#pragma once

#include <string>

namespace ds {

std::string matrix_library();   // "oneDNN 2.6.3, AVX2"
std::string instruction_set();  // of the loops: "AVX2"
bool cuda_available();          // compiled in, and a device answers
bool cuda_compiled();

}  // namespace ds
