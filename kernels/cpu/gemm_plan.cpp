#include "kernels/cpu/gemm_plan.h"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

namespace ds::kernels::cpu {
namespace {

// Widened copies of a may take this much at a time; larger calls run in several passes over rows.
constexpr std::int64_t kWidenedFloats = std::int64_t{16} << 20;
constexpr std::int64_t kPanelFloats = 1024 * 1024;  // widened panel of b: 4 MiB
constexpr std::int64_t kBlockFloats = 256 * 1024;   // f32 block of c: 1 MiB
constexpr std::int64_t kMinPanel = 64;              // columns below which a product is inefficient
constexpr std::int64_t kColumnStep = 16;            // panels begin at multiples of this
constexpr std::int64_t kMinChunk = 32;              // rows below which splitting rows does not pay

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return divide_up(value, step) * step;
}
std::size_t count(std::int64_t value) { return static_cast<std::size_t>(value); }

// Rows [row0, row0 + rows) of one problem, in one pass.
struct Slab {
  const GemmProblem* problem;
  std::int64_t row0, rows, cols, depth;
  std::int64_t pass = 0;
  std::int64_t a_at = -1;         // entry of the widening list, or -1
  std::int64_t low_rank_at = -1;  // the same for low_rank_a
};

// Reading columns of rows that are a multiple of 2 KiB apart hits the same few cache sets again and
// again and more than halves the rate of a product.
constexpr std::int64_t kBadStride = 512;
bool is_bad_stride(std::int64_t stride) { return stride > 0 && stride % kBadStride == 0; }

bool is_narrow(const ConstView& view) { return view && view.dtype() == DType::kBF16; }

ConstView rows_of_a(const Slab& slab) {
  const ConstView& a = slab.problem->a;
  return slab.problem->trans_a ? a.slice_cols(slab.row0, slab.rows)
                               : a.slice_rows(slab.row0, slab.rows);
}

// Whether the product runs in BF16 instructions.
bool stays_narrow(const GemmProblem& p, Isa isa) {
  return isa == Isa::kAvx512Bf16 && is_narrow(p.a) && is_narrow(p.b) && p.c.rows() > kMaxVectorRows;
}

// Whether the passes make a copy of a: widened, or moved to a better row stride.
bool copies_a(const GemmProblem& p, Isa isa) {
  if (is_narrow(p.a)) return !stays_narrow(p, isa);
  return p.a.dtype() == DType::kF32 && p.trans_a && is_bad_stride(p.a.row_stride()) &&
         p.c.rows() > kMaxVectorRows && p.c.cols() >= kMinPanel;
}

bool same_matrix(const ConstView& x, const ConstView& y) {
  return x.data() == y.data() && x.rows() == y.rows() && x.cols() == y.cols() &&
         x.row_stride() == y.row_stride();
}

// Multiply-adds; a product of few rows is bound by reading b and counts as one of 8 rows.
double work_of(const Slab& slab) {
  return static_cast<double>(std::max<std::int64_t>(slab.rows, 8)) *
         static_cast<double>(slab.cols) *
         static_cast<double>(std::max<std::int64_t>(slab.depth, 8));
}

// The cells a problem may be cut into: panels of columns, each cut into chunks of rows only where
// panels alone are too few for the threads.
struct Grid {
  std::int64_t panel, panels, chunk, chunks;
};

// `shares`: how many threads' worth of work the problem is.
Grid grid_of(const Slab& slab, double shares, int threads) {
  Grid grid{slab.cols, 1, slab.rows, 1};
  if (threads == 1 || shares < 1.0 / 16.0) return grid;
  const std::int64_t parts = 1 + static_cast<std::int64_t>(shares * 0.999);
  grid.panel = kColumnStep;
  if (slab.cols / parts < kMinPanel && slab.rows > 2 * kMinChunk) {
    grid.panel = std::min(slab.cols, kMinPanel);
    // Four cells a part keep the parts nearly equal.
    const std::int64_t chunks = divide_up(4 * parts, divide_up(slab.cols, grid.panel));
    grid.chunk = std::max(kMinChunk, round_up(divide_up(slab.rows, chunks), 8));
    grid.chunks = divide_up(slab.rows, grid.chunk);
  }
  grid.panels = divide_up(slab.cols, grid.panel);
  return grid;
}

}  // namespace

struct GemmPlan::Impl {
  std::vector<Slab> slabs;  // in the order of the problems, passes one after another
  std::vector<GemmWiden> widen;
  std::vector<std::int64_t> widen_offset;  // floats from the start of the shared scratch
  std::vector<GemmTile> tiles;
  std::vector<std::int64_t> first;  // threads + 1 entries a pass, counted from the pass's tiles
  std::vector<GemmPass> passes;
  std::vector<float*> scratch;
  int threads = 1;
  Isa isa = Isa::kBaseline;

  // Where the lists of a pass begin.
  struct Begin {
    std::int64_t widen, tiles, first;
  };
  std::vector<Begin> begins;

  // Of the context, emptied.
  static Impl* of(CpuContext& context);
  std::int64_t collect(const Gemm& op);
  std::int64_t add_widen(const ConstView& src, std::int64_t pass_begin, std::int64_t& used);
  void cut(std::int64_t begin, std::int64_t end);
  void add_cells(const Slab& slab, const Grid& grid, std::int64_t begin, std::int64_t end);
  void add_tile(const Slab& slab, std::int64_t row, std::int64_t rows, std::int64_t col,
                std::int64_t cols);
};

GemmPlan::Impl* GemmPlan::Impl::of(CpuContext& context) {
  std::shared_ptr<void>& memory = context.plan_memory();
  if (!memory) memory = std::make_shared<Impl>();
  Impl* const plan = static_cast<Impl*>(memory.get());
  plan->slabs.clear();
  plan->widen.clear();
  plan->widen_offset.clear();
  plan->tiles.clear();
  plan->first.clear();
  plan->passes.clear();
  plan->scratch.clear();
  plan->begins.clear();
  plan->threads = context.threads();
  plan->isa = context.isa();
  return plan;
}

std::int64_t GemmPlan::Impl::add_widen(const ConstView& src, std::int64_t pass_begin,
                                       std::int64_t& used) {
  const auto size = static_cast<std::int64_t>(widen.size());
  // Projections that share an input follow one another: looking back a little is enough.
  for (std::int64_t i = size - 1; i >= std::max(pass_begin, size - 8); --i) {
    if (same_matrix(widen[count(i)].src, src)) return i;
  }
  std::int64_t stride = round_up(src.cols(), 16);
  if (is_bad_stride(stride)) stride += 16;
  widen.push_back({src, nullptr, stride});
  widen_offset.push_back(used);
  used += src.rows() * stride;
  return size;
}

// Cuts the problems into slabs and passes; returns the floats of shared scratch they need.
std::int64_t GemmPlan::Impl::collect(const Gemm& op) {
  std::int64_t pass = 0, pass_begin = 0, used = 0, most = 0;
  for (const GemmProblem& p : op.problems) {
    const std::int64_t all_rows = p.c.rows(), cols = p.c.cols();
    if (all_rows == 0 || cols == 0) continue;
    const std::int64_t depth = p.trans_a ? p.a.rows() : p.a.cols();
    std::int64_t row_floats = 0;
    if (copies_a(p, isa)) row_floats += depth;
    if (is_narrow(p.low_rank_a)) row_floats += p.low_rank_a.cols();
    const std::int64_t most_rows =
        row_floats == 0 ? all_rows : std::max(kMinPanel, kWidenedFloats / row_floats);
    for (std::int64_t row = 0; row < all_rows; row += most_rows) {
      Slab slab{&p, row, std::min(most_rows, all_rows - row), cols, depth};
      if (used > 0 && used + slab.rows * row_floats > kWidenedFloats) {
        ++pass;
        pass_begin = static_cast<std::int64_t>(widen.size());
        used = 0;
      }
      slab.pass = pass;
      if (copies_a(p, isa) && depth > 0) {
        slab.a_at = add_widen(rows_of_a(slab), pass_begin, used);
      }
      if (is_narrow(p.low_rank_a)) {
        slab.low_rank_at =
            add_widen(p.low_rank_a.slice_rows(slab.row0, slab.rows), pass_begin, used);
      }
      most = std::max(most, used);
      slabs.push_back(slab);
    }
  }
  return most;
}

void GemmPlan::Impl::add_tile(const Slab& slab, std::int64_t row, std::int64_t rows,
                              std::int64_t col, std::int64_t cols) {
  const GemmProblem& p = *slab.problem;
  GemmTile tile;
  tile.problem = &p;
  tile.row0 = slab.row0 + row;
  tile.rows = rows;
  tile.col0 = col;
  tile.cols = cols;
  if (p.c.dtype() != DType::kF64) {
    // A transposed product of F32 reads b once on either path, along its rows on the other.
    const bool is_gradient = p.trans_a && !p.trans_b && p.b.dtype() == DType::kF32;
    tile.vector = p.c.rows() <= kMaxVectorRows && !is_gradient;
    tile.narrow = stays_narrow(p, isa);
    if (slab.a_at >= 0) {
      const GemmWiden& entry = widen[count(slab.a_at)];
      tile.a = {entry.dst, entry.stride};
    } else if (slab.depth > 0 && !tile.narrow) {
      tile.a = {rows_of_a(slab).as<float>(), p.a.row_stride()};
    }
    if (tile.a.data != nullptr) tile.a.data += p.trans_a ? row : row * tile.a.stride;
    if (slab.low_rank_at >= 0) {
      const GemmWiden& entry = widen[count(slab.low_rank_at)];
      tile.low_rank_a = {entry.dst + row * entry.stride, entry.stride};
    } else if (p.low_rank_a) {
      tile.low_rank_a = {p.low_rank_a.slice_rows(tile.row0, rows).as<float>(),
                         p.low_rank_a.row_stride()};
    }
  }
  tiles.push_back(tile);
}

// Cells [begin, end) in the order of panels, then chunks, as at most three rectangles.
void GemmPlan::Impl::add_cells(const Slab& slab, const Grid& grid, std::int64_t begin,
                               std::int64_t end) {
  while (begin < end) {
    const std::int64_t chunk = begin % grid.chunks;
    std::int64_t panels = 1;
    std::int64_t chunks = std::min(grid.chunks - chunk, end - begin);
    if (chunk == 0 && end - begin >= grid.chunks) {
      panels = (end - begin) / grid.chunks;
      chunks = grid.chunks;
    }
    const std::int64_t row = chunk * grid.chunk;
    const std::int64_t col = begin / grid.chunks * grid.panel;
    add_tile(slab, row, std::min(chunks * grid.chunk, slab.rows - row), col,
             std::min(panels * grid.panel, slab.cols - col));
    begin += panels * chunks;
  }
}

// Tiles of the slabs [begin, end), which are one pass.
void GemmPlan::Impl::cut(std::int64_t begin, std::int64_t end) {
  double total = 0.0;
  for (std::int64_t i = begin; i < end; ++i) total += work_of(slabs[count(i)]);
  const double share = total / threads;
  const auto origin = static_cast<std::int64_t>(tiles.size());
  int thread = 0;
  double line = 0.0;  // work before the current slab
  first.push_back(0);
  const auto next_thread = [&] {
    first.push_back(static_cast<std::int64_t>(tiles.size()) - origin);
    ++thread;
  };
  for (std::int64_t i = begin; i < end; ++i) {
    const Slab& slab = slabs[count(i)];
    const double work = work_of(slab);
    const Grid grid = grid_of(slab, work / share, threads);
    const std::int64_t cells = grid.panels * grid.chunks;
    std::int64_t done = 0;
    while (true) {
      std::int64_t until = cells;
      if (thread + 1 < threads) {
        const double part = (share * (thread + 1) - line) / work;
        const double rounded = part * static_cast<double>(cells) + 0.5;
        if (rounded < static_cast<double>(cells)) until = static_cast<std::int64_t>(rounded);
      }
      until = std::max(until, done);
      add_cells(slab, grid, done, until);
      done = until;
      if (done == cells) break;
      next_thread();
    }
    line += work;
  }
  while (thread < threads) next_thread();
}

GemmPlan::GemmPlan(CpuContext& context, const Gemm& op) : impl_(Impl::of(context)) {
  Impl& plan = *impl_;
  const std::int64_t shared = plan.collect(op);
  if (shared > 0) {
    auto* base =
        reinterpret_cast<float*>(context.scratch(plan.threads, count(shared) * sizeof(float)));
    for (std::size_t i = 0; i < plan.widen.size(); ++i) {
      plan.widen[i].dst = base + plan.widen_offset[i];
    }
  }

  std::vector<Impl::Begin>& begins = plan.begins;
  const auto mark = [&](std::int64_t widen) {
    begins.push_back({widen, static_cast<std::int64_t>(plan.tiles.size()),
                      static_cast<std::int64_t>(plan.first.size())});
  };
  const auto slab_count = static_cast<std::int64_t>(plan.slabs.size());
  std::int64_t widen_end = 0;
  for (std::int64_t begin = 0, end = 0; begin < slab_count; begin = end) {
    mark(widen_end);
    const std::int64_t pass = plan.slabs[count(begin)].pass;
    for (end = begin; end < slab_count && plan.slabs[count(end)].pass == pass; ++end) {
      const Slab& slab = plan.slabs[count(end)];
      widen_end = std::max({widen_end, slab.a_at + 1, slab.low_rank_at + 1});
    }
    plan.cut(begin, end);
  }
  mark(widen_end);
  for (std::size_t i = 0; i + 1 < begins.size(); ++i) {
    plan.passes.push_back(
        {plan.widen.data() + begins[i].widen, begins[i + 1].widen - begins[i].widen,
         plan.tiles.data() + begins[i].tiles, plan.first.data() + begins[i].first});
  }

  for (int thread = 0; thread < plan.threads; ++thread) {
    std::size_t most = 0;
    for (const GemmPass& pass : plan.passes) {
      for (std::int64_t i = pass.first[thread]; i < pass.first[thread + 1]; ++i) {
        const GemmBlock block = gemm_block(pass.tiles[i]);
        most = std::max(most, block.b_floats + block.c_floats + block.a_floats);
      }
    }
    plan.scratch.push_back(
        most == 0 ? nullptr
                  : reinterpret_cast<float*>(context.scratch(thread, most * sizeof(float))));
  }
}

const GemmPass* GemmPlan::passes() const { return impl_->passes.data(); }
std::int64_t GemmPlan::pass_count() const {
  return static_cast<std::int64_t>(impl_->passes.size());
}
float* GemmPlan::scratch(int thread) const {
  return impl_->scratch[static_cast<std::size_t>(thread)];
}

GemmBlock gemm_block(const GemmTile& tile) {
  const GemmProblem& p = *tile.problem;
  const std::int64_t depth = p.trans_a ? p.a.rows() : p.a.cols();
  GemmBlock block;
  block.cols = tile.cols;
  block.rows = tile.rows;
  if (p.c.dtype() == DType::kF64) {
    // One row of op(a) as F64.
    block.a_floats = count(round_up(2 * depth, 16));
    return block;
  }
  const bool c_narrow = p.c.dtype() != DType::kF32;
  if (tile.vector) {
    // A transposed a is packed; sums for all columns of a block are kept in F32.
    block.cols = std::min<std::int64_t>(tile.cols, 512);
    block.a_floats = p.trans_a ? count(round_up(tile.rows * depth, 16)) : 0;
    block.c_floats = count(round_up(tile.rows * block.cols, 16));
    return block;
  }
  if (p.b.dtype() != DType::kF32 && !tile.narrow && depth > 0) {
    const std::int64_t fitting = kPanelFloats / depth / kColumnStep * kColumnStep;
    block.cols = std::min(tile.cols, std::max(fitting, kMinPanel));
    block.b_floats = count(round_up(block.cols * depth, 16));
  } else if (c_narrow) {
    block.cols = std::min<std::int64_t>(tile.cols, 512);
  }
  if (c_narrow) {
    block.rows = std::min(tile.rows, std::max(kMinPanel, kBlockFloats / block.cols));
    block.c_floats = count(round_up(block.rows * block.cols, 16));
  }
  return block;
}

void throw_library_failure() { throw std::bad_alloc(); }

}  // namespace ds::kernels::cpu
