// What the attention ops share: the softmax of a block of scores, the static split of tasks over
// threads, and, for decoding, matrix products by the library.
#pragma once

#include <dnnl.h>

#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"

namespace ds::kernels::DSK_ISA {

// A matrix whose rows are `stride` elements apart.
template <class A>
struct Tile {
  A* data = nullptr;
  std::int64_t stride = 0;

  Tile at(std::int64_t row) const { return {data + row * stride, stride}; }
  Tile at(std::int64_t row, std::int64_t col) const { return {data + row * stride + col, stride}; }
  operator Tile<const A>() const { return {data, stride}; }
};

enum class Form { kNN, kNT };

// c = alpha op(a) op(b) + beta c with c [m, n] and k the summed dimension. Returns whether it
// worked (the library's work space is allocated inside).
inline bool multiply(Form form, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
                     Tile<const float> a, Tile<const float> b, float beta, Tile<float> c) {
  if (m == 0 || n == 0) return true;
  return dnnl_sgemm('N', form == Form::kNT ? 'T' : 'N', m, n, k, alpha, a.data, a.stride, b.data,
                    b.stride, beta, c.data, c.stride) == dnnl_success;
}

// The F64 path exists for gradient checks: plain loops.
inline bool multiply(Form form, std::int64_t m, std::int64_t n, std::int64_t k, double alpha,
                     Tile<const double> a, Tile<const double> b, double beta, Tile<double> c) {
  for (std::int64_t i = 0; i < m; ++i) {
    double* row = c.data + i * c.stride;
    for (std::int64_t j = 0; j < n; ++j) row[j] = beta == 0.0 ? 0.0 : beta * row[j];
    if (form == Form::kNT) {
      for (std::int64_t j = 0; j < n; ++j) {
        row[j] += alpha * dot(a.data + i * a.stride, b.data + j * b.stride, k);
      }
      continue;
    }
    for (std::int64_t p = 0; p < k; ++p) {
      const double factor = alpha * a.data[i * a.stride + p];
      const double* from = b.data + p * b.stride;
      for (std::int64_t j = 0; j < n; ++j) row[j] += factor * from[j];
    }
  }
  return true;
}

template <class T>
void widen(const T* src, std::int64_t stride, std::int64_t rows, std::int64_t cols,
           Tile<acc_t<T>> dst) {
  for (std::int64_t r = 0; r < rows; ++r) widen_row(src + r * stride, cols, dst.at(r).data);
}
template <class T>
void narrow(Tile<const acc_t<T>> src, std::int64_t rows, std::int64_t cols, T* dst,
            std::int64_t stride) {
  for (std::int64_t r = 0; r < rows; ++r) narrow_row(src.at(r).data, cols, dst + r * stride);
}

// Rows of scores this many elements apart: no power of two, whose rows would fall into the same
// cache sets.
inline std::int64_t score_stride(std::int64_t cols) { return (cols + 31) / 32 * 32 + 16; }

// Running softmax of one query: largest score so far and the sum of exp(score - largest).
template <class A>
struct Running {
  A largest = -__builtin_huge_val();
  A sum = 0;
};

// scores[0, visible) -> exp(score - largest so far), rounded to T; scores[visible, cols) -> 0.
// Returns the factor that what was summed before must be multiplied with. The sum is that of the
// unrounded values.
template <class T>
acc_t<T> softmax_step(acc_t<T>* scores, std::int64_t visible, std::int64_t cols,
                      Running<acc_t<T>>& running) {
  using A = acc_t<T>;
  const A before = running.largest;
  const A largest = max_value(scores, visible, before);
  // Nothing but -inf (or NaN) so far: subtracting 0 keeps exp(-inf) = 0 and NaN.
  const A shift = largest == -__builtin_huge_val() ? A(0) : largest;
  A lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= visible; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      const A value = exp_approx(scores[i + j] - shift);
      lanes[j] += value;
      scores[i + j] = to_acc(from_acc<T>(value));
    }
  }
  A tail = 0;
#pragma omp simd reduction(+ : tail)
  for (std::int64_t j = i; j < visible; ++j) {
    const A value = exp_approx(scores[j] - shift);
    tail += value;
    scores[j] = to_acc(from_acc<T>(value));
  }
  for (std::int64_t j = visible; j < cols; ++j) scores[j] = A(0);
  const A factor = before == largest ? A(1) : exp_approx(before - shift);
  running.sum = running.sum * factor + (reduce_lanes(lanes) + tail);
  running.largest = largest;
  return factor;
}

template <class A>
void scale_row(A* row, std::int64_t n, A factor) {
  for (std::int64_t i = 0; i < n; ++i) row[i] *= factor;
}

// Deals a sequence of tasks of known total cost to `shares` by the middle of each task's range of
// the total: contiguous runs, the same for the same tasks.
class Dealer {
 public:
  Dealer(double total, int shares) : per_share_(total / shares), last_(shares - 1) {}
  int next(double cost) {
    const double middle = done_ + 0.5 * cost;
    done_ += cost;
    const int share = static_cast<int>(middle / per_share_);
    return share < last_ ? share : last_;
  }

 private:
  double per_share_;
  int last_;
  double done_ = 0.0;
};

// A bump allocator over scratch memory; pieces begin on cache lines. With no memory it only counts.
class Carver {
 public:
  explicit Carver(std::byte* memory) : memory_(memory) {}
  template <class A>
  A* take(std::int64_t count) {
    const auto bytes = (static_cast<std::size_t>(count) * sizeof(A) + 63) / 64 * 64;
    A* piece = memory_ == nullptr ? nullptr : reinterpret_cast<A*>(memory_ + used_);
    used_ += bytes;
    return piece;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

}  // namespace ds::kernels::DSK_ISA
