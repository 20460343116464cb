#include "kernels/attention.h"
#include "kernels/cpu/ops/attention_tiles.h"
#include "kernels/op_check.h"

namespace ds::kernels::DSK_ISA {
namespace {

constexpr std::int64_t kHeads = 8;      // heads of a task: they share the reading of the cache
constexpr std::int64_t kEntries = 256;  // cache entries of a block

template <class T>
class Worker {
 public:
  using A = acc_t<T>;
  static constexpr bool kWidened = dtype_of_v<T> == DType::kBF16;

  Worker(const AttentionDecode& op, std::byte* memory)
      : op_(op), carver_(memory), latent_(op.latent), width_(latent_ + op.rope) {
    scores_ = carver_.take<A>(kHeads * score_stride(kEntries));
    running_ = carver_.take<Running<A>>(kHeads);
    if constexpr (kWidened) {
      q_ = carver_.take<A>(kHeads * width_);
      o_ = carver_.take<A>(kHeads * latent_);
      cache_ = carver_.take<A>(kEntries * width_);
    }
  }
  static std::size_t scratch_bytes(const AttentionDecode& op) {
    return Worker(op, nullptr).carver_.used();
  }

  // Heads [head, head + heads) of one row.
  bool run(std::int64_t row, std::int64_t head, std::int64_t heads) {
    const T* q_latent =
        op_.q_latent.template as<T>() + row * op_.q_latent.row_stride() + head * latent_;
    const T* q_rope = op_.q_rope.template as<T>() + row * op_.q_rope.row_stride() +
                      head * op_.q_rope_stride + op_.q_rope_offset;
    T* out = op_.o_latent.template as<T>() + row * op_.o_latent.row_stride() + head * latent_;
    Tile<const A> latent_part, rope_part;
    Tile<A> o;
    if constexpr (kWidened) {
      widen(q_latent, latent_, heads, latent_, Tile<A>{q_, width_});
      widen(q_rope, op_.q_rope_stride, heads, width_ - latent_, Tile<A>{q_ + latent_, width_});
      latent_part = {q_, width_};
      rope_part = {q_ + latent_, width_};
      o = {o_, latent_};
    } else {
      latent_part = {q_latent, latent_};
      rope_part = {q_rope, op_.q_rope_stride};
      o = {out, latent_};
    }
    const ConstView& cache = op_.caches.data()[row];
    const std::int64_t visible = op_.visible.data()[row];
    for (std::int64_t h = 0; h < heads; ++h) running_[h] = Running<A>();
    bool ok = true;
    for (std::int64_t j = 0; j < visible; j += kEntries) {
      const std::int64_t n = least(kEntries, visible - j);
      const Tile<const A> block = entries(cache, j, n);
      ok &= run_block(latent_part, rope_part, block, heads, n, j == 0, o);
    }
    for (std::int64_t h = 0; h < heads; ++h) {
      const A total = running_[h].sum;
      scale_row(o.at(h).data, latent_, total == A(0) ? A(0) : A(1) / total);
    }
    if constexpr (kWidened) narrow<T>(o, heads, latent_, out, latent_);
    return ok;
  }

 private:
  bool run_block(Tile<const A> latent_part, Tile<const A> rope_part, Tile<const A> block,
                 std::int64_t heads, std::int64_t n, bool first, Tile<A> o) {
    const auto scale = static_cast<A>(op_.scale);
    const Tile<A> scores{scores_, score_stride(n)};
    bool ok = multiply(Form::kNT, heads, n, latent_, scale, latent_part, block, A(0), scores);
    ok &= multiply(Form::kNT, heads, n, width_ - latent_, scale, rope_part, block.at(0, latent_),
                   A(1), scores);
    for (std::int64_t h = 0; h < heads; ++h) {
      const A factor = softmax_step<T>(scores.at(h).data, n, n, running_[h]);
      if (!first && factor != A(1)) scale_row(o.at(h).data, latent_, factor);
    }
    ok &= multiply(Form::kNN, heads, latent_, n, A(1), scores, block, first ? A(0) : A(1), o);
    return ok;
  }

  Tile<const A> entries(const ConstView& cache, std::int64_t begin, std::int64_t count) {
    const std::int64_t stride = cache.row_stride();
    const T* from = cache.template as<T>() + begin * stride;
    if constexpr (kWidened) {
      widen(from, stride, count, width_, Tile<A>{cache_, width_});
      return {cache_, width_};
    } else {
      return {from, stride};
    }
  }

  const AttentionDecode& op_;
  Carver carver_;
  std::int64_t latent_, width_;
  A* scores_ = nullptr;
  Running<A>* running_ = nullptr;
  A* q_ = nullptr;
  A* o_ = nullptr;
  A* cache_ = nullptr;
};

template <class T>
void decode(CpuContext& context, const AttentionDecode& op) {
  const std::int64_t rows = op.q_latent.rows();
  const std::int64_t groups = (op.heads + kHeads - 1) / kHeads;
  double total = 0.0;
  for (std::int64_t r = 0; r < rows; ++r) {
    total += static_cast<double>(groups) * op.visible.data()[r];
  }
  if (rows == 0) return;
  const double width = op.latent + op.rope;
  const int shares = threads_for(context, static_cast<std::int64_t>(total * width));
  const std::size_t bytes = Worker<T>::scratch_bytes(op);
  reserve_scratch(context, shares, bytes);
  int failures = 0;
  parallel(context, shares, [&](int share, int) {
    Worker<T> worker(op, context.scratch(share, bytes));
    Dealer dealer(total, shares);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t g = 0; g < groups; ++g) {
        if (dealer.next(op.visible.data()[r]) != share) continue;
        const std::int64_t head = g * kHeads;
        if (!worker.run(r, head, least(kHeads, op.heads - head))) count_one(failures);
      }
    }
  });
  if (failures > 0) op_check::out_of_memory();
}

}  // namespace

void run(CpuContext& context, const AttentionDecode& op) {
  with_compute_type(op.q_latent.dtype(), [&]<class T>() { decode<T>(context, op); });
}

}  // namespace ds::kernels::DSK_ISA
