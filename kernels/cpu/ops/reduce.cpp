#include "kernels/reduce.h"

#include "kernels/cpu/ops/block_scale.h"
#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"

namespace ds::kernels::DSK_ISA {
namespace {

template <class T>
void add_row(const T* __restrict x, std::int64_t n, acc_t<T>* __restrict sums) {
  for (std::int64_t i = 0; i < n; ++i) sums[i] += to_acc(x[i]);
}
template <class T>
void add_product_row(const T* __restrict x, const T* __restrict z, std::int64_t n,
                     acc_t<T>* __restrict sums) {
  for (std::int64_t i = 0; i < n; ++i) sums[i] += to_acc(x[i]) * to_acc(z[i]);
}

// Sums of fixed groups of rows, added up in order: the same for any number of threads.
template <class T>
void column_sum(CpuContext& context, const ColumnSum& op) {
  using A = acc_t<T>;
  constexpr std::int64_t kRows = 128;
  const std::int64_t rows = op.x.rows(), cols = op.x.cols();
  const std::int64_t groups = (rows + kRows - 1) / kRows;
  const T* x = op.x.as<T>();
  const T* z = op.z ? op.z.as<T>() : nullptr;
  A* y = op.y.as<A>();
  const auto bytes = sizeof(A) * static_cast<std::size_t>(groups * cols);
  A* sums = reinterpret_cast<A*>(context.scratch(context.threads(), bytes));
  parallel_for(context, threads_for(context, rows * cols), groups, [&](std::int64_t g) {
    A* own = sums + g * cols;
    for (std::int64_t i = 0; i < cols; ++i) own[i] = A(0);
    for (std::int64_t r = g * kRows; r < least(rows, (g + 1) * kRows); ++r) {
      const T* row = x + r * op.x.row_stride();
      if (z == nullptr) {
        add_row(row, cols, own);
      } else {
        add_product_row(row, z + r * op.z.row_stride(), cols, own);
      }
    }
  });
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t i = 0; i < cols; ++i) y[i] += sums[g * cols + i];
  }
}

template <class T>
double row_sum(const RowSquaredNorm& op, std::int64_t row) {
  const T* x = op.x.as<T>() + row * op.x.row_stride();
  const std::int64_t cols = op.x.cols();
  double sum = 0.0;
  for (std::int64_t c = 0; c < cols; c += kScaleBlock) {
    const std::int64_t n = least(kScaleBlock, cols - c);
    double factor = 1.0;
    if (op.scale) {
      const double s = block_scale(op.scale, row / kScaleBlock, c / kScaleBlock);
      factor = s * s;
    }
    sum += factor * static_cast<double>(dot(x + c, x + c, n));
  }
  return sum;
}

template <class T>
void row_squared_norm(CpuContext& context, const RowSquaredNorm& op) {
  const std::int64_t rows = op.x.rows();
  float* narrow = op.y.dtype() == DType::kF32 ? op.y.as<float>() : nullptr;
  double* wide = op.y.dtype() == DType::kF64 ? op.y.as<double>() : nullptr;
  parallel_for(context, threads_for(context, op.x.size()), rows, [&](std::int64_t r) {
    const double sum = row_sum<T>(op, r);
    if (wide != nullptr) {
      wide[r] = sum;
    } else {
      narrow[r] = static_cast<float>(sum);
    }
  });
}

template <class T>
double squares(const T* __restrict x, std::int64_t n) {
  double lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      const auto value = static_cast<double>(x[i + j]);
      lanes[j] += value * value;
    }
  }
  for (int j = 0; i < n; ++i, ++j) {
    const auto value = static_cast<double>(x[i]);
    lanes[j] += value * value;
  }
  return reduce_lanes(lanes);
}

// Elements that have all the bits of `mask`. Whether there are any is the common question, and the
// one that is answered in vectors.
template <class Code>
std::int64_t count_masked(const Code* __restrict codes, std::int64_t n, Code mask) {
  Code any = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    any = static_cast<Code>(any | static_cast<Code>((codes[i] & mask) == mask ? 1 : 0));
  }
  std::int64_t count = 0;
  for (std::int64_t i = 0; any != 0 && i < n; ++i) count += (codes[i] & mask) == mask ? 1 : 0;
  return count;
}

template <class Code>
void count_non_finite(CpuContext& context, const CountNonFinite& op, Code mask) {
  const std::int64_t rows = op.x.rows(), cols = op.x.cols(), stride = op.x.row_stride();
  const Pieces pieces(rows, cols, stride == cols);
  const Code* codes = static_cast<const Code*>(op.x.data());
  std::int64_t total = 0;
  parallel_for(context, threads_for(context, rows * cols), pieces.count(), [&](std::int64_t i) {
    const Code* from = codes + pieces.row(i) * stride + pieces.begin(i);
    const std::int64_t found = count_masked(from, pieces.size(i), mask);
    if (found != 0) __atomic_fetch_add(&total, found, __ATOMIC_RELAXED);
  });
  *op.count.as<std::int64_t>() = total;
}

constexpr std::int64_t kNormBlock = 16384;

std::int64_t norm_blocks(const ConstView& tensor) {
  return (tensor.size() + kNormBlock - 1) / kNormBlock;
}

}  // namespace

void run(CpuContext& context, const ColumnSum& op) {
  with_compute_type(op.x.dtype(), [&]<class T>() { column_sum<T>(context, op); });
}

void run(CpuContext& context, const RowSquaredNorm& op) {
  switch (op.x.dtype()) {
    case DType::kF32:
      return row_squared_norm<float>(context, op);
    case DType::kF64:
      return row_squared_norm<double>(context, op);
    case DType::kBF16:
      return row_squared_norm<bf16>(context, op);
    case DType::kF16:
      return row_squared_norm<f16>(context, op);
    default:
      return row_squared_norm<fp8_e4m3>(context, op);
  }
}

// The blocks of all tensors are numbered through; each thread takes a run of numbers and leaves one
// partial sum a block, added up in order afterwards.
void run(CpuContext& context, const SquaredNorm& op) {
  const ConstView* tensors = op.tensors.data();
  double* out = op.out.data();
  const std::size_t count = op.tensors.size();
  std::int64_t blocks = 0;
  for (std::size_t i = 0; i < count; ++i) blocks += norm_blocks(tensors[i]);
  const auto bytes = sizeof(double) * static_cast<std::size_t>(blocks);
  auto* partial = reinterpret_cast<double*>(context.scratch(context.threads(), bytes));
  parallel(context, threads_for(context, blocks * kNormBlock / 4), [&](int me, int team) {
    const std::int64_t begin = blocks * me / team, end = blocks * (me + 1) / team;
    std::int64_t first = 0;  // number of the tensor's first block
    for (std::size_t i = 0; i < count && first < end; ++i) {
      const ConstView& tensor = tensors[i];
      const std::int64_t own = norm_blocks(tensor);
      const std::int64_t from = begin > first ? begin - first : 0;
      for (std::int64_t b = from; b < own && first + b < end; ++b) {
        const std::int64_t at = b * kNormBlock;
        const std::int64_t n = least(kNormBlock, tensor.size() - at);
        partial[first + b] = tensor.dtype() == DType::kF64 ? squares(tensor.as<double>() + at, n)
                                                           : squares(tensor.as<float>() + at, n);
      }
      first += own;
    }
  });
  const double* next = partial;
  for (std::size_t i = 0; i < count; ++i) {
    double sum = 0.0;
    for (std::int64_t b = norm_blocks(tensors[i]); b > 0; --b) sum += *next++;
    out[i] = sum;
  }
}

void run(CpuContext& context, const CountNonFinite& op) {
  switch (op.x.dtype()) {
    case DType::kF32:
      return count_non_finite<std::uint32_t>(context, op, 0x7f800000U);
    case DType::kBF16:
      return count_non_finite<std::uint16_t>(context, op, 0x7f80);
    case DType::kF16:
      return count_non_finite<std::uint16_t>(context, op, 0x7c00);
    default:
      return count_non_finite<std::uint8_t>(context, op, 0x7f);
  }
}

}  // namespace ds::kernels::DSK_ISA
