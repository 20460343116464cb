// Gemm on the CPU against an f64 reference computed here.
#include "kernels/gemm.h"

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/kernels/harness.h"
#include "tests/support/buffers.h"
#include "tests/support/compare.h"

namespace ds::test {
namespace {

using kernels::Cost;
using kernels::CpuContext;
using kernels::Gemm;
using kernels::GemmProblem;
using kernels::Isa;

struct Spec {
  std::int64_t m = 5, n = 7, k = 9;
  DType a = DType::kF32, b = DType::kF32, c = DType::kF32;
  DType scale = DType::kF32;
  bool trans_a = false, trans_b = true;
  double alpha = 1.0, beta = 0.0;
  std::int64_t rank = 0;
  std::int64_t gap = 0;  // elements between rows of every operand
  std::int64_t b_row0 = 0;

  std::string text() const {
    std::string s =
        "m " + std::to_string(m) + " n " + std::to_string(n) + " k " + std::to_string(k);
    s += " a " + std::string(dtype_name(a)) + (trans_a ? "^T" : "");
    s += " b " + std::string(dtype_name(b)) + (trans_b ? "^T" : "");
    s += " c " + std::string(dtype_name(c)) + " alpha " + std::to_string(alpha) + " beta " +
         std::to_string(beta) + " rank " + std::to_string(rank) + " gap " + std::to_string(gap) +
         " b_row0 " + std::to_string(b_row0) + " scale " + std::string(dtype_name(scale));
    return s;
  }
};

// The operands of one product and what c must become.
class Case {
 public:
  explicit Case(const Spec& spec, std::uint64_t seed = 1)
      : spec_(spec),
        a_(spec.a, spec.trans_a ? spec.k : spec.m, spec.trans_a ? spec.m : spec.k, spec.gap),
        b_(spec.b, spec.trans_b ? spec.n : spec.k, spec.trans_b ? spec.k : spec.n, spec.gap),
        c_(spec.c, spec.m, spec.n, spec.gap),
        low_a_(low_a_dtype(), spec.m, spec.rank, spec.gap),
        low_b_(low_b_dtype(), spec.trans_b ? spec.n : spec.rank, spec.trans_b ? spec.rank : spec.n,
               spec.gap) {
    problem_.a = a_.view();
    problem_.b = b_.view();
    problem_.c = c_.view();
    problem_.trans_a = spec.trans_a;
    problem_.trans_b = spec.trans_b;
    problem_.alpha = spec.alpha;
    problem_.beta = spec.beta;
    problem_.b_row0 = spec.b_row0;
    fill_normal(a_.view(), seed);
    fill_normal(b_.view(), seed + 1);
    // c holds values that beta = 0 must not read.
    if (spec.beta == 0.0) {
      fill(c_.view(), std::nan(""));
    } else {
      fill_normal(c_.view(), seed + 2);
    }
    if (spec.b == DType::kF8E4M3) {
      const View b = b_.view();
      scale_ = std::make_unique<GuardedMatrix>(spec.scale, (spec.b_row0 + b.rows() + 127) / 128,
                                               (b.cols() + 127) / 128, spec.gap);
      TestRandom random(seed + 3);
      for (std::int64_t r = 0; r < scale_->view().rows(); ++r) {
        for (std::int64_t col = 0; col < scale_->view().cols(); ++col) {
          set_element(scale_->view(), r, col, 0.25 + random.uniform());
        }
      }
      problem_.b_scale = scale_->view();
    }
    if (spec.rank > 0) {
      fill_normal(low_a_.view(), seed + 4);
      fill_normal(low_b_.view(), seed + 5);
      problem_.low_rank_a = low_a_.view();
      problem_.low_rank_b = low_b_.view();
    }
    reference();
  }

  const GemmProblem& problem() const { return problem_; }
  Comparison result() {
    const DType sums = spec_.c == DType::kF64 ? DType::kF64 : DType::kF32;
    static_cast<void>(sums);
    return compare(c_.view(), want_, tolerance_for(spec_.c, spec_.k + spec_.rank + 1));
  }
  bool intact() const { return c_.intact() && a_.intact() && b_.intact(); }
  const std::vector<unsigned char>& bytes() const { return c_.bytes(); }
  std::string text() const { return spec_.text(); }

 private:
  DType low_a_dtype() const { return spec_.a; }
  DType low_b_dtype() const { return spec_.c == DType::kF64 ? DType::kF64 : DType::kF32; }

  double b_at(std::int64_t row, std::int64_t col) const {
    const double value = element(problem_.b, row, col);
    if (!problem_.b_scale) return value;
    return value * element(problem_.b_scale, (spec_.b_row0 + row) / 128, col / 128);
  }
  void reference() {
    for (std::int64_t i = 0; i < spec_.m; ++i) {
      for (std::int64_t j = 0; j < spec_.n; ++j) {
        double total = 0.0;
        for (std::int64_t k = 0; k < spec_.k; ++k) {
          const double a = spec_.trans_a ? element(problem_.a, k, i) : element(problem_.a, i, k);
          total += a * (spec_.trans_b ? b_at(j, k) : b_at(k, j));
        }
        total *= spec_.alpha;
        if (spec_.beta != 0.0) total += element(problem_.c, i, j);
        for (std::int64_t r = 0; r < spec_.rank; ++r) {
          total += element(problem_.low_rank_a, i, r) * (spec_.trans_b
                                                             ? element(problem_.low_rank_b, j, r)
                                                             : element(problem_.low_rank_b, r, j));
        }
        want_.push_back(total);
      }
    }
  }

  Spec spec_;
  GuardedMatrix a_, b_, c_, low_a_, low_b_;
  std::unique_ptr<GuardedMatrix> scale_;
  GemmProblem problem_;
  std::vector<double> want_;
};

void expect_right(CpuContext& context, const Spec& spec, std::uint64_t seed = 1) {
  Case one(spec, seed);
  const Gemm op{std::span(&one.problem(), 1)};
  check(op);
  run(context, op);
  const Comparison result = one.result();
  CHECK_MESSAGE(result.ok, one.text() << ": " << result.text);
  CHECK_MESSAGE(one.intact(), one.text() << ": bytes outside c were written");
}

struct Types {
  DType a, b, c;
};
constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16, kF16 = DType::kF16, kF64 = DType::kF64,
                kF8 = DType::kF8E4M3;

std::vector<Types> all_types() {
  std::vector<Types> types = {{kF64, kF64, kF64}};
  for (const DType a : {kF32, kBF16}) {
    for (const DType b : {kF32, kBF16, kF16, kF8}) {
      for (const DType c : {kF32, kBF16}) types.push_back({a, b, c});
    }
  }
  return types;
}

TEST_CASE("gemm: every dtype, transposition, odd sizes, strides, alpha, beta, low rank") {
  for (const Isa isa : available_isas()) {
    for (const int threads : {1, 2, 3}) {
      CpuContext context(threads, isa);
      for (const Types& t : all_types()) {
        for (const int bits : {0, 1, 2, 3}) {
          Spec spec;
          spec.a = t.a;
          spec.b = t.b;
          spec.c = t.c;
          spec.trans_a = (bits & 1) != 0;
          spec.trans_b = (bits & 2) != 0;
          spec.m = 37;
          spec.n = 83;
          spec.k = 61;
          expect_right(context, spec);
          spec.gap = 3;
          spec.alpha = -0.75;
          spec.beta = 1.0;
          expect_right(context, spec);
          spec.rank = 5;
          expect_right(context, spec);
          spec.beta = 0.0;
          expect_right(context, spec);
        }
      }
    }
  }
}

TEST_CASE("gemm: one to five rows, every dtype") {
  for (const Isa isa : available_isas()) {
    for (const int threads : {1, 2}) {
      CpuContext context(threads, isa);
      for (const Types& t : all_types()) {
        for (std::int64_t m = 1; m <= 5; ++m) {
          for (const int bits : {0, 1, 2, 3}) {
            Spec spec;
            spec.m = m;
            spec.n = 77;
            spec.k = 201;
            spec.a = t.a;
            spec.b = t.b;
            spec.c = t.c;
            spec.trans_a = (bits & 1) != 0;
            spec.trans_b = (bits & 2) != 0;
            spec.alpha = 1.5;
            expect_right(context, spec);
            spec.beta = 1.0;
            spec.rank = 3;
            spec.gap = 1;
            expect_right(context, spec);
          }
        }
      }
    }
  }
}

TEST_CASE("gemm: one column, one row, one step") {
  CpuContext context(2, kernels::detect_isa());
  for (const Types& t : all_types()) {
    for (const bool trans_b : {false, true}) {
      for (const int which : {0, 1, 2, 3}) {
        Spec spec;
        spec.a = t.a;
        spec.b = t.b;
        spec.c = t.c;
        spec.trans_b = trans_b;
        spec.m = which == 0 || which == 3 ? 1 : 19;
        spec.n = which == 1 || which == 3 ? 1 : 23;
        spec.k = which == 2 || which == 3 ? 1 : 29;
        expect_right(context, spec);
      }
    }
  }
}

TEST_CASE("gemm: weight gradients of adapters") {
  for (const Isa isa : available_isas()) {
    for (const int threads : {1, 2, 3}) {
      CpuContext context(threads, isa);
      for (const std::int64_t rank : {1, 2, 3, 4, 5, 8, 12, 13}) {
        for (const bool rank_rows : {false, true}) {
          for (const std::int64_t width : {1, 7, 40, 847}) {
            Spec spec;
            spec.m = rank_rows ? rank : width;
            spec.n = rank_rows ? width : rank;
            spec.k = 75;
            spec.trans_a = true;
            spec.trans_b = false;
            expect_right(context, spec);
            spec.alpha = -0.75;
            spec.beta = 1.0;
            spec.gap = 3;
            expect_right(context, spec);
          }
        }
      }
    }
  }
}

TEST_CASE("gemm: FP8 blocks, ragged edges, rows of a larger weight") {
  for (const Isa isa : available_isas()) {
    CpuContext context(2, isa);
    for (const DType scale : {kF32, kBF16, DType::kF8E8M0}) {
      for (const DType a : {kF32, kBF16}) {
        for (const bool trans_b : {false, true}) {
          for (const std::int64_t row0 : {0, 1, 127, 128, 300}) {
            for (const std::int64_t m : {2, 21}) {
              Spec spec;
              spec.m = m;
              spec.n = 200;
              spec.k = 300;
              spec.a = a;
              spec.b = kF8;
              spec.scale = scale;
              spec.trans_b = trans_b;
              spec.b_row0 = row0;
              spec.gap = 2;
              expect_right(context, spec);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("gemm: every FP8 code keeps its value") {
  std::vector<kernels::fp8_e4m3> codes(256);
  for (std::size_t i = 0; i < 256; ++i) codes[i].bits = static_cast<std::uint8_t>(i);
  const std::vector<float> scale = {0.75f, 3.0f};
  const std::vector<float> ones(8, 1.0f);
  for (const Isa isa : available_isas()) {
    CpuContext context(1, isa);
    for (const std::int64_t m : {1, 8}) {
      std::vector<float> c(static_cast<std::size_t>(m) * 256);
      GemmProblem problem;
      problem.a = ConstView(ones.data(), kF32, {m, 1});
      problem.b = ConstView(codes.data(), kF8, {1, 256});
      problem.b_scale = ConstView(scale.data(), kF32, {1, 2});
      problem.c = View(c.data(), kF32, {m, 256});
      check(Gemm{std::span(&problem, 1)});
      run(context, Gemm{std::span(&problem, 1)});
      std::int64_t wrong = 0;
      for (std::size_t i = 0; i < c.size(); ++i) {
        const float want = static_cast<float>(codes[i % 256]) * scale[i % 256 / 128];
        wrong += (std::isnan(want) ? !std::isnan(c[i]) : c[i] != want) ? 1 : 0;
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("gemm: empty problems and empty sums") {
  CpuContext context(2, kernels::detect_isa());
  run(context, Gemm{});
  for (const Types& t : all_types()) {
    for (const std::int64_t m : {2, 20}) {
      for (const double beta : {0.0, 1.0}) {
        for (const std::int64_t rank : {0, 4}) {
          Spec spec;
          spec.a = t.a;
          spec.b = t.b;
          spec.c = t.c;
          spec.m = m;
          spec.k = 0;
          spec.beta = beta;
          spec.rank = rank;
          expect_right(context, spec);
        }
      }
    }
    for (const bool no_rows : {false, true}) {
      Spec spec;
      spec.a = t.a;
      spec.b = t.b;
      spec.c = t.c;
      spec.m = no_rows ? 0 : 6;
      spec.n = no_rows ? 6 : 0;
      Case one(spec);
      const Gemm op{std::span(&one.problem(), 1)};
      check(op);
      run(context, op);
      CHECK(one.intact());
    }
  }
}

// Experts: many problems of different sizes, some without rows, all dtypes in one call.
std::vector<std::unique_ptr<Case>> many_cases(std::int64_t largest) {
  std::vector<std::unique_ptr<Case>> cases;
  const std::vector<Types> types = all_types();
  TestRandom random(7);
  for (int i = 0; i < 60; ++i) {
    Spec spec;
    const Types& t = types[static_cast<std::size_t>(i) % types.size()];
    spec.a = t.a;
    spec.b = t.b;
    spec.c = t.c;
    spec.m = static_cast<std::int64_t>(random.next() % static_cast<std::uint64_t>(largest));
    spec.n = 1 + static_cast<std::int64_t>(random.next() % 150);
    spec.k = 1 + static_cast<std::int64_t>(random.next() % 150);
    spec.rank = i % 3 == 0 ? 4 : 0;
    spec.beta = i % 4 == 0 ? 1.0 : 0.0;
    spec.trans_a = i % 5 == 0;
    spec.trans_b = i % 7 != 0;
    cases.push_back(std::make_unique<Case>(spec, static_cast<std::uint64_t>(i) * 10));
  }
  return cases;
}

TEST_CASE("gemm: many problems in one call") {
  for (const int threads : {1, 2, 5, 16}) {
    CpuContext context(threads, kernels::detect_isa());
    for (const std::int64_t largest : {3, 60}) {
      const auto cases = many_cases(largest);
      std::vector<GemmProblem> problems;
      for (const auto& one : cases) problems.push_back(one->problem());
      const Gemm op{problems};
      check(op);
      run(context, op);
      for (const auto& one : cases) {
        const Comparison result = one->result();
        CHECK_MESSAGE((result.ok || one->problem().c.size() == 0), one->text()
                                                                       << ": " << result.text);
        CHECK(one->intact());
      }
    }
  }
}

TEST_CASE("gemm: large enough to be cut into panels and chunks") {
  for (const int threads : {1, 2, 16}) {
    CpuContext context(threads, kernels::detect_isa());
    for (const Types& t : all_types()) {
      Spec spec;
      spec.a = t.a;
      spec.b = t.b;
      spec.c = t.c;
      spec.m = 150;
      spec.n = 130;
      spec.k = 70;
      spec.rank = 8;
      expect_right(context, spec);
    }
    Spec aliased;  // rows of a are 2 KiB apart: a is copied first
    aliased.trans_a = true;
    aliased.m = 512;
    aliased.n = 70;
    aliased.k = 21;
    for (const DType a : {kF32, kBF16}) {
      aliased.a = a;
      aliased.trans_b = !aliased.trans_b;
      expect_right(context, aliased);
    }
    Spec deep;  // the widened panel is at its smallest width
    deep.m = 9;
    deep.n = 150;
    deep.k = 5000;
    deep.b = kBF16;
    expect_right(context, deep);
    deep.trans_b = false;
    expect_right(context, deep);
  }
}

TEST_CASE("gemm: a call whose widened inputs are too large for one pass") {
  // 16 Mi floats of widened a fit one pass; three slabs of this a do not.
  const std::int64_t rows = 4200, depth = 8192;
  std::vector<kernels::bf16> a(static_cast<std::size_t>(rows * depth));
  std::vector<float> b(static_cast<std::size_t>(depth)),
      c(static_cast<std::size_t>(2 * rows), -1.0f);
  for (std::int64_t r = 0; r < rows; ++r) {
    a[static_cast<std::size_t>(r * depth + r % depth)] = kernels::bf16(static_cast<float>(r % 251));
  }
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i % 31);
  std::vector<GemmProblem> problems(2);
  for (int i = 0; i < 2; ++i) {
    problems[static_cast<std::size_t>(i)].a = ConstView(a.data(), kBF16, {rows, depth});
    problems[static_cast<std::size_t>(i)].b = ConstView(b.data(), kF32, {1, depth});
    problems[static_cast<std::size_t>(i)].c = View(c.data() + i * rows, kF32, {rows, 1});
    problems[static_cast<std::size_t>(i)].trans_b = true;
  }
  CpuContext context(2, kernels::detect_isa());
  run(context, Gemm{problems});
  CHECK(context.scratch_bytes() < (std::size_t{80} << 20));
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < 2 * rows; ++i) {
    const std::int64_t r = i % rows;
    const auto want = static_cast<float>((r % 251) * ((r % depth) % 31));
    if (c[static_cast<std::size_t>(i)] != want) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("gemm: NaN and infinity stay where they belong") {
  CpuContext context(2, kernels::detect_isa());
  for (const std::int64_t m : {3, 12}) {
    Spec spec;
    spec.m = m;
    spec.n = 40;
    spec.k = 33;
    spec.b = kBF16;
    Case one(spec);
    set_element(View(const_cast<void*>(one.problem().a.data()), kF32, {spec.m, spec.k}), 1, 4,
                std::nan(""));
    set_element(View(const_cast<void*>(one.problem().b.data()), kBF16, {spec.n, spec.k}), 7, 2,
                HUGE_VAL);
    run(context, Gemm{std::span(&one.problem(), 1)});
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < spec.m; ++i) {
      for (std::int64_t j = 0; j < spec.n; ++j) {
        const double value = element(one.problem().c, i, j);
        const bool right =
            i == 1 ? std::isnan(value) : (j == 7 ? std::isinf(value) : std::isfinite(value));
        if (!right) ++wrong;
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("gemm: the same context settings give the same bits") {
  for (const int threads : {1, 2, 7}) {
    std::vector<std::vector<unsigned char>> seen;
    for (int repeat = 0; repeat < 3; ++repeat) {
      CpuContext context(threads, kernels::detect_isa());
      const auto cases = many_cases(80);
      std::vector<GemmProblem> problems;
      for (const auto& one : cases) problems.push_back(one->problem());
      run(context, Gemm{problems});
      if (seen.empty()) {
        for (const auto& one : cases) seen.push_back(one->bytes());
        continue;
      }
      std::size_t different = 0;
      for (std::size_t i = 0; i < cases.size(); ++i)
        different += seen[i] != cases[i]->bytes() ? 1 : 0;
      CHECK(different == 0);
    }
  }
}

TEST_CASE("gemm: the steady state allocates no scratch") {
  CpuContext context(2, kernels::detect_isa());
  Spec spec;
  spec.m = 64;
  spec.n = 200;
  spec.k = 100;
  spec.a = spec.b = spec.c = kBF16;
  Case one(spec);
  run(context, Gemm{std::span(&one.problem(), 1)});
  const std::size_t bytes = context.scratch_bytes();
  CHECK(bytes > 0);
  run(context, Gemm{std::span(&one.problem(), 1)});
  CHECK(context.scratch_bytes() == bytes);
}

TEST_CASE("gemm: check names what is wrong") {
  const auto message = [](auto&& change) {
    Spec spec;
    Case one(spec);
    GemmProblem problem = one.problem();
    change(problem);
    try {
      check(Gemm{std::span(&problem, 1)});
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  CHECK(message([](GemmProblem&) {}) == "accepted");
  CHECK(message([](GemmProblem& p) { p.a = ConstView(); }).starts_with("gemm: problem 0: a "));
  CHECK(message([](GemmProblem& p) {
          p.trans_b = false;
        }).starts_with("gemm: problem 0: b is [7, 9]"));
  CHECK(message([](GemmProblem& p) { p.beta = 0.5; }).find("beta") != std::string::npos);
  CHECK(message([](GemmProblem& p) {
          p.b = ConstView(p.b.data(), DType::kF8E4M3, {7, 9});
        }).find("b_scale") != std::string::npos);
  CHECK(message([](GemmProblem& p) {
          p.b = ConstView(p.b.data(), DType::kF64, {7, 9});
        }).find("b is F64") != std::string::npos);
  CHECK(message([](GemmProblem& p) { p.low_rank_a = p.a; }).find("together") != std::string::npos);
  CHECK(message([](GemmProblem& p) {
          p.b = ConstView(p.b.data(), DType::kF8E4M3, {7, 9});
          p.b_scale = ConstView(p.a.data(), DType::kF32, {1, 1});
          p.b_row0 = 122;
        }).find("b_scale is [1, 1]") != std::string::npos);
}

TEST_CASE("gemm: cost") {
  Spec spec;
  spec.m = 4;
  spec.n = 6;
  spec.k = 10;
  spec.rank = 2;
  spec.b = kBF16;
  Case one(spec);
  const Cost total = cost(Gemm{std::span(&one.problem(), 1)});
  CHECK(total.flops == 2.0 * 4 * 6 * 12);
  CHECK(total.bytes == 4.0 * (4 * 10 + 4 * 2 + 6 * 2 + 4 * 6) + 2.0 * 6 * 10);
}

}  // namespace
}  // namespace ds::test
