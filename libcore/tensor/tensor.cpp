#include "libcore/tensor/tensor.h"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>

#include "libcore/base/error.h"

namespace ds {

namespace {
constexpr std::size_t kAlignment = 64;
}

void Tensor::Free::operator()(void* memory) const { std::free(memory); }

Tensor::Tensor(DType dtype, std::vector<std::int64_t> shape)
    : dtype_(dtype), shape_(std::move(shape)) {
  const std::size_t wanted = static_cast<std::size_t>(bytes());
  const std::size_t rounded = (wanted + kAlignment) / kAlignment * kAlignment;
  void* memory = std::aligned_alloc(kAlignment, rounded);
  if (memory == nullptr) {
    throw Error(ExitCode::kResources,
                fmt::format("out of memory: a tensor of {} bytes could not be allocated", wanted),
                "use a smaller batch, a smaller --cutoff_len or a machine with more memory");
  }
  std::memset(memory, 0, rounded);
  data_.reset(memory);
}

std::int64_t Tensor::size() const {
  std::int64_t n = 1;
  for (const std::int64_t extent : shape_) n *= extent;
  return n;
}

std::int64_t Tensor::bytes() const { return size() * kernels::dtype_size(dtype_); }

View Tensor::view() {
  return View(data_.get(), dtype_, shape_.data(), static_cast<int>(shape_.size()));
}

ConstView Tensor::view() const {
  return ConstView(data_.get(), dtype_, shape_.data(), static_cast<int>(shape_.size()));
}

void Tensor::fill_zero() { std::memset(data_.get(), 0, static_cast<std::size_t>(bytes())); }

Tensor Tensor::clone() const {
  Tensor copy(dtype_, shape_);
  std::memcpy(copy.data(), data(), static_cast<std::size_t>(bytes()));
  return copy;
}

}  // namespace ds
