#include "kernels/gemm.h"

#include <stdexcept>
#include <string>

namespace ds::kernels {
namespace {

struct Shape {
  std::int64_t m, n, k;
};

Shape shape_of(const GemmProblem& p) {
  return {p.trans_a ? p.a.cols() : p.a.rows(), p.trans_b ? p.b.rows() : p.b.cols(),
          p.trans_a ? p.a.rows() : p.a.cols()};
}

[[noreturn]] void fail(std::size_t index, const std::string& text) {
  throw std::invalid_argument("gemm: problem " + std::to_string(index) + ": " + text);
}

std::string dims(std::int64_t rows, std::int64_t cols) {
  return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
}

void expect_shape(std::size_t index, const char* name, const ConstView& view, std::int64_t rows,
                  std::int64_t cols) {
  if (view.rows() != rows || view.cols() != cols) {
    fail(index, std::string(name) + " is " + dims(view.rows(), view.cols()) + ", need " +
                    dims(rows, cols));
  }
}

[[noreturn]] void fail_dtype(std::size_t index, const char* name, DType dtype, const char* need) {
  fail(index, std::string(name) + " is " + std::string(dtype_name(dtype)) + ", need " + need);
}

constexpr bool is_f32_class(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16; }

void check_dtypes(std::size_t index, const GemmProblem& p) {
  if (p.c.dtype() == DType::kF64 || p.a.dtype() == DType::kF64) {
    if (p.a.dtype() != DType::kF64) fail_dtype(index, "a", p.a.dtype(), "F64 as c");
    if (p.b.dtype() != DType::kF64) fail_dtype(index, "b", p.b.dtype(), "F64 as a and c");
    if (p.c.dtype() != DType::kF64) fail_dtype(index, "c", p.c.dtype(), "F64 as a");
    if (p.low_rank_a && p.low_rank_a.dtype() != DType::kF64) {
      fail_dtype(index, "low_rank_a", p.low_rank_a.dtype(), "F64");
    }
    if (p.low_rank_b && p.low_rank_b.dtype() != DType::kF64) {
      fail_dtype(index, "low_rank_b", p.low_rank_b.dtype(), "F64");
    }
    return;
  }
  if (!is_f32_class(p.a.dtype())) fail_dtype(index, "a", p.a.dtype(), "F32, BF16 or F64");
  if (!is_f32_class(p.c.dtype())) fail_dtype(index, "c", p.c.dtype(), "F32, BF16 or F64");
  if (!is_f32_class(p.b.dtype()) && p.b.dtype() != DType::kF16 && p.b.dtype() != DType::kF8E4M3) {
    fail_dtype(index, "b", p.b.dtype(), "F32, BF16, F16 or F8_E4M3");
  }
  if (p.low_rank_a && !is_f32_class(p.low_rank_a.dtype())) {
    fail_dtype(index, "low_rank_a", p.low_rank_a.dtype(), "F32 or BF16");
  }
  if (p.low_rank_b && p.low_rank_b.dtype() != DType::kF32) {
    fail_dtype(index, "low_rank_b", p.low_rank_b.dtype(), "F32");
  }
}

void check_scale(std::size_t index, const GemmProblem& p) {
  if (p.b.dtype() != DType::kF8E4M3) {
    if (p.b_scale) fail(index, "b_scale is given but b is not F8_E4M3");
    return;
  }
  if (!p.b_scale) fail(index, "b is F8_E4M3 and has no b_scale");
  const DType dtype = p.b_scale.dtype();
  if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF8E8M0) {
    fail_dtype(index, "b_scale", dtype, "F32, BF16 or F8_E8M0");
  }
  if (p.b_row0 < 0) fail(index, "b_row0 is negative");
  const std::int64_t rows = (p.b_row0 + p.b.rows() + 127) / 128;
  const std::int64_t cols = (p.b.cols() + 127) / 128;
  if (p.b_scale.rows() < rows || p.b_scale.cols() != cols) {
    fail(index, "b_scale is " + dims(p.b_scale.rows(), p.b_scale.cols()) + ", need at least " +
                    dims(rows, cols) + " for b " + dims(p.b.rows(), p.b.cols()) + " at row " +
                    std::to_string(p.b_row0));
  }
}

void check_problem(std::size_t index, const GemmProblem& p) {
  // An operand without elements may have no memory; one that was left out has size 1.
  if (!p.a && p.a.size() != 0) fail(index, "a is not given");
  if (!p.b && p.b.size() != 0) fail(index, "b is not given");
  if (!p.c && p.c.size() != 0) fail(index, "c is not given");
  const Shape s = shape_of(p);
  const std::int64_t b_rows = p.trans_b ? s.n : s.k;
  const std::int64_t b_cols = p.trans_b ? s.k : s.n;
  expect_shape(index, "b", p.b, b_rows, b_cols);
  expect_shape(index, "c", p.c, s.m, s.n);
  check_dtypes(index, p);
  check_scale(index, p);
  if (p.beta != 0.0 && p.beta != 1.0) {
    fail(index, "beta is " + std::to_string(p.beta) + ", need 0 or 1");
  }
  if (static_cast<bool>(p.low_rank_a) != static_cast<bool>(p.low_rank_b)) {
    fail(index, "low_rank_a and low_rank_b must be given together");
  }
  if (p.low_rank_a) {
    const std::int64_t r = p.low_rank_a.cols();
    expect_shape(index, "low_rank_a", p.low_rank_a, s.m, r);
    expect_shape(index, "low_rank_b", p.low_rank_b, p.trans_b ? s.n : r, p.trans_b ? r : s.n);
  }
}

double bytes_of(const ConstView& view) {
  return view ? static_cast<double>(view.size()) * dtype_bits(view.dtype()) / 8.0 : 0.0;
}

}  // namespace

void check(const Gemm& op) {
  for (std::size_t i = 0; i < op.problems.size(); ++i) check_problem(i, op.problems[i]);
}

Cost cost(const Gemm& op) {
  Cost total;
  for (const GemmProblem& p : op.problems) {
    const Shape s = shape_of(p);
    if (s.m == 0 || s.n == 0) continue;
    const double depth = static_cast<double>(s.k + (p.low_rank_a ? p.low_rank_a.cols() : 0));
    total.flops += 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * depth;
    total.bytes += bytes_of(p.a) + bytes_of(p.b) + bytes_of(p.b_scale) + bytes_of(p.low_rank_a) +
                   bytes_of(p.low_rank_b) + bytes_of(p.c) * (p.beta == 0.0 ? 1.0 : 2.0);
  }
  return total;
}

}  // namespace ds::kernels
