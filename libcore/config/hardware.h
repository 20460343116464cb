// GPUs that a model may be meant for: memory, compute capability, bandwidth, peaks.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ds {

// Peaks are dense, of the tensor cores, as the maker states them.
struct Gpu {
  std::string_view name;      // "H100-80G": as --hardware takes it
  std::string_view label;     // "NVIDIA H100 SXM"
  std::uint64_t memory = 0;   // bytes
  int capability = 0;         // 90 = sm_90; 0: not of NVIDIA
  double bandwidth = 0.0;     // bytes a second
  double bf16 = 0.0;          // FLOP/s; 0: no BF16 arithmetic
  double fp8 = 0.0;           // FLOP/s; 0: no FP8 arithmetic
  std::string_view fp8_form;  // "E4M3", "E4M3FNUZ", empty without FP8
  std::string_view source;
};

// All that are known, by maker and age.
std::span<const Gpu> known_gpus();

// So many of one kind.
struct Hardware {
  std::int64_t count = 1;
  const Gpu* gpu = nullptr;
  std::string text() const;  // "8xH100-80G"
};

// "8xH100-80G", "8 x h100_80gb", "H200": an optional number, and a name. Case, '-', '_' and spaces
// do not count; the memory may be left out where one kind of that name is known. Throws
// Error(kUsage) that says what is wrong and lists the known names.
Hardware parse_hardware(std::string_view text);

// "sm_90", or "no compute capability" for another maker's.
std::string capability_name(const Gpu& gpu);

}  // namespace ds
