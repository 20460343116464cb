#include "kernels/attention.h"
#include "kernels/cpu/ops/attention_tiles.h"
#include "kernels/op_check.h"

namespace ds::kernels::DSK_ISA {
namespace {

constexpr std::int64_t kQueries = 64;  // rows of a block of scores
constexpr std::int64_t kKeys = 512;    // and columns

// Query blocks of a segment are of about equal size: 70 tokens are 35 + 35, not 64 + 6.
std::int64_t query_block(std::int64_t length) {
  const std::int64_t blocks = (length + kQueries - 1) / kQueries;
  return blocks == 0 ? 1 : (length + blocks - 1) / blocks;
}

// One block of queries of one head of one segment.
struct Task {
  std::int64_t row0 = 0;    // first row of the segment
  std::int64_t length = 0;  // of the segment
  std::int64_t head = 0;
  std::int64_t begin = 0;  // first query, from row0
  std::int64_t count = 0;  // queries
};

double cost_of(const Task& task) {
  return static_cast<double>(task.count) * static_cast<double>(task.begin + task.count);
}

// The operands of one head of one segment in the accumulation type: in place, or widened copies.
template <class A>
struct HeadTiles {
  Tile<const A> k_nope, k_rope, v;
};

template <class T>
class Worker {
 public:
  using A = acc_t<T>;
  static constexpr bool kWidened = dtype_of_v<T> == DType::kBF16;

  Worker(const AttentionForward& op, std::int64_t longest, std::byte* memory)
      : op_(op), carver_(memory), key_(op.shape.nope + op.shape.rope) {
    scores_ = carver_.take<A>(kQueries * score_stride(least(longest, kKeys)));
    running_ = carver_.take<Running<A>>(kQueries);
    if constexpr (kWidened) {
      q_ = carver_.take<A>(kQueries * key_);
      o_ = carver_.take<A>(kQueries * op.shape.value);
      k_ = carver_.take<A>(longest * key_);
      v_ = carver_.take<A>(longest * op.shape.value);
    }
  }
  static std::size_t scratch_bytes(const AttentionForward& op, std::int64_t longest) {
    return Worker(op, longest, nullptr).carver_.used();
  }

  bool run(const Task& task) {
    const std::int64_t nope = op_.shape.nope, rope = op_.shape.rope, value = op_.shape.value;
    const HeadTiles<A> head = head_tiles(task);
    const Tile<const A> q = queries(task);
    const std::int64_t row = task.row0 + task.begin;
    T* out = op_.o.template as<T>() + row * op_.o.row_stride() + task.head * value;
    Tile<A> o;
    if constexpr (kWidened) {
      o = {o_, value};
    } else {
      o = {out, op_.o.row_stride()};
    }
    const auto scale = static_cast<A>(op_.scale);
    const std::int64_t visible = task.begin + task.count;
    bool ok = true;
    for (std::int64_t r = 0; r < task.count; ++r) running_[r] = Running<A>();
    for (std::int64_t j = 0; j < visible; j += kKeys) {
      const std::int64_t keys = least(kKeys, visible - j);
      const Tile<A> scores{scores_, score_stride(keys)};
      ok &= multiply(Form::kNT, task.count, keys, nope, scale, q, head.k_nope.at(j), A(0), scores);
      ok &= multiply(Form::kNT, task.count, keys, rope, scale, q.at(0, nope), head.k_rope.at(j),
                     A(1), scores);
      for (std::int64_t r = 0; r < task.count; ++r) {
        const std::int64_t seen = task.begin + r + 1 - j;
        const A factor =
            softmax_step<T>(scores.at(r).data, seen < 0 ? 0 : least(seen, keys), keys, running_[r]);
        if (j > 0 && factor != A(1)) scale_row(o.at(r).data, value, factor);
      }
      ok &= multiply(Form::kNN, task.count, value, keys, A(1), scores, head.v.at(j),
                     j == 0 ? A(0) : A(1), o);
    }
    A* lse = op_.lse.template as<A>() + task.head * op_.lse.row_stride() + row;
    for (std::int64_t r = 0; r < task.count; ++r) {
      const bool none = running_[r].sum == A(0);
      scale_row(o.at(r).data, value, none ? A(0) : A(1) / running_[r].sum);
      const double log_sum = __builtin_log(static_cast<double>(running_[r].sum));
      lse[r] = static_cast<A>(static_cast<double>(running_[r].largest) + log_sum);
    }
    if constexpr (kWidened) narrow<T>(o, task.count, value, out, op_.o.row_stride());
    return ok;
  }

 private:
  Tile<const A> queries(const Task& task) {
    const std::int64_t stride = op_.q.row_stride();
    const T* q = op_.q.template as<T>() + (task.row0 + task.begin) * stride + task.head * key_;
    if constexpr (kWidened) {
      widen(q, stride, task.count, key_, Tile<A>{q_, key_});
      return {q_, key_};
    } else {
      return {q, stride};
    }
  }

  HeadTiles<A> head_tiles(const Task& task) {
    const std::int64_t nope = op_.shape.nope, rope = op_.shape.rope, value = op_.shape.value;
    const std::int64_t kv_stride = op_.kv.row_stride(), rope_stride = op_.k_rope.row_stride();
    const T* kv = op_.kv.template as<T>() + task.row0 * kv_stride + task.head * (nope + value);
    const T* k_rope = op_.k_rope.template as<T>() + task.row0 * rope_stride;
    if constexpr (kWidened) {
      // Query blocks of one head follow each other: the copies are made once, as far as they are
      // needed so far.
      if (task.row0 != copied_row_ || task.head != copied_head_) copied_ = 0;
      copied_row_ = task.row0;
      copied_head_ = task.head;
      const std::int64_t from = copied_, to = task.begin + task.count;
      if (to > from) {
        widen(kv + from * kv_stride, kv_stride, to - from, nope, Tile<A>{k_, key_}.at(from));
        widen(k_rope + from * rope_stride, rope_stride, to - from, rope,
              Tile<A>{k_, key_}.at(from, nope));
        widen(kv + from * kv_stride + nope, kv_stride, to - from, value,
              Tile<A>{v_, value}.at(from));
        copied_ = to;
      }
      return {{k_, key_}, {k_ + nope, key_}, {v_, value}};
    } else {
      return {{kv, kv_stride}, {k_rope, rope_stride}, {kv + nope, kv_stride}};
    }
  }

  const AttentionForward& op_;
  Carver carver_;
  std::int64_t key_;
  A* scores_ = nullptr;
  Running<A>* running_ = nullptr;
  A* q_ = nullptr;
  A* o_ = nullptr;
  A* k_ = nullptr;
  A* v_ = nullptr;
  std::int64_t copied_row_ = -1, copied_head_ = -1, copied_ = 0;
};

// Calls f(task) for every task, heads of a segment one after another.
template <class F>
void for_tasks(const AttentionForward& op, F&& f) {
  const auto* offsets = op.segments.as<std::int32_t>();
  for (std::int64_t s = 0; s + 1 < op.segments.size(); ++s) {
    Task task;
    task.row0 = offsets[s];
    task.length = offsets[s + 1] - offsets[s];
    const std::int64_t block = query_block(task.length);
    for (task.head = 0; task.head < op.shape.heads; ++task.head) {
      for (task.begin = 0; task.begin < task.length; task.begin += block) {
        task.count = least(block, task.length - task.begin);
        f(task);
      }
    }
  }
}

template <class T>
void zero_rows(const AttentionForward& op, std::int64_t begin, std::int64_t end) {
  using A = acc_t<T>;
  for (std::int64_t r = begin; r < end; ++r) {
    T* row = op.o.as<T>() + r * op.o.row_stride();
    for (std::int64_t c = 0; c < op.o.cols(); ++c) row[c] = from_acc<T>(A(0));
    for (std::int64_t h = 0; h < op.shape.heads; ++h) {
      op.lse.as<A>()[h * op.lse.row_stride() + r] = -__builtin_huge_val();
    }
  }
}

template <class T>
void forward(CpuContext& context, const AttentionForward& op) {
  const auto* offsets = op.segments.as<std::int32_t>();
  const std::int64_t count = op.segments.size() - 1;
  zero_rows<T>(op, 0, count > 0 ? offsets[0] : 0);
  zero_rows<T>(op, offsets[count], op.q.rows());
  std::int64_t longest = 0;
  for (std::int64_t s = 0; s < count; ++s) {
    const std::int64_t length = offsets[s + 1] - offsets[s];
    longest = length > longest ? length : longest;
  }
  double total = 0.0;
  for_tasks(op, [&](const Task& task) { total += cost_of(task); });
  if (longest == 0) return;
  const double width = op.shape.nope + op.shape.rope + op.shape.value;
  const int shares = threads_for(context, static_cast<std::int64_t>(total * width / 8.0));
  const std::size_t bytes = Worker<T>::scratch_bytes(op, longest);
  reserve_scratch(context, shares, bytes);
  int failures = 0;
  parallel(context, shares, [&](int share, int) {
    Worker<T> worker(op, longest, context.scratch(share, bytes));
    Dealer dealer(total, shares);
    for_tasks(op, [&](const Task& task) {
      if (dealer.next(cost_of(task)) == share && !worker.run(task)) count_one(failures);
    });
  });
  if (failures > 0) op_check::out_of_memory();
}

}  // namespace

void run(CpuContext& context, const AttentionForward& op) {
  op_check::row_offsets(op.kName, "segments", op.segments, op.q.rows());
  with_compute_type(op.q.dtype(), [&]<class T>() { forward<T>(context, op); });
}

}  // namespace ds::kernels::DSK_ISA
