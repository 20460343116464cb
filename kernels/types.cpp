#include "kernels/types.h"

#include <string>

namespace ds::kernels {
namespace {

struct DTypeInfo {
  std::string_view name;
  int bits;
};

// In the order of DType. Source: huggingface/safetensors tensor.rs.
constexpr DTypeInfo kInfo[kDTypeCount] = {
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
};

const DTypeInfo& info(DType dtype) {
  const auto index = static_cast<int>(dtype);
  if (index >= kDTypeCount) throw std::invalid_argument("dtype: no such value");
  return kInfo[index];
}

}  // namespace

int dtype_bits(DType dtype) { return info(dtype).bits; }

std::int64_t dtype_size(DType dtype) {
  const DTypeInfo& entry = info(dtype);
  if (entry.bits % 8 != 0) {
    throw std::invalid_argument("dtype_size: an element of " + std::string(entry.name) +
                                " is not a whole number of bytes");
  }
  return entry.bits / 8;
}

std::string_view dtype_name(DType dtype) { return info(dtype).name; }

bool parse_dtype(std::string_view name, DType& dtype) {
  for (int i = 0; i < kDTypeCount; ++i) {
    if (kInfo[i].name == name) {
      dtype = static_cast<DType>(i);
      return true;
    }
  }
  return false;
}

}  // namespace ds::kernels
