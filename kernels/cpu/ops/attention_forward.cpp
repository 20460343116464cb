#include "kernels/attention.h"
#include "kernels/cpu/ops/attention_panels.h"
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

template <class T>
class Worker {
 public:
  using A = acc_t<T>;

  Worker(const AttentionForward& op, std::int64_t longest, std::byte* memory)
      : op_(op),
        carver_(memory),
        nope_(op.shape.nope),
        rope_(op.shape.rope),
        value_(op.shape.value),
        key_(nope_ + rope_),
        o_stride_(panel_columns<A>(value_)) {
    scores_ = carver_.take<A>(kQueries * score_stride(least(longest, kKeys)));
    running_ = carver_.take<Running<A>>(kQueries);
    q_ = carver_.take<A>(kQueries * key_);
    o_ = carver_.take<A>(kQueries * o_stride_);
    k_ = carver_.take<A>(panel_columns<A>(longest) * key_);
    v_ = carver_.take<A>(longest * o_stride_);
  }
  static std::size_t scratch_bytes(const AttentionForward& op, std::int64_t longest) {
    return Worker(op, longest, nullptr).carver_.used();
  }

  void run(const Task& task) {
    pack(task);
    for (std::int64_t r = 0; r < task.count; ++r) running_[r] = Running<A>();
    const std::int64_t visible = task.begin + task.count;
    for (std::int64_t j = 0; j < visible; j += kKeys) {
      const Causal mask{task.begin - j, task.count, least(kKeys, visible - j)};
      const std::int64_t stride = score_stride(mask.keys);
      multiply(mask.queries, mask.keys, Left<A>{q_, key_, 1}, k_ + j * key_, key_, scores_, stride,
               false, mask.scores(key_));
      for (std::int64_t r = 0; r < mask.queries; ++r) {
        const A factor =
            softmax_step<T>(scores_ + r * stride, mask.visible(r), mask.touched(r), running_[r]);
        if (j > 0 && factor != A(1)) scale_row(o_ + r * o_stride_, value_, factor);
      }
      multiply(mask.queries, value_, Left<A>{scores_, stride, 1}, v_ + j * kPanel<A>, task.length,
               o_, o_stride_, j > 0, mask.per_query(value_));
    }
    finish(task);
  }

 private:
  void finish(const Task& task) {
    const std::int64_t row = task.row0 + task.begin;
    T* out = op_.o.template as<T>() + row * op_.o.row_stride() + task.head * value_;
    A* lse = op_.lse.template as<A>() + task.head * op_.lse.row_stride() + row;
    for (std::int64_t r = 0; r < task.count; ++r) {
      A* o = o_ + r * o_stride_;
      const A sum = running_[r].sum;
      scale_row(o, value_, sum == A(0) ? A(0) : A(1) / sum);
      narrow_row(o, value_, out + r * op_.o.row_stride());
      const double log_sum = __builtin_log(static_cast<double>(sum));
      lse[r] = static_cast<A>(static_cast<double>(running_[r].largest) + log_sum);
    }
  }

  // Queries times the scale; keys and values of the head as far as this block sees them. Blocks of
  // one head follow each other, so that each key is packed once.
  void pack(const Task& task) {
    const std::int64_t kv_stride = op_.kv.row_stride(), rope_stride = op_.k_rope.row_stride();
    const auto scale = static_cast<A>(op_.scale);
    const T* q =
        op_.q.template as<T>() + (task.row0 + task.begin) * op_.q.row_stride() + task.head * key_;
    for (std::int64_t r = 0; r < task.count; ++r) {
      for (std::int64_t c = 0; c < key_; ++c) {
        q_[r * key_ + c] = to_acc(q[r * op_.q.row_stride() + c]) * scale;
      }
    }
    if (task.begin == 0 || task.row0 != packed_row_ || task.head != packed_head_) packed_ = 0;
    packed_row_ = task.row0;
    packed_head_ = task.head;
    const std::int64_t from = packed_, rows = task.begin + task.count - from;
    const T* kv =
        op_.kv.template as<T>() + (task.row0 + from) * kv_stride + task.head * (nope_ + value_);
    const T* k_rope = op_.k_rope.template as<T>() + (task.row0 + from) * rope_stride;
    pack_columns(kv, kv_stride, rows, nope_, k_, key_, 0, from);
    pack_columns(k_rope, rope_stride, rows, rope_, k_, key_, nope_, from);
    pack_rows(kv + nope_, kv_stride, rows, value_, A(1), v_, task.length, from);
    packed_ += rows;
  }

  const AttentionForward& op_;
  Carver carver_;
  std::int64_t nope_, rope_, value_, key_, o_stride_;
  A* scores_ = nullptr;
  Running<A>* running_ = nullptr;
  A* q_ = nullptr;  // [queries, key]
  A* o_ = nullptr;  // [queries, o_stride]
  A* k_ = nullptr;  // panels [key, keys]
  A* v_ = nullptr;  // panels [keys, value]
  std::int64_t packed_row_ = -1, packed_head_ = -1, packed_ = 0;
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
  parallel(context, shares, [&](int share, int) {
    Worker<T> worker(op, longest, context.scratch(share, bytes));
    Dealer dealer(total, shares);
    for_tasks(op, [&](const Task& task) {
      if (dealer.next(cost_of(task)) == share) worker.run(task);
    });
  });
}

}  // namespace

void run(CpuContext& context, const AttentionForward& op) {
  op_check::row_offsets(op.kName, "segments", op.segments, op.q.rows());
  with_compute_type(op.q.dtype(), [&]<class T>() { forward<T>(context, op); });
}

}  // namespace ds::kernels::DSK_ISA
