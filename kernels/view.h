// Non-owning views of tensors: what every op takes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "kernels/types.h"

namespace ds::kernels {

// Shape and place of a tensor. The last dimension is contiguous; consecutive rows (all leading
// dimensions flattened) are `row_stride` elements apart. Rank 0 is a scalar, rank <= 4.
// A default-constructed view is "absent": how an op's optional operand is left out.
class ConstView {
 public:
  ConstView() = default;
  // Contiguous rows.
  ConstView(const void* data, DType dtype, std::initializer_list<std::int64_t> extents);
  ConstView(const void* data, DType dtype, const std::int64_t* extents, int rank);

  explicit operator bool() const { return data_ != nullptr; }
  const void* data() const { return data_; }
  DType dtype() const { return dtype_; }
  int rank() const { return rank_; }
  std::int64_t extent(int axis) const;  // throws std::invalid_argument outside [0, rank)
  std::int64_t rows() const;            // product of all extents but the last; 1 for rank <= 1
  std::int64_t cols() const;            // last extent; 1 for rank 0
  std::int64_t size() const { return rows() * cols(); }
  std::int64_t row_stride() const { return row_stride_; }
  bool contiguous() const { return row_stride_ == cols() || rows() <= 1; }

  // Typed pointer; throws std::invalid_argument when T is not the view's dtype.
  template <class T>
  [[gnu::always_inline]] const T* as() const {
    expect_dtype(dtype_of_v<T>);
    return static_cast<const T*>(data_);
  }

  // Rank-2 view of rows [begin, begin + count) / columns [begin, begin + count).
  ConstView slice_rows(std::int64_t begin, std::int64_t count) const;
  ConstView slice_cols(std::int64_t begin, std::int64_t count) const;
  // The same contiguous memory with another shape of equal size.
  ConstView reshape(std::initializer_list<std::int64_t> extents) const;

 protected:
  void expect_dtype(DType wanted) const;
  const void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  int rank_ = 0;
  std::array<std::int64_t, 4> extents_{};
  std::int64_t row_stride_ = 0;
};

// A view that may be written through.
class View : public ConstView {
 public:
  View() = default;
  View(void* data, DType dtype, std::initializer_list<std::int64_t> extents)
      : ConstView(data, dtype, extents) {}
  View(void* data, DType dtype, const std::int64_t* extents, int rank)
      : ConstView(data, dtype, extents, rank) {}

  void* data() const { return const_cast<void*>(data_); }
  template <class T>
  [[gnu::always_inline]] T* as() const {
    expect_dtype(dtype_of_v<T>);
    return static_cast<T*>(data());
  }
  View slice_rows(std::int64_t begin, std::int64_t count) const {
    return View(ConstView::slice_rows(begin, count));
  }
  View slice_cols(std::int64_t begin, std::int64_t count) const {
    return View(ConstView::slice_cols(begin, count));
  }
  View reshape(std::initializer_list<std::int64_t> extents) const {
    return View(ConstView::reshape(extents));
  }

 private:
  explicit View(const ConstView& view) : ConstView(view) {}
};

// Work of one op, for the profiler: floating-point operations and bytes moved at least once.
struct Cost {
  double flops = 0;
  double bytes = 0;
};

}  // namespace ds::kernels
