#include "libcore/check/tensor_facts.h"

#include <algorithm>
#include <cstring>

#include "libcore/check/expected_tensors.h"
#include "libcore/io/safetensors_header.h"

namespace ds::check {
namespace {

using kernels::DType;

constexpr std::int64_t kBlock = 128;
constexpr std::int64_t kScalesSampled = 64;  // tensors, and values of each

std::uint64_t elements_of(const TensorInfo& tensor) {
  std::uint64_t elements = 1;
  for (const std::int64_t extent : tensor.shape) elements *= static_cast<std::uint64_t>(extent);
  return elements;
}

float float_at(const std::byte* data, std::uint64_t index) {
  float value = 0.0f;
  std::memcpy(&value, data + 4 * index, sizeof value);
  return value;
}

bool is_power_of_two(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return (bits & 0x807fffffu) == 0;
}

// A side that is cut into blocks of which the last is smaller.
bool is_ragged(const TensorInfo& tensor) {
  return std::any_of(tensor.shape.begin(), tensor.shape.end(),
                     [](std::int64_t side) { return side > kBlock && side % kBlock != 0; });
}

}  // namespace

void TensorReader::add(const SafetensorsFile& file, const TensorInfo& tensor,
                       std::string_view name) {
  const TensorName parts = split_name(name);
  const std::uint64_t elements = elements_of(tensor);
  ++facts_.count;
  facts_.bytes += tensor.bytes();
  if (parts.layer >= 0) {
    const bool prediction = config_ && parts.layer >= config_->num_hidden_layers;
    facts_.prediction_layer = facts_.prediction_layer || prediction;
    std::uint64_t& layer = layers_[parts.layer];
    layer += tensor.bytes();
    if (!prediction) facts_.largest_layer = std::max(facts_.largest_layer, layer);
  } else if (name == "lm_head.weight") {
    facts_.largest_layer = std::max(facts_.largest_layer, tensor.bytes());
  }
  if (parts.scale) {
    scale(file, tensor, elements);
    return;
  }
  const bool bias = name.ends_with("e_score_correction_bias");
  const bool wide = tensor.dtype == DType::kF32 && !bias;
  const bool fp8 = tensor.dtype == DType::kF8E4M3;
  facts_.bytes_bf16 += fp8 || wide ? 2 * elements : tensor.bytes();
  if (fp8) {
    ++facts_.fp8;
    if (is_ragged(tensor) && ++facts_.ragged == 1) {
      facts_.ragged_tensor = tensor.name;
      facts_.ragged_shape = shape_text(tensor.shape);
    }
  }
  if (!bias || tensor.dtype != DType::kF32 || !facts_.negative_bias.empty()) return;
  const std::byte* data = file.data(tensor);
  for (std::uint64_t i = 0; i < elements; ++i) {
    if (!(float_at(data, i) < 0.0f)) continue;
    facts_.negative_bias = tensor.name;
    return;
  }
}

void TensorReader::scale(const SafetensorsFile& file, const TensorInfo& tensor,
                         std::uint64_t elements) {
  if (facts_.scale_dtype.empty()) facts_.scale_dtype = kernels::dtype_name(tensor.dtype);
  if (tensor.dtype != DType::kF32 || scales_ >= kScalesSampled) return;
  ++scales_;
  const std::byte* data = file.data(tensor);
  const std::uint64_t count = std::min<std::uint64_t>(elements, kScalesSampled);
  for (std::uint64_t i = 0; i < count; ++i) {
    const float scale = float_at(data, i);
    if (!(scale > 0.0f)) continue;  // never written: --deep has a rule for it
    ++facts_.sampled;
    if (!is_power_of_two(scale) && facts_.mantissa_scale.empty()) {
      facts_.mantissa_scale = tensor.name;
    }
  }
}

}  // namespace ds::check
