#include "kernels/view.h"

#include <string>

namespace ds::kernels {
namespace {

[[noreturn]] void fail(const std::string& text) { throw std::invalid_argument("view: " + text); }

const void* advance(const void* data, std::int64_t elements, DType dtype) {
  return static_cast<const std::byte*>(data) + elements * dtype_size(dtype);
}

void expect_range(const char* what, std::int64_t begin, std::int64_t count, std::int64_t size) {
  if (begin < 0 || count < 0 || begin > size || count > size - begin) {
    fail(std::string(what) + " " + std::to_string(begin) + " + " + std::to_string(count) +
         " outside [0, " + std::to_string(size) + "]");
  }
}

}  // namespace

ConstView::ConstView(const void* data, DType dtype, std::initializer_list<std::int64_t> extents)
    : ConstView(data, dtype, extents.begin(), static_cast<int>(extents.size())) {}

ConstView::ConstView(const void* data, DType dtype, const std::int64_t* extents, int rank)
    : data_(data), dtype_(dtype), rank_(rank) {
  if (rank < 0 || rank > 4) fail("rank " + std::to_string(rank) + ", need 0 to 4");
  std::int64_t elements = 1;
  for (int i = 0; i < rank; ++i) {
    if (extents[i] < 0) fail("negative extent " + std::to_string(extents[i]));
    if (__builtin_mul_overflow(elements, extents[i], &elements)) fail("size overflows 64 bits");
    extents_[static_cast<std::size_t>(i)] = extents[i];
  }
  row_stride_ = cols();
}

std::int64_t ConstView::extent(int axis) const {
  if (axis < 0 || axis >= rank_) {
    fail("axis " + std::to_string(axis) + " of a view of rank " + std::to_string(rank_));
  }
  return extents_[static_cast<std::size_t>(axis)];
}

std::int64_t ConstView::rows() const {
  std::int64_t rows = 1;
  for (int i = 0; i + 1 < rank_; ++i) rows *= extents_[static_cast<std::size_t>(i)];
  return rows;
}

std::int64_t ConstView::cols() const {
  return rank_ == 0 ? 1 : extents_[static_cast<std::size_t>(rank_ - 1)];
}

void ConstView::expect_dtype(DType wanted) const {
  if (dtype_ != wanted) {
    fail("dtype is " + std::string(dtype_name(dtype_)) + ", read as " +
         std::string(dtype_name(wanted)));
  }
}

ConstView ConstView::slice_rows(std::int64_t begin, std::int64_t count) const {
  expect_range("rows", begin, count, rows());
  ConstView slice(advance(data_, begin * row_stride_, dtype_), dtype_, {count, cols()});
  slice.row_stride_ = row_stride_;
  return slice;
}

ConstView ConstView::slice_cols(std::int64_t begin, std::int64_t count) const {
  expect_range("columns", begin, count, cols());
  ConstView slice(advance(data_, begin, dtype_), dtype_, {rows(), count});
  slice.row_stride_ = row_stride_;
  return slice;
}

ConstView ConstView::reshape(std::initializer_list<std::int64_t> extents) const {
  if (!contiguous()) fail("reshape of rows that are not contiguous");
  ConstView shaped(data_, dtype_, extents);
  if (shaped.size() != size()) {
    fail("reshape of " + std::to_string(size()) + " elements to " + std::to_string(shaped.size()));
  }
  return shaped;
}

}  // namespace ds::kernels
