// The CUDA backend behind its seam: clear refusal without it, agreement with the CPU with it.
// Without a device the comparisons are skipped with a message; DEEPSEEK_REQUIRE_GPU=1 makes that a
// failure.
#include <doctest/doctest.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cast.h"
#include "kernels/gemm.h"
#include "kernels/rms_norm.h"
#include "tests/support/buffers.h"
#include "tests/support/compare.h"

namespace ds::test {
namespace {

using kernels::Cast;
using kernels::CpuContext;
using kernels::CudaContext;
using kernels::Gemm;
using kernels::GemmProblem;
using kernels::RmsNormBackward;
using kernels::RmsNormForward;

constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16, kF16 = DType::kF16, kF64 = DType::kF64,
                kF8 = DType::kF8E4M3;

bool have_device() {
  if (kernels::cuda_available()) return true;
  const char* required = std::getenv("DEEPSEEK_REQUIRE_GPU");
  if (required != nullptr && std::string(required) == "1") {
    FAIL("DEEPSEEK_REQUIRE_GPU=1 but no CUDA device answers");
  }
  MESSAGE("skipped: no CUDA device");
  return false;
}

// Host operand and its copy on the device, guard bytes included.
class Mirrored {
 public:
  Mirrored(CudaContext& context, DType dtype, std::int64_t rows, std::int64_t cols,
           std::int64_t gap = 0)
      : context_(context),
        host(dtype, rows, cols, gap),
        back(dtype, rows, cols, gap),
        rows_(rows),
        cols_(cols) {
    memory_ = context.allocate(host.bytes().size());
  }
  ~Mirrored() { context_.release(memory_); }
  Mirrored(const Mirrored&) = delete;
  Mirrored& operator=(const Mirrored&) = delete;

  // The same place in the device's copy.
  View device() {
    const View view = host.view();
    const auto offset = static_cast<const unsigned char*>(view.data()) - host.bytes().data();
    auto* data = static_cast<unsigned char*>(memory_) + offset;
    const View wide(data, view.dtype(), {rows_, view.row_stride()});
    return view.contiguous() && view.row_stride() == cols_ ? wide : wide.slice_cols(0, cols_);
  }
  View device_vector() { return device().reshape({cols_}); }
  void upload() { context_.copy_to_device(memory_, host.bytes().data(), host.bytes().size()); }
  // What the device holds now, as a matrix of its own.
  GuardedMatrix& download() {
    auto* bytes = const_cast<unsigned char*>(back.bytes().data());
    context_.copy_to_host(bytes, memory_, back.bytes().size());
    return back;
  }

 private:
  CudaContext& context_;

 public:
  GuardedMatrix host;
  GuardedMatrix back;

 private:
  std::int64_t rows_, cols_;
  void* memory_ = nullptr;
};

TEST_CASE("cuda: without a device the constructor says so") {
  if (kernels::cuda_available()) {
    CHECK(kernels::cuda_compiled());
    CHECK_NOTHROW(CudaContext(0));
    CHECK_THROWS_AS(CudaContext(1000), std::runtime_error);
    return;
  }
  try {
    CudaContext context(0);
    FAIL("constructed without a device");
  } catch (const std::runtime_error& error) {
    const std::string text = error.what();
    CHECK(text.starts_with("CUDA: "));
    CHECK(text.find(kernels::cuda_compiled() ? "no usable device" : "without CUDA") !=
          std::string::npos);
  }
}

TEST_CASE("cuda: gemm agrees with the CPU") {
  if (!have_device()) return;
  CudaContext cuda(0);
  CpuContext cpu(2, kernels::detect_isa());
  struct Types {
    DType a, b, c;
  };
  const Types types[] = {{kF32, kF32, kF32},   {kBF16, kBF16, kBF16}, {kBF16, kBF16, kF32},
                         {kF32, kBF16, kF32},  {kBF16, kF8, kBF16},   {kF32, kF8, kF32},
                         {kBF16, kF16, kBF16}, {kF64, kF64, kF64}};
  for (const Types& t : types) {
    for (const int bits : {0, 1, 2, 3}) {
      for (const std::int64_t rank : {0, 8}) {
        for (const double beta : {0.0, 1.0}) {
          for (const std::int64_t gap : {0, 3}) {
            const bool trans_a = (bits & 1) != 0, trans_b = (bits & 2) != 0;
            const std::int64_t m = 150, n = 136, k = 264;
            Mirrored a(cuda, t.a, trans_a ? k : m, trans_a ? m : k, gap);
            Mirrored b(cuda, t.b, trans_b ? n : k, trans_b ? k : n, gap);
            Mirrored c(cuda, t.c, m, n, gap);
            Mirrored scale(cuda, kF32, 3, 3);
            const DType low = t.c == kF64 ? kF64 : kF32;
            Mirrored low_a(cuda, low, m, rank),
                low_b(cuda, low, trans_b ? n : rank, trans_b ? rank : n);
            fill_normal(a.host.view(), 1);
            fill_normal(b.host.view(), 2);
            fill_normal(c.host.view(), 3);
            fill_normal(scale.host.view(), 4);
            fill_normal(low_a.host.view(), 5);
            fill_normal(low_b.host.view(), 6);
            for (Mirrored* each : {&a, &b, &c, &scale, &low_a, &low_b}) each->upload();
            GemmProblem on_cpu, on_cuda;
            on_cpu.trans_a = on_cuda.trans_a = trans_a;
            on_cpu.trans_b = on_cuda.trans_b = trans_b;
            on_cpu.alpha = on_cuda.alpha = 0.5;
            on_cpu.beta = on_cuda.beta = beta;
            on_cpu.a = a.host.view();
            on_cuda.a = a.device();
            on_cpu.b = b.host.view();
            on_cuda.b = b.device();
            on_cpu.c = c.host.view();
            on_cuda.c = c.device();
            if (t.b == kF8) {
              const std::int64_t rows = ((trans_b ? n : k) + 127) / 128;
              const std::int64_t cols = ((trans_b ? k : n) + 127) / 128;
              on_cpu.b_scale = scale.host.view().slice_rows(0, rows).slice_cols(0, cols);
              on_cuda.b_scale = scale.device().slice_rows(0, rows).slice_cols(0, cols);
            }
            if (rank > 0) {
              on_cpu.low_rank_a = low_a.host.view();
              on_cuda.low_rank_a = low_a.device();
              on_cpu.low_rank_b = low_b.host.view();
              on_cuda.low_rank_b = low_b.device();
            }
            check(Gemm{std::span(&on_cuda, 1)});
            run(cuda, Gemm{std::span(&on_cuda, 1)});
            run(cpu, Gemm{std::span(&on_cpu, 1)});
            GuardedMatrix& got = c.download();
            // Both are rounded: twice the distance.
            const Comparison result =
                compare(got.view(), c.host.view(), tolerance_for(t.c, k, 2.0));
            CHECK_MESSAGE(result.ok, dtype_name(t.a) << " " << dtype_name(t.b) << " bits " << bits
                                                     << " rank " << rank << ": " << result.text);
            CHECK(got.intact());
          }
        }
      }
    }
  }
}

TEST_CASE("cuda: cast agrees with the CPU bit by bit") {
  if (!have_device()) return;
  CudaContext cuda(0);
  CpuContext cpu(2, kernels::detect_isa());
  for (const DType from : {kF32, kF64, kBF16, kF16, kF8}) {
    for (const DType to : {kF32, kF64, kBF16, kF16, kF8}) {
      for (const bool scaled : {false, true}) {
        if (scaled && from != kF8) continue;
        Mirrored src(cuda, from, 131, 140, 3), dst(cuda, to, 131, 140, 1), scale(cuda, kF32, 2, 2);
        fill_normal(src.host.view(), 1, 100.0);
        fill_normal(scale.host.view(), 2);
        for (Mirrored* each : {&src, &dst, &scale}) each->upload();
        const ConstView none;
        run(cuda, Cast{src.device(), scaled ? ConstView(scale.device()) : none, dst.device()});
        run(cpu,
            Cast{src.host.view(), scaled ? ConstView(scale.host.view()) : none, dst.host.view()});
        const Comparison result = compare(dst.download().view(), dst.host.view(), exactly());
        CHECK_MESSAGE(result.ok, dtype_name(from)
                                     << " to " << dtype_name(to) << ": " << result.text);
        CHECK(dst.back.intact());
      }
    }
  }
}

TEST_CASE("cuda: rms_norm agrees with the CPU") {
  if (!have_device()) return;
  CudaContext cuda(0);
  CpuContext cpu(2, kernels::detect_isa());
  for (const DType dtype : {kF32, kBF16, kF64}) {
    const DType stats = kernels::statistics_dtype(dtype);
    for (const std::int64_t dim : {1, 100, 515}) {
      const std::int64_t tokens = 37;
      Mirrored x(cuda, dtype, tokens, dim, 3), weight(cuda, stats, 1, dim),
          y(cuda, dtype, tokens, dim);
      Mirrored rstd(cuda, stats, 1, tokens), dy(cuda, dtype, tokens, dim),
          dx(cuda, dtype, tokens, dim);
      Mirrored dweight(cuda, stats, 1, dim);
      std::uint64_t seed = 1;
      for (Mirrored* each : {&x, &weight, &y, &rstd, &dy, &dx, &dweight}) {
        fill_normal(each->host.view(), seed++);
        each->upload();
      }
      run(cuda, RmsNormForward{x.device(), weight.device_vector(), y.device(), rstd.device_vector(),
                               1e-6});
      run(cpu, RmsNormForward{x.host.view(), weight.host.vector(), y.host.view(),
                              rstd.host.vector(), 1e-6});
      // The normalised value may be rounded the other way before the weight multiplies it.
      const Comparison forward =
          compare(y.download().view(), y.host.view(), tolerance_for(dtype, dim, 4.0));
      CHECK_MESSAGE(forward.ok, forward.text);
      CHECK(y.back.intact());
      for (const bool accumulate : {false, true}) {
        run(cuda,
            RmsNormBackward{dy.device(), x.device(), weight.device_vector(), rstd.device_vector(),
                            dx.device(), accumulate, dweight.device_vector()});
        run(cpu,
            RmsNormBackward{dy.host.view(), x.host.view(), weight.host.vector(), rstd.host.vector(),
                            dx.host.view(), accumulate, dweight.host.vector()});
        const Comparison input =
            compare(dx.download().view(), dx.host.view(), tolerance_for(dtype, dim, 4.0));
        CHECK_MESSAGE(input.ok, input.text);
        const Comparison gradient = compare(dweight.download().view(), dweight.host.view(),
                                            tolerance_for(dtype, tokens, 4.0));
        CHECK_MESSAGE(gradient.ok, gradient.text);
        CHECK(dx.back.intact());
        CHECK(dweight.back.intact());
      }
    }
  }
}

}  // namespace
}  // namespace ds::test
