// Rate of Gemm against the matrix library threading one product itself, and against one thread.
//   kernel_gemm [repetitions [name]]
// Shapes of DeepSeek layers at 2048 tokens; every line is the best of the repetitions, so that
// other load on the machine disturbs the comparison as little as it can.
#include <dnnl.h>
#include <fmt/core.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "kernels/gemm.h"

namespace {

using ds::kernels::bf16;
using ds::kernels::ConstView;
using ds::kernels::CpuContext;
using ds::kernels::DType;
using ds::kernels::Gemm;
using ds::kernels::GemmProblem;
using ds::kernels::View;

int g_repetitions = 7;

struct Shape {
  const char* name;
  std::int64_t m, n, k;
  int problems = 1;
  DType a = DType::kF32;
  DType b = DType::kF32;
  DType c = DType::kF32;
  bool trans_a = false;
  bool trans_b = true;
  std::int64_t rank = 0;
};

class Operands {
 public:
  explicit Operands(const Shape& s) : shape_(s) {
    const auto count = static_cast<std::size_t>(s.problems);
    fill(a_, s.a, count * static_cast<std::size_t>(s.m * s.k));
    fill(b_, s.b, count * static_cast<std::size_t>(s.n * s.k));
    fill(low_a_, DType::kF32, count * static_cast<std::size_t>(s.m * s.rank));
    fill(low_b_, DType::kF32, count * static_cast<std::size_t>(s.n * s.rank));
    fill(scale_, DType::kF32, static_cast<std::size_t>(((s.n + 127) / 128) * ((s.k + 127) / 128)));
    c_.resize(count * static_cast<std::size_t>(s.m * s.n) *
              static_cast<std::size_t>(dtype_size(s.c)));
    for (std::int64_t i = 0; i < s.problems; ++i) {
      GemmProblem p;
      p.a = ConstView(a_.data() + i * s.m * s.k * dtype_size(s.a), s.a,
                      {s.trans_a ? s.k : s.m, s.trans_a ? s.m : s.k});
      p.b = ConstView(b_.data() + i * s.n * s.k * dtype_size(s.b), s.b,
                      {s.trans_b ? s.n : s.k, s.trans_b ? s.k : s.n});
      p.c = View(c_.data() + i * s.m * s.n * dtype_size(s.c), s.c, {s.m, s.n});
      p.trans_a = s.trans_a;
      p.trans_b = s.trans_b;
      if (s.b == DType::kF8E4M3) {
        p.b_scale = ConstView(
            scale_.data(), DType::kF32,
            {((s.trans_b ? s.n : s.k) + 127) / 128, ((s.trans_b ? s.k : s.n) + 127) / 128});
      }
      if (s.rank > 0) {
        p.low_rank_a = ConstView(low_a_.data() + i * s.m * s.rank * 4, DType::kF32, {s.m, s.rank});
        p.low_rank_b = ConstView(low_b_.data() + i * s.n * s.rank * 4, DType::kF32,
                                 {s.trans_b ? s.n : s.rank, s.trans_b ? s.rank : s.n});
      }
      problems_.push_back(p);
    }
  }

  void ours(CpuContext& context) { run(context, Gemm{problems_}); }
  // F32 operands only: the library, one product after another.
  void library() {
    for (const GemmProblem& p : problems_) {
      dnnl_sgemm(p.trans_a ? 'T' : 'N', p.trans_b ? 'T' : 'N', shape_.m, shape_.n, shape_.k, 1.0f,
                 p.a.as<float>(), p.a.row_stride(), p.b.as<float>(), p.b.row_stride(), 0.0f,
                 p.c.as<float>(), p.c.row_stride());
    }
  }

 private:
  static void fill(std::vector<std::byte>& bytes, DType dtype, std::size_t count) {
    bytes.resize(count * static_cast<std::size_t>(dtype_size(dtype)));
    for (std::size_t i = 0; i < count; ++i) {
      const float value = static_cast<float>((i * 2654435761u) % 1000) * 0.002f - 1.0f;
      if (dtype == DType::kF32) {
        reinterpret_cast<float*>(bytes.data())[i] = value;
      } else if (dtype == DType::kBF16) {
        reinterpret_cast<bf16*>(bytes.data())[i] = bf16(value);
      } else {
        reinterpret_cast<ds::kernels::fp8_e4m3*>(bytes.data())[i] = ds::kernels::fp8_e4m3(value);
      }
    }
  }

  Shape shape_;
  std::vector<std::byte> a_, b_, c_, low_a_, low_b_, scale_;
  std::vector<GemmProblem> problems_;
};

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
// Of the calling thread: what one thread's product costs, whoever else uses the machine.
double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <class F>
double best_seconds(double (*clock)(), F&& f) {
  f();
  double best = 1e30;
  for (int i = 0; i < g_repetitions; ++i) {
    const double begin = clock();
    f();
    best = std::min(best, clock() - begin);
  }
  return best;
}

void measure(const Shape& s, int most_threads) {
  Operands operands(s);
  const double flops = 2.0 * s.problems * static_cast<double>(s.m) * static_cast<double>(s.n) *
                       static_cast<double>(s.k + s.rank);
  CpuContext one(1, ds::kernels::detect_isa());
  CpuContext all(most_threads, ds::kernels::detect_isa());
  const double ours_one = flops / best_seconds(cpu_seconds, [&] { operands.ours(one); }) * 1e-9;
  const double ours_all = flops / best_seconds(wall_seconds, [&] { operands.ours(all); }) * 1e-9;
  double library_one = 0.0, library_all = 0.0;
  if (s.a == DType::kF32 && s.b == DType::kF32 && s.c == DType::kF32 && s.rank == 0) {
    omp_set_num_threads(1);
    library_one = flops / best_seconds(cpu_seconds, [&] { operands.library(); }) * 1e-9;
    omp_set_num_threads(most_threads);
    library_all = flops / best_seconds(wall_seconds, [&] { operands.library(); }) * 1e-9;
  }
  fmt::print("{:<26} {:>3} x {:>4} x {:>5} x {:>4} {:>10.1f} {:>10.1f} {:>10.1f} {:>10.1f}\n",
             s.name, s.problems, s.m, s.n, s.k, ours_one, library_one, ours_all, library_all);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) g_repetitions = std::max(1, std::atoi(argv[1]));
  const int threads = omp_get_max_threads();
  constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16, kF8 = DType::kF8E4M3;
  const std::vector<Shape> shapes = {
      {"f32", 2048, 512, 512},
      {"f32", 2048, 2048, 2048},
      {"f32", 2048, 256, 512},
      {"f32", 2048, 16384, 512},
      {"f32 not trans_b", 2048, 512, 512, 1, kF32, kF32, kF32, false, false},
      {"f32 weight gradient", 512, 512, 2048, 1, kF32, kF32, kF32, true, false},
      {"f32 weight gradient", 2048, 2048, 2048, 1, kF32, kF32, kF32, true, false},
      {"adapter x A^T", 2048, 8, 512},
      {"adapter x A^T", 2048, 8, 2048},
      {"adapter dY B", 2048, 8, 512, 1, kF32, kF32, kF32, false, false},
      {"adapter dA", 8, 512, 2048, 1, kF32, kF32, kF32, true, false},
      {"adapter dB", 512, 8, 2048, 1, kF32, kF32, kF32, true, false},
      {"adapter x A^T bf16", 2048, 8, 512, 1, kBF16, kF32, kF32},
      {"adapter experts x A^T", 64, 8, 512, 32},
      {"adapter experts dA", 8, 512, 64, 32, kF32, kF32, kF32, true, false},
      {"adapter experts dB", 512, 8, 64, 32, kF32, kF32, kF32, true, false},
      {"f32 rank 8", 2048, 512, 512, 1, kF32, kF32, kF32, false, true, 8},
      {"f32 rank 8", 2048, 2048, 2048, 1, kF32, kF32, kF32, false, true, 8},
      {"f32 experts", 64, 512, 512, 32},
      {"f32 experts rank 8", 64, 512, 512, 32, kF32, kF32, kF32, false, true, 8},
      {"b bf16", 2048, 512, 512, 1, kF32, kBF16},
      {"b bf16", 2048, 2048, 2048, 1, kF32, kBF16},
      {"b bf16", 2048, 256, 512, 1, kF32, kBF16},
      {"b bf16", 2048, 16384, 512, 1, kF32, kBF16},
      {"b bf16 experts", 64, 512, 512, 32, kF32, kBF16},
      {"b bf16 experts rank 8", 64, 512, 512, 32, kF32, kBF16, kF32, false, true, 8},
      {"all bf16", 2048, 512, 512, 1, kBF16, kBF16, kBF16},
      {"all bf16", 2048, 2048, 2048, 1, kBF16, kBF16, kBF16},
      {"all bf16 experts", 64, 512, 512, 32, kBF16, kBF16, kBF16},
      {"b fp8", 2048, 2048, 2048, 1, kF32, kF8},
      {"b fp8 experts", 64, 512, 512, 32, kF32, kF8},
      {"decode f32", 1, 2048, 2048, 1, kF32, kF32},
      {"decode b bf16", 1, 2048, 2048, 1, kF32, kBF16},
      {"decode b fp8", 1, 2048, 2048, 1, kF32, kF8},
      {"decode 4 b bf16", 4, 2048, 2048, 1, kF32, kBF16},
  };
  fmt::print("{}, {} threads; GFLOP/s, best of {}\n", ds::kernels::matrix_library_description(),
             threads, g_repetitions);
  fmt::print("{:<26} {:<26} {:>10} {:>10} {:>10} {:>10}\n", "", "problems x M x N x K", "ours 1",
             "library 1", "ours all", "library all");
  for (const Shape& s : shapes) {
    if (argc < 3 || std::string(s.name) == argv[2]) measure(s, threads);
  }
  return 0;
}
