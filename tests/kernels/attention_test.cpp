#include "kernels/attention.h"

#include <cmath>

#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"
#include "tests/support/gradcheck.h"

namespace ds::test {
namespace {

using kernels::AttentionBackward;
using kernels::AttentionDecode;
using kernels::AttentionForward;
using kernels::MlaShape;

struct Layout {
  MlaShape shape;
  std::int64_t tokens;
  std::vector<std::int32_t> segments;
};
const Layout kLayouts[] = {
    {{1, 1, 1, 1}, 1, {0, 1}},
    {{3, 7, 4, 5}, 9, {2, 3, 3, 8}},              // uncovered rows on both ends, length 0 and 1
    {{2, 16, 8, 12}, 230, {0, 1, 71, 200, 227}},  // several query blocks of odd size
    {{1, 8, 4, 8}, 560, {0, 540, 555}},           // more than one block of keys
    {{1, 5, 3, 4}, 4, {0, 0}},                    // nothing but an empty segment
};

// The operands of one layout; rows are strided by the setting's gap.
struct Operands {
  GuardedMatrix q, kv, k_rope, segments, d_o, o, lse, dq, dkv, dk_rope;
  MlaShape shape;
  double scale = 0.3;

  Operands(DType dtype, const Layout& layout, std::int64_t gap)
      : q(random_matrix(dtype, layout.tokens, width(layout.shape, layout.shape.rope), gap, 1)),
        kv(random_matrix(dtype, layout.tokens, width(layout.shape, layout.shape.value), gap, 2)),
        k_rope(random_matrix(dtype, layout.tokens, layout.shape.rope, gap, 3)),
        segments(index_vector(layout.segments)),
        d_o(random_matrix(dtype, layout.tokens, layout.shape.heads * layout.shape.value, gap, 4)),
        o(dtype, layout.tokens, layout.shape.heads * layout.shape.value, gap),
        lse(kernels::statistics_dtype(dtype), layout.shape.heads, layout.tokens, gap),
        dq(dtype, q.view().rows(), q.view().cols(), gap),
        dkv(dtype, kv.view().rows(), kv.view().cols(), gap),
        dk_rope(dtype, k_rope.view().rows(), k_rope.view().cols(), gap),
        shape(layout.shape) {}
  static std::int64_t width(const MlaShape& s, int part) {
    return static_cast<std::int64_t>(s.heads) * (s.nope + part);
  }
  AttentionForward forward() {
    return {shape,    scale,     q.view(), kv.view(), k_rope.view(), segments.vector(),
            o.view(), lse.view()};
  }
  AttentionBackward backward() {
    return {shape,    scale,      q.view(),   kv.view(), k_rope.view(), segments.vector(),
            o.view(), lse.view(), d_o.view(), dq.view(), dkv.view(),    dk_rope.view()};
  }
  bool intact() const {
    return o.intact() && lse.intact() && dq.intact() && dkv.intact() && dk_rope.intact();
  }
};

struct Expected {
  Mat o, lse;
};
// One row at a time, as the formula stands.
Expected reference(Operands& x) {
  const MlaShape& s = x.shape;
  const Mat q(x.q.view()), kv(x.kv.view()), k_rope(x.k_rope.view()), offsets(x.segments.view());
  Expected e{Mat(q.rows, static_cast<std::int64_t>(s.heads) * s.value),
             Mat(s.heads, q.rows, -HUGE_VAL)};
  for (std::int64_t g = 0; g + 1 < offsets.cols; ++g) {
    const auto begin = static_cast<std::int64_t>(offsets(0, g));
    const auto end = static_cast<std::int64_t>(offsets(0, g + 1));
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t h = 0; h < s.heads; ++h) {
        std::vector<double> scores;
        double largest = -HUGE_VAL, sum = 0.0;
        for (std::int64_t j = begin; j <= i; ++j) {
          double score = 0.0;
          for (std::int64_t d = 0; d < s.nope; ++d) {
            score += q(i, h * (s.nope + s.rope) + d) * kv(j, h * (s.nope + s.value) + d);
          }
          for (std::int64_t d = 0; d < s.rope; ++d) {
            score += q(i, h * (s.nope + s.rope) + s.nope + d) * k_rope(j, d);
          }
          scores.push_back(score * x.scale);
          largest = std::max(largest, scores.back());
        }
        for (const double score : scores) sum += std::exp(score - largest);
        e.lse(h, i) = largest + std::log(sum);
        for (std::int64_t j = begin; j <= i; ++j) {
          const double p = std::exp(scores[static_cast<std::size_t>(j - begin)] - e.lse(h, i));
          for (std::int64_t d = 0; d < s.value; ++d) {
            e.o(i, h * s.value + d) += p * kv(j, h * (s.nope + s.value) + s.nope + d);
          }
        }
      }
    }
  }
  return e;
}

struct ExpectedGradients {
  Mat dq, dkv, dk_rope;
};
// From the given lse and o, as the kernel; probabilities are rounded where they multiply d_o.
ExpectedGradients reference_gradients(DType dtype, Operands& x) {
  const MlaShape& s = x.shape;
  const Mat q(x.q.view()), kv(x.kv.view()), k_rope(x.k_rope.view()), offsets(x.segments.view());
  const Mat o(x.o.view()), lse(x.lse.view()), d_o(x.d_o.view());
  ExpectedGradients e{Mat(q.rows, q.cols), Mat(kv.rows, kv.cols), Mat(k_rope.rows, k_rope.cols)};
  const std::int64_t key = s.nope + s.rope, pair = s.nope + s.value;
  for (std::int64_t g = 0; g + 1 < offsets.cols; ++g) {
    const auto begin = static_cast<std::int64_t>(offsets(0, g));
    const auto end = static_cast<std::int64_t>(offsets(0, g + 1));
    for (std::int64_t h = 0; h < s.heads; ++h) {
      for (std::int64_t i = begin; i < end; ++i) {
        double along = 0.0;
        for (std::int64_t d = 0; d < s.value; ++d) {
          along += d_o(i, h * s.value + d) * o(i, h * s.value + d);
        }
        for (std::int64_t j = begin; j <= i; ++j) {
          double score = 0.0, dp = 0.0;
          for (std::int64_t d = 0; d < key; ++d) {
            const double k = d < s.nope ? kv(j, h * pair + d) : k_rope(j, d - s.nope);
            score += q(i, h * key + d) * k;
          }
          for (std::int64_t d = 0; d < s.value; ++d) {
            dp += d_o(i, h * s.value + d) * kv(j, h * pair + s.nope + d);
          }
          const double p = std::exp(score * x.scale - lse(h, i));
          const double ds = p * (dp - along) * x.scale;
          for (std::int64_t d = 0; d < s.value; ++d) {
            e.dkv(j, h * pair + s.nope + d) += rounded(dtype, p) * d_o(i, h * s.value + d);
          }
          for (std::int64_t d = 0; d < s.nope; ++d) {
            e.dq(i, h * key + d) += ds * kv(j, h * pair + d);
            e.dkv(j, h * pair + d) += ds * q(i, h * key + d);
          }
          for (std::int64_t d = 0; d < s.rope; ++d) {
            e.dq(i, h * key + s.nope + d) += ds * k_rope(j, d);
            e.dk_rope(j, d) += ds * q(i, h * key + s.nope + d);
          }
        }
      }
    }
  }
  return e;
}

}  // namespace

void parity(Of<AttentionForward>) {
  for (const Layout& layout : kLayouts) {
    for_settings([&](const Setting& s) {
      CpuContext context = s.context();
      Operands x(s.dtype, layout, s.gap);
      const AttentionForward op = x.forward();
      check(op);
      run(context, op);
      const Expected want = reference(x);
      const std::int64_t length = layout.shape.nope + layout.shape.rope + layout.tokens;
      // BF16: each probability is rounded once before the product, the result once more.
      expect_close(x.o.view(), want.o, tolerance_for(s.dtype, length, 2.0));
      expect_close(x.lse.view(), want.lse, tolerance_for(s.statistics(), length));
      CHECK(x.o.intact());
      CHECK(x.lse.intact());
      const auto first = x.o.bytes();
      run(context, op);
      CHECK(first == x.o.bytes());
    });
  }
}

void parity(Of<AttentionBackward>) {
  for (const Layout& layout : kLayouts) {
    for_settings([&](const Setting& s) {
      CpuContext context = s.context();
      Operands x(s.dtype, layout, s.gap);
      run(context, x.forward());
      const AttentionBackward op = x.backward();
      check(op);
      run(context, op);
      const ExpectedGradients want = reference_gradients(s.dtype, x);
      const std::int64_t length = layout.shape.nope + layout.shape.rope + layout.tokens;
      const Tolerance tolerance = tolerance_for(s.dtype, length, 2.0);
      expect_close(x.dq.view(), want.dq, tolerance);
      expect_close(x.dkv.view(), want.dkv, tolerance);
      expect_close(x.dk_rope.view(), want.dk_rope, tolerance);
      CHECK(x.intact());
      const auto dq = x.dq.bytes(), dkv = x.dkv.bytes(), dk_rope = x.dk_rope.bytes();
      run(context, op);
      CHECK(dq == x.dq.bytes());
      CHECK(dkv == x.dkv.bytes());
      CHECK(dk_rope == x.dk_rope.bytes());
    });
  }
}

void gradient(Of<AttentionBackward>) {
  const Layout layouts[] = {{{2, 3, 2, 3}, 9, {1, 2, 2, 8}}, {{1, 2, 1, 2}, 70, {0, 67}}};
  for (const Layout& layout : layouts) {
    for (const int threads : {1, 2}) {
      CpuContext context(threads, kernels::detect_isa());
      Operands x(DType::kF64, layout, 1);
      const auto loss = [&] {
        run(context, x.forward());
        return inner(x.o.view(), x.d_o.view());
      };
      loss();
      run(context, x.backward());
      Comparison c = check_gradient(x.q.view(), x.dq.view(), loss);
      CHECK_MESSAGE(c.ok, "q: ", c.text);
      c = check_gradient(x.kv.view(), x.dkv.view(), loss);
      CHECK_MESSAGE(c.ok, "kv: ", c.text);
      c = check_gradient(x.k_rope.view(), x.dk_rope.view(), loss);
      CHECK_MESSAGE(c.ok, "k_rope: ", c.text);
    }
  }
}

void parity(Of<AttentionDecode>) {
  struct Size {
    int heads, latent, rope;
    std::vector<std::int32_t> visible;
  };
  for (const Size& size : {Size{1, 1, 1, {1}}, Size{11, 24, 6, {1, 7, 600}}}) {
    for_settings([&](const Setting& s) {
      CpuContext context = s.context();
      const auto rows = static_cast<std::int64_t>(size.visible.size());
      const std::int64_t stride = size.rope + 5, offset = 2;
      GuardedMatrix q = random_matrix(s.dtype, rows, size.heads * size.latent, s.gap, 1);
      GuardedMatrix q_rope = random_matrix(s.dtype, rows, size.heads * stride + offset, s.gap, 2);
      GuardedMatrix o(s.dtype, rows, size.heads * size.latent, s.gap);
      std::vector<GuardedMatrix> memory;
      std::vector<ConstView> caches;
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int64_t entries = size.visible[static_cast<std::size_t>(r)] + 2;
        memory.push_back(random_matrix(s.dtype, entries, size.latent + size.rope, s.gap,
                                       10 + static_cast<std::uint64_t>(r)));
      }
      for (GuardedMatrix& m : memory) caches.push_back(m.view());
      const AttentionDecode op{size.heads, size.latent,   size.rope, 0.3,
                               q.view(),   q_rope.view(), stride,    offset,
                               caches,     size.visible,  o.view()};
      check(op);
      run(context, op);
      const Mat latent(q.view()), rope(q_rope.view());
      Mat want(rows, size.heads * size.latent);
      for (std::int64_t r = 0; r < rows; ++r) {
        const Mat cache(caches[static_cast<std::size_t>(r)]);
        for (std::int64_t h = 0; h < size.heads; ++h) {
          std::vector<double> p;
          double sum = 0.0;
          for (std::int64_t j = 0; j < size.visible[static_cast<std::size_t>(r)]; ++j) {
            double score = 0.0;
            for (std::int64_t d = 0; d < size.latent; ++d) {
              score += latent(r, h * size.latent + d) * cache(j, d);
            }
            for (std::int64_t d = 0; d < size.rope; ++d) {
              score += rope(r, h * stride + offset + d) * cache(j, size.latent + d);
            }
            p.push_back(std::exp(score * 0.3));
            sum += p.back();
          }
          for (std::size_t j = 0; j < p.size(); ++j) {
            for (std::int64_t d = 0; d < size.latent; ++d) {
              want(r, h * size.latent + d) += p[j] / sum * cache(static_cast<std::int64_t>(j), d);
            }
          }
        }
      }
      expect_close(o.view(), want, tolerance_for(s.dtype, 630, 2.0));
      CHECK(o.intact());
    });
  }
}

TEST_CASE("attention: rows outside every segment give 0, empty inputs work") {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    CpuContext context(2, kernels::detect_isa());
    const Layout layout{{2, 3, 2, 3}, 6, {2, 4}};
    Operands x(dtype, layout, 0);
    fill(x.q.view(), std::nan(""));  // never read outside the segment
    for (std::int64_t r = 2; r < 4; ++r) {
      for (std::int64_t c = 0; c < x.q.view().cols(); ++c) set_element(x.q.view(), r, c, 0.5);
    }
    run(context, x.forward());
    run(context, x.backward());
    for (const std::int64_t r : {0, 1, 4, 5}) {
      CHECK(element(x.o.view(), r, 0) == 0.0);
      CHECK(element(x.lse.view(), 1, r) == -HUGE_VAL);
      CHECK(element(x.dq.view(), r, 1) == 0.0);
      CHECK(element(x.dkv.view(), r, 2) == 0.0);
      CHECK(element(x.dk_rope.view(), r, 1) == 0.0);
    }
    for (const double v : to_doubles(x.dkv.view())) CHECK(std::isfinite(v));
  }
  const Layout nothing{{2, 3, 2, 3}, 0, {0, 0, 0}};
  Operands x(DType::kF32, nothing, 0);
  CpuContext context(1, kernels::detect_isa());
  run(context, x.forward());
  run(context, x.backward());
}

TEST_CASE("attention: packing does not change a segment") {
  CpuContext context(1, kernels::detect_isa());
  const Layout packed{{2, 8, 4, 8}, 90, {0, 40, 90}};
  Operands x(DType::kF32, packed, 0);
  run(context, x.forward());
  Operands alone(DType::kF32, packed, 0);
  alone.segments = index_vector({40, 90});
  run(context, alone.forward());
  for (std::int64_t r = 40; r < 90; ++r) {
    for (std::int64_t c = 0; c < x.o.view().cols(); ++c) {
      CHECK(element(x.o.view(), r, c) == element(alone.o.view(), r, c));
    }
  }
}

TEST_CASE("attention refuses operands that do not fit") {
  CpuContext context(1, kernels::detect_isa());
  const Layout layout{{2, 3, 2, 3}, 6, {0, 6}};
  Operands x(DType::kF32, layout, 0);
  AttentionForward op = x.forward();
  op.shape.nope = 4;
  CHECK_THROWS_WITH_AS(check(op), "attention_forward: q is [6, 10], need [6, 12]",
                       std::invalid_argument);
  for (const auto& offsets : {std::vector<std::int32_t>{0, 7}, {4, 2}, {-1, 6}}) {
    x.segments = index_vector(offsets);
    CHECK_THROWS_AS(run(context, x.forward()), std::invalid_argument);
    CHECK_THROWS_AS(run(context, x.backward()), std::invalid_argument);
  }
  GuardedMatrix q = random_matrix(DType::kF32, 1, 8, 0, 1), cache(DType::kF32, 3, 6);
  GuardedMatrix q_rope(DType::kF32, 1, 4), o(DType::kF32, 1, 8);
  const ConstView caches[] = {cache.view()};
  const std::int32_t visible[] = {4};
  CHECK_THROWS_WITH_AS(check(AttentionDecode{2, 4, 2, 1.0, q.view(), q_rope.view(), 2, 0, caches,
                                             visible, o.view()}),
                       "attention_decode: visible[0] is 4, need 1 <= visible <= 3",
                       std::invalid_argument);
}

}  // namespace ds::test
