// Owning tensors.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <vector>

#include "kernels/view.h"

namespace ds {

using kernels::ConstView;
using kernels::DType;
using kernels::View;

// 64-byte aligned host memory and a shape. Move-only; contents start as zero.
class Tensor {
 public:
  Tensor() = default;
  // Throws Error(kResources) when the memory cannot be had, naming the bytes.
  Tensor(DType dtype, std::vector<std::int64_t> shape);
  Tensor(Tensor&&) noexcept = default;
  Tensor& operator=(Tensor&&) noexcept = default;

  explicit operator bool() const { return data_ != nullptr; }
  DType dtype() const { return dtype_; }
  const std::vector<std::int64_t>& shape() const { return shape_; }
  std::int64_t size() const;  // elements
  std::int64_t bytes() const;
  View view();
  ConstView view() const;
  template <class T>
  T* as() {
    return view().as<T>();
  }
  template <class T>
  const T* as() const {
    return view().as<T>();
  }
  void* data() { return data_.get(); }
  const void* data() const { return data_.get(); }
  void fill_zero();
  // A copy with its own memory (copies are never made silently).
  Tensor clone() const;

 private:
  struct Free {
    void operator()(void* memory) const;
  };
  DType dtype_ = DType::kF32;
  std::vector<std::int64_t> shape_;
  std::unique_ptr<void, Free> data_;
};

}  // namespace ds
