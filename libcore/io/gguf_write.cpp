#include <fmt/format.h>

#include <cstring>
#include <set>

#include "libcore/base/error.h"
#include "libcore/io/gguf.h"
#include "libcore/io/safetensors_header.h"

namespace ds {

namespace {

constexpr std::uint64_t kAlignment = 32;  // the default, for which no key is needed
constexpr std::uint32_t kVersion = 3;
constexpr std::size_t kLongestTensorName = 63;

template <class T>
void append(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}
void append_text(std::string& out, std::string_view text) {
  append(out, static_cast<std::uint64_t>(text.size()));
  out += text;
}
void append_type(std::string& out, GgufValueType type) {
  append(out, static_cast<std::uint32_t>(type));
}

std::uint64_t padded(std::uint64_t at) { return (at + kAlignment - 1) / kAlignment * kAlignment; }

[[noreturn]] void defect(const GgufTensorToWrite& tensor, const std::string& what) {
  throw Error(ExitCode::kInternal, fmt::format("tensor {} {}", tensor.name, what));
}

}  // namespace

void GgufKeyWriter::begin(std::string_view key, GgufValueType type) {
  append_text(bytes_, key);
  append_type(bytes_, type);
  ++count_;
}
void GgufKeyWriter::u16(std::string_view key, std::uint16_t value) {
  begin(key, GgufValueType::kU16);
  append(bytes_, value);
}
void GgufKeyWriter::u32(std::string_view key, std::uint32_t value) {
  begin(key, GgufValueType::kU32);
  append(bytes_, value);
}
void GgufKeyWriter::i32(std::string_view key, std::int32_t value) {
  begin(key, GgufValueType::kI32);
  append(bytes_, value);
}
void GgufKeyWriter::f32(std::string_view key, float value) {
  begin(key, GgufValueType::kF32);
  append(bytes_, value);
}
void GgufKeyWriter::boolean(std::string_view key, bool value) {
  begin(key, GgufValueType::kBool);
  append(bytes_, static_cast<std::uint8_t>(value ? 1 : 0));
}
void GgufKeyWriter::text(std::string_view key, std::string_view value) {
  begin(key, GgufValueType::kString);
  append_text(bytes_, value);
}
void GgufKeyWriter::texts(std::string_view key, std::span<const std::string> values) {
  begin(key, GgufValueType::kArray);
  append_type(bytes_, GgufValueType::kString);
  append(bytes_, static_cast<std::uint64_t>(values.size()));
  for (const std::string& value : values) append_text(bytes_, value);
}
void GgufKeyWriter::i32s(std::string_view key, std::span<const std::int32_t> values) {
  begin(key, GgufValueType::kArray);
  append_type(bytes_, GgufValueType::kI32);
  append(bytes_, static_cast<std::uint64_t>(values.size()));
  for (const std::int32_t value : values) append(bytes_, value);
}

std::uint64_t gguf_tensor_bytes(const GgufTensorToWrite& tensor) {
  const GgmlTypeInfo& type = *ggml_type_info(tensor.type);
  const std::int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (row % type.block_values != 0) {
    defect(tensor, fmt::format("has rows of {} values in {}", row, type.name));
  }
  std::uint64_t bytes = static_cast<std::uint64_t>(row / type.block_values * type.block_bytes);
  for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i) {
    if (tensor.shape[i] <= 0 ||
        __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(tensor.shape[i]), &bytes)) {
      defect(tensor, "has the shape " + shape_text(tensor.shape));
    }
  }
  return bytes;
}

GgufLayout layout_gguf(const GgufKeyWriter& keys, const std::vector<GgufTensorToWrite>& tensors) {
  GgufLayout layout;
  std::string& out = layout.start;
  out = "GGUF";
  append(out, kVersion);
  append(out, static_cast<std::uint64_t>(tensors.size()));
  append(out, keys.count());
  out += keys.bytes();
  std::uint64_t offset = 0;
  std::set<std::string_view> names;
  for (const GgufTensorToWrite& tensor : tensors) {
    if (tensor.name.empty() || tensor.name.size() > kLongestTensorName) {
      defect(tensor, fmt::format("has a name of {} bytes", tensor.name.size()));
    }
    if (!names.insert(tensor.name).second) defect(tensor, "is there twice");
    if (tensor.shape.size() > 4) defect(tensor, "has more than 4 dimensions");
    append_text(out, tensor.name);
    append(out, static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto extent = tensor.shape.rbegin(); extent != tensor.shape.rend(); ++extent) {
      append(out, static_cast<std::uint64_t>(*extent));
    }
    append(out, static_cast<std::uint32_t>(tensor.type));
    append(out, offset);
    layout.offsets.push_back(offset);
    offset += padded(gguf_tensor_bytes(tensor));
  }
  out.resize(padded(out.size()), '\0');
  for (std::uint64_t& at : layout.offsets) at += out.size();
  layout.bytes = out.size() + offset;
  return layout;
}

}  // namespace ds
