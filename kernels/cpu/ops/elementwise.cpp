#include "kernels/elementwise.h"

#include <Random123/philox.h>

#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"

namespace ds::kernels::DSK_ISA {
namespace {

template <class X, class Y>
struct Wider {
  using type = float;
};
template <class Y>
struct Wider<double, Y> {
  using type = double;
};
template <class X>
struct Wider<X, double> {
  using type = double;
};
template <>
struct Wider<double, double> {
  using type = double;
};

template <class X, class Y, bool kAdd>
void add_scaled_piece(const X* x, std::int64_t n, double alpha, Y* y) {
  using A = typename Wider<X, Y>::type;
  const auto factor = static_cast<A>(alpha);
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const A term = factor * static_cast<A>(to_acc(x[i]));
    const A sum = kAdd ? static_cast<A>(to_acc(y[i])) + term : term;
    y[i] = from_acc<Y>(static_cast<acc_t<Y>>(sum));
  }
}

template <class X, class Y>
void add_scaled(CpuContext& context, const AddScaled& op) {
  const X* x = op.x.as<X>();
  Y* y = op.y.as<Y>();
  const Pieces pieces(op.x.rows(), op.x.cols(), op.x.contiguous() && op.y.contiguous());
  parallel_for(context, threads_for(context, op.x.size()), pieces.count(), [&](std::int64_t p) {
    const X* from = x + pieces.row(p) * op.x.row_stride() + pieces.begin(p);
    Y* to = y + pieces.row(p) * op.y.row_stride() + pieces.begin(p);
    if (op.accumulate) {
      add_scaled_piece<X, Y, true>(from, pieces.size(p), op.alpha, to);
    } else {
      add_scaled_piece<X, Y, false>(from, pieces.size(p), op.alpha, to);
    }
  });
}

template <class T>
void scale_columns(CpuContext& context, const ScaleColumns& op) {
  using A = acc_t<T>;
  const std::int64_t cols = op.x.cols();
  const T* x = op.x.as<T>();
  const A* factor = op.factor.as<A>();
  T* y = op.y.as<T>();
  parallel_for(context, threads_for(context, op.x.size()), op.x.rows(), [&](std::int64_t r) {
    const T* from = x + r * op.x.row_stride();
    T* to = y + r * op.y.row_stride();
#pragma omp simd
    for (std::int64_t i = 0; i < cols; ++i) to[i] = from_acc<T>(to_acc(from[i]) * factor[i]);
  });
}

constexpr int kBlocks = 16;  // Philox blocks drawn side by side, one a vector lane

// One of the ten rounds of Philox4x32 for every lane; Random123's own function has no loop that a
// compiler could vectorise.
inline void philox_round(std::uint32_t (&c)[4][kBlocks], std::uint32_t key0, std::uint32_t key1) {
  for (int i = 0; i < kBlocks; ++i) {
    const std::uint64_t p0 = static_cast<std::uint64_t>(PHILOX_M4x32_0) * c[0][i];
    const std::uint64_t p1 = static_cast<std::uint64_t>(PHILOX_M4x32_1) * c[2][i];
    c[0][i] = static_cast<std::uint32_t>(p1 >> 32) ^ c[1][i] ^ key0;
    c[2][i] = static_cast<std::uint32_t>(p0 >> 32) ^ c[3][i] ^ key1;
    c[1][i] = static_cast<std::uint32_t>(p1);
    c[3][i] = static_cast<std::uint32_t>(p0);
  }
}

// Draws [4 * first, 4 * (first + count)) of the stream, count rounded up to whole groups of lanes.
void draw(const Dropout& op, std::uint64_t first, std::int64_t count, std::uint32_t* words) {
  for (std::int64_t done = 0; done < count; done += kBlocks) {
    std::uint32_t c[4][kBlocks];
    for (int i = 0; i < kBlocks; ++i) {
      const std::uint64_t block = first + static_cast<std::uint64_t>(done + i);
      c[0][i] = static_cast<std::uint32_t>(block);
      c[1][i] = static_cast<std::uint32_t>(block >> 32);
      c[2][i] = static_cast<std::uint32_t>(op.stream);
      c[3][i] = static_cast<std::uint32_t>(op.stream >> 32);
    }
    auto key0 = static_cast<std::uint32_t>(op.seed);
    auto key1 = static_cast<std::uint32_t>(op.seed >> 32);
    for (int round = 0; round < philox4x32_rounds; ++round) {
      philox_round(c, key0, key1);
      key0 += PHILOX_W32_0;
      key1 += PHILOX_W32_1;
    }
    std::uint32_t* out = words + 4 * done;
    for (int i = 0; i < kBlocks; ++i) {
      for (int j = 0; j < 4; ++j) out[4 * i + j] = c[j][i];
    }
  }
}

template <class T, bool kAdd>
void drop_piece(const T* x, const std::uint32_t* words, std::int64_t n, std::uint32_t last_dropped,
                acc_t<T> scale, T* y) {
  using A = acc_t<T>;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    // A factor, not a choice of the value: no branch, and NaN stays visible as in torch.
    const A kept = to_acc(x[i]) * (words[i] > last_dropped ? scale : A(0));
    y[i] = from_acc<T>(kAdd ? to_acc(y[i]) + kept : kept);
  }
}

template <class T, bool kAdd>
void dropout(CpuContext& context, const Dropout& op) {
  using A = acc_t<T>;
  constexpr std::int64_t kPiece = 1024;
  constexpr std::int64_t kWork = 4;  // a draw costs about this many element visits
  const std::int64_t rows = op.x.rows(), cols = op.x.cols();
  const T* x = op.x.as<T>();
  T* y = op.y.as<T>();
  // draw < p * 2^32 exactly when draw <= ceil(p * 2^32) - 1.
  const auto last_dropped = static_cast<std::uint32_t>(__builtin_ceil(op.p * 0x1p32) - 1.0);
  const auto scale = static_cast<A>(1.0 / (1.0 - op.p));
  const std::int64_t per_row = (cols + kPiece - 1) / kPiece;
  parallel_for(
      context, threads_for(context, kWork * rows * cols), rows * per_row, [&](std::int64_t p) {
        const std::int64_t row = p / per_row, begin = p % per_row * kPiece;
        const std::int64_t n = least(kPiece, cols - begin);
        const auto at = static_cast<std::uint64_t>(row * cols + begin);
        const auto skip = static_cast<std::int64_t>(at % 4);  // a row may begin inside a block
        alignas(64) std::uint32_t words[kPiece + 4 + 4 * kBlocks];
        draw(op, at / 4, (skip + n + 3) / 4, words);
        drop_piece<T, kAdd>(x + row * op.x.row_stride() + begin, words + skip, n, last_dropped,
                            scale, y + row * op.y.row_stride() + begin);
      });
}

template <class X>
void add_scaled_from(CpuContext& context, const AddScaled& op) {
  with_compute_type(op.y.dtype(), [&]<class Y>() { add_scaled<X, Y>(context, op); });
}

}  // namespace

void run(CpuContext& context, const AddScaled& op) {
  with_compute_type(op.x.dtype(), [&]<class X>() { add_scaled_from<X>(context, op); });
}

void run(CpuContext& context, const ScaleColumns& op) {
  with_compute_type(op.x.dtype(), [&]<class T>() { scale_columns<T>(context, op); });
}

void run(CpuContext& context, const Dropout& op) {
  if (op.p == 0.0) {  // the mask is all ones
    return DSK_ISA::run(context, AddScaled{op.x, op.y, 1.0, op.accumulate});
  }
  with_compute_type(op.x.dtype(), [&]<class T>() {
    if (op.accumulate) return dropout<T, true>(context, op);
    dropout<T, false>(context, op);
  });
}

}  // namespace ds::kernels::DSK_ISA
