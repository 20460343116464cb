// Adapter files for tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "libcore/io/safetensors.h"

namespace ds::test {

inline const std::string kPrefix = "base_model.model.";

// A safetensors file in the making.
class AdapterFile {
 public:
  void set(const std::string& name, std::vector<std::int64_t> shape, std::vector<float> values) {
    tensors_[name] = {DType::kF32, std::move(shape), bytes_of(values)};
  }
  void set_bits(const std::string& name, DType dtype, std::vector<std::int64_t> shape,
                const std::vector<std::uint16_t>& bits) {
    tensors_[name] = {dtype, std::move(shape), bytes_of(bits)};
  }
  // Values 1, 2, 3, ... times `step`.
  void set_ramp(const std::string& name, std::vector<std::int64_t> shape, float step = 1.0f) {
    std::int64_t size = 1;
    for (const std::int64_t extent : shape) size *= extent;
    std::vector<float> values(static_cast<std::size_t>(size));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = step * static_cast<float>(i + 1);
    set(name, std::move(shape), std::move(values));
  }
  void erase(const std::string& name) { tensors_.erase(name); }
  void rename(const std::string& from, const std::string& to) {
    auto node = tensors_.extract(from);
    node.key() = to;
    tensors_.insert(std::move(node));
  }
  template <class F>
  void rename_all(F&& f) {
    std::map<std::string, Entry> renamed;
    for (auto& [name, entry] : tensors_) renamed[f(name)] = std::move(entry);
    tensors_ = std::move(renamed);
  }
  void write(const std::filesystem::path& folder) const {
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, entry] : tensors_) {
      tensors.push_back({name, entry.dtype, entry.shape, entry.bytes.data()});
    }
    write_safetensors(folder / "adapter_model.safetensors", tensors, {{"format", "pt"}});
  }

 private:
  struct Entry {
    DType dtype = DType::kF32;
    std::vector<std::int64_t> shape;
    std::vector<char> bytes;
  };
  template <class T>
  static std::vector<char> bytes_of(const std::vector<T>& values) {
    std::vector<char> bytes(values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  std::map<std::string, Entry> tensors_;
};

}  // namespace ds::test
