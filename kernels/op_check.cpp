#include "kernels/op_check.h"

#include <new>
#include <stdexcept>

namespace ds::kernels::op_check {

void fail(std::string_view op, const std::string& text) {
  throw std::invalid_argument(std::string(op) + ": " + text);
}

void out_of_memory() { throw std::bad_alloc(); }

std::string dims(std::int64_t rows, std::int64_t cols) {
  return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
}

void given(std::string_view op, const char* name, const ConstView& view) {
  if (!view && view.size() != 0) fail(op, std::string(name) + " is not given");
}

void dtype(std::string_view op, const char* name, const ConstView& view, DType wanted) {
  given(op, name, view);
  if (view.dtype() != wanted) {
    fail(op, std::string(name) + " is " + std::string(dtype_name(view.dtype())) + ", need " +
                 std::string(dtype_name(wanted)));
  }
}

void compute(std::string_view op, const char* name, const ConstView& view) {
  given(op, name, view);
  if (!is_compute(view.dtype())) {
    fail(op, std::string(name) + " is " + std::string(dtype_name(view.dtype())) +
                 ", need F32, BF16 or F64");
  }
}

void matrix(std::string_view op, const char* name, const ConstView& view, std::int64_t rows,
            std::int64_t cols) {
  given(op, name, view);
  if (view.rows() != rows || view.cols() != cols) {
    fail(op, std::string(name) + " is " + dims(view.rows(), view.cols()) + ", need " +
                 dims(rows, cols));
  }
}

void matrix(std::string_view op, const char* name, const ConstView& view, std::int64_t rows,
            std::int64_t cols, DType wanted) {
  matrix(op, name, view, rows, cols);
  dtype(op, name, view, wanted);
}

void vector(std::string_view op, const char* name, const ConstView& view, std::int64_t count) {
  given(op, name, view);
  if (view.size() != count) {
    fail(op, std::string(name) + " has " + std::to_string(view.size()) + " elements, need " +
                 std::to_string(count));
  }
  if (!view.contiguous()) fail(op, std::string(name) + " must be contiguous");
}

void vector(std::string_view op, const char* name, const ConstView& view, std::int64_t count,
            DType wanted) {
  vector(op, name, view, count);
  dtype(op, name, view, wanted);
}

void at_least(std::string_view op, const char* name, std::int64_t value, std::int64_t least) {
  if (value < least) {
    fail(op, std::string(name) + " is " + std::to_string(value) + ", need at least " +
                 std::to_string(least));
  }
}

double bytes(const ConstView& view) {
  return view ? static_cast<double>(view.size()) * dtype_bits(view.dtype()) / 8.0 : 0.0;
}

void indices_below(std::string_view op, const char* name, const ConstView& indices,
                   std::int64_t limit) {
  const auto* data = indices.as<std::int32_t>();
  const std::int64_t cols = indices.cols();
  for (std::int64_t r = 0; r < indices.rows(); ++r) {
    const std::int32_t* row = data + r * indices.row_stride();
    std::uint32_t outside = 0;  // checked once a row, so that the loop vectorises
    for (std::int64_t c = 0; c < cols; ++c) {
      outside |=
          static_cast<std::uint32_t>(row[c] < 0) | static_cast<std::uint32_t>(row[c] >= limit);
    }
    if (outside == 0) continue;
    for (std::int64_t c = 0; c < cols; ++c) {
      if (row[c] >= 0 && row[c] < limit) continue;
      fail(op, std::string(name) + "[" + std::to_string(r * cols + c) + "] is " +
                   std::to_string(row[c]) + ", need 0 <= index < " + std::to_string(limit));
    }
  }
}

void row_offsets(std::string_view op, const char* name, const ConstView& offsets,
                 std::int64_t rows) {
  const auto* data = offsets.as<std::int32_t>();
  std::int64_t before = 0;
  for (std::int64_t i = 0; i < offsets.size(); ++i) {
    if (data[i] < before || data[i] > rows) {
      fail(op, std::string(name) + "[" + std::to_string(i) + "] is " + std::to_string(data[i]) +
                   ", need " + std::to_string(before) + " <= offset <= " + std::to_string(rows));
    }
    before = data[i];
  }
}

}  // namespace ds::kernels::op_check
