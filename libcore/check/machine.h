// What this machine is, and what it can do with a checkpoint.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "libcore/base/system.h"
#include "libcore/check/compatibility.h"

namespace ds::check {

struct MachineInfo {
  std::string processor;  // "Intel(R) Xeon(R) ...", empty: the system does not say
  int cpus = 1;
  bool avx2 = false;    // with FMA and F16C
  bool avx512 = false;  // F, BW, DQ and VL
  bool amx = false;     // tiles of BF16
  MemoryInfo memory;
  std::string driver;             // version of NVIDIA's kernel module, empty: none
  std::vector<std::string> gpus;  // as the driver names them
  std::string cublas;             // the file name of a matrix library that loads, empty: none
};

// Reads below `paths`; `loads` tells whether a shared library of that name can be loaded (empty:
// dlopen). Never throws: what cannot be read is left at its default.
MachineInfo examine_machine(const SystemPaths& paths = {},
                            const std::function<bool(const std::string&)>& loads = {});

// Processor, memory, GPU. `cuda_built`: this program was compiled with CUDA.
CompatibilityRows machine_rows(const MachineInfo& machine, bool cuda_built);
// Whether the tools can convert, merge and train `input` here; of a GGUF model or inference shards
// whether they can be made into a Hugging Face folder. `free_disk`: bytes where it lies.
CompatibilityRows machine_work_rows(const InputFacts& input, const MachineInfo& machine,
                                    std::uint64_t free_disk);

}  // namespace ds::check
