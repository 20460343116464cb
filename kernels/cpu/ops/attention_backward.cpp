#include "kernels/attention.h"
#include "kernels/cpu/ops/attention_panels.h"
#include "kernels/cpu/ops/attention_tiles.h"
#include "kernels/op_check.h"

namespace ds::kernels::DSK_ISA {
namespace {

constexpr std::int64_t kQueries = 64;
constexpr std::int64_t kKeys = 512;

// One head of one segment.
struct Task {
  std::int64_t row0 = 0;
  std::int64_t length = 0;
  std::int64_t head = 0;
};

double cost_of(const Task& task) {
  return static_cast<double>(task.length) * static_cast<double>(task.length + kQueries);
}

template <class T>
class Worker {
 public:
  using A = acc_t<T>;

  // `dk_rope` [tokens, rope]: this share's sums over heads.
  Worker(const AttentionBackward& op, std::int64_t longest, std::byte* memory, A* dk_rope)
      : op_(op),
        carver_(memory),
        nope_(op.shape.nope),
        rope_(op.shape.rope),
        value_(op.shape.value),
        key_(nope_ + rope_),
        key_stride_(panel_columns<A>(key_)),
        value_stride_(panel_columns<A>(value_)),
        dk_rope_(dk_rope) {
    const std::int64_t block = kQueries * score_stride(least(longest, kKeys));
    const std::int64_t columns = panel_columns<A>(longest);
    p_ = carver_.take<A>(block);
    ds_ = carver_.take<A>(block);
    dq_ = carver_.take<A>(kQueries * key_stride_);
    q_rows_ = carver_.take<A>(longest * key_);
    do_rows_ = carver_.take<A>(longest * value_);
    q_ = carver_.take<A>(longest * key_stride_);
    do_ = carver_.take<A>(longest * value_stride_);
    k_ = carver_.take<A>(longest * key_stride_);
    k_columns_ = carver_.take<A>(columns * key_);
    v_columns_ = carver_.take<A>(columns * value_);
    dk_ = carver_.take<A>(longest * key_stride_);
    dv_ = carver_.take<A>(longest * value_stride_);
  }
  static std::size_t scratch_bytes(const AttentionBackward& op, std::int64_t longest) {
    return Worker(op, longest, nullptr, nullptr).carver_.used();
  }

  void run(const Task& task) {
    pack(task);
    for (std::int64_t i = 0; i < task.length * key_stride_; ++i) dk_[i] = A(0);
    for (std::int64_t i = 0; i < task.length * value_stride_; ++i) dv_[i] = A(0);
    const std::int64_t blocks = (task.length + kQueries - 1) / kQueries;
    const std::int64_t block = (task.length + blocks - 1) / blocks;
    for (std::int64_t i = 0; i < task.length; i += block) {
      const std::int64_t count = least(block, task.length - i);
      for (std::int64_t j = 0; j < i + count; j += kKeys) {
        run_block(task, i, j, {i - j, count, least(kKeys, i + count - j)});
      }
      T* dq = op_.dq.template as<T>() + (task.row0 + i) * op_.dq.row_stride() + task.head * key_;
      for (std::int64_t r = 0; r < count; ++r, dq += op_.dq.row_stride()) {
        scale_row(dq_ + r * key_stride_, key_, static_cast<A>(op_.scale));
        narrow_row(dq_ + r * key_stride_, key_, dq);
      }
    }
    finish(task);
  }

 private:
  // Queries [i, i + mask.queries) against keys [j, j + mask.keys).
  void run_block(const Task& task, std::int64_t i, std::int64_t j, const Causal& mask) {
    const std::int64_t stride = score_stride(mask.keys), m = mask.queries, n = mask.keys;
    multiply(m, n, Left<A>{q_rows_ + i * key_, key_, 1}, k_columns_ + j * key_, key_, p_, stride,
             false, mask.scores(key_));
    multiply(m, n, Left<A>{do_rows_ + i * value_, value_, 1}, v_columns_ + j * value_, value_, ds_,
             stride, false, mask.scores(value_));
    const std::int64_t row = task.row0 + i;
    const A* lse = op_.lse.template as<A>() + task.head * op_.lse.row_stride() + row;
    const T* o = op_.o.template as<T>() + row * op_.o.row_stride() + task.head * value_;
    for (std::int64_t r = 0; r < m; ++r) {
      const A along = dot(do_rows_ + (i + r) * value_, o + r * op_.o.row_stride(), value_);
      gradient_row(p_ + r * stride, ds_ + r * stride, mask.visible(r), mask.touched(r), lse[r],
                   along);
    }
    const Left<A> p{p_, 1, stride}, ds{ds_, 1, stride};
    multiply(n, value_, p, do_ + i * kPanel<A>, task.length, dv_ + j * value_stride_, value_stride_,
             true, mask.per_key(value_));
    multiply(n, key_, ds, q_ + i * kPanel<A>, task.length, dk_ + j * key_stride_, key_stride_, true,
             mask.per_key(key_));
    multiply(m, key_, Left<A>{ds_, stride, 1}, k_ + j * kPanel<A>, task.length, dq_, key_stride_,
             j > 0, mask.per_query(key_));
  }

  // p: scaled scores -> probabilities rounded to T. ds: dO . v -> gradient of the scaled scores.
  static void gradient_row(A* __restrict p, A* __restrict ds, std::int64_t visible, std::int64_t n,
                           A lse, A along) {
    for (std::int64_t c = 0; c < visible; ++c) {
      const A probability = exp_approx(p[c] - lse);
      ds[c] = probability * (ds[c] - along);
      p[c] = to_acc(from_acc<T>(probability));
    }
    for (std::int64_t c = visible; c < n; ++c) p[c] = ds[c] = A(0);
  }

  // The head's operands, each in the layouts that the products want; queries times the scale.
  void pack(const Task& task) {
    const std::int64_t n = task.length, row = task.row0;
    const auto scale = static_cast<A>(op_.scale);
    const std::int64_t q_stride = op_.q.row_stride(), kv_stride = op_.kv.row_stride();
    const std::int64_t rope_stride = op_.k_rope.row_stride(), do_stride = op_.d_o.row_stride();
    const T* q = op_.q.template as<T>() + row * q_stride + task.head * key_;
    const T* kv = op_.kv.template as<T>() + row * kv_stride + task.head * (nope_ + value_);
    const T* k_rope = op_.k_rope.template as<T>() + row * rope_stride;
    const T* d_o = op_.d_o.template as<T>() + row * do_stride + task.head * value_;
    for (std::int64_t r = 0; r < n; ++r) {
      for (std::int64_t c = 0; c < key_; ++c) {
        q_rows_[r * key_ + c] = to_acc(q[r * q_stride + c]) * scale;
      }
      widen_row(d_o + r * do_stride, value_, do_rows_ + r * value_);
      // Both parts of a key side by side in dq_'s place, so that they share panels.
      widen_row(kv + r * kv_stride, nope_, dq_);
      widen_row(k_rope + r * rope_stride, rope_, dq_ + nope_);
      pack_rows<A>(dq_, key_, 1, key_, A(1), k_, n, r);
    }
    pack_rows(q, q_stride, n, key_, scale, q_, n, 0);
    pack_rows(d_o, do_stride, n, value_, A(1), do_, n, 0);
    pack_columns(kv, kv_stride, n, nope_, k_columns_, key_, 0, 0);
    pack_columns(k_rope, rope_stride, n, rope_, k_columns_, key_, nope_, 0);
    pack_columns(kv + nope_, kv_stride, n, value_, v_columns_, value_, 0, 0);
  }

  void finish(const Task& task) {
    T* dkv =
        op_.dkv.template as<T>() + task.row0 * op_.dkv.row_stride() + task.head * (nope_ + value_);
    A* __restrict dk_rope = dk_rope_ + task.row0 * rope_;
    for (std::int64_t r = 0; r < task.length; ++r, dkv += op_.dkv.row_stride()) {
      const A* dk = dk_ + r * key_stride_;
      narrow_row(dk, nope_, dkv);
      narrow_row(dv_ + r * value_stride_, value_, dkv + nope_);
      for (std::int64_t c = 0; c < rope_; ++c) dk_rope[r * rope_ + c] += dk[nope_ + c];
    }
  }

  const AttentionBackward& op_;
  Carver carver_;
  std::int64_t nope_, rope_, value_, key_, key_stride_, value_stride_;
  A* dk_rope_;
  A* p_ = nullptr;          // [queries, keys]
  A* ds_ = nullptr;         // [queries, keys]
  A* dq_ = nullptr;         // [queries, key_stride]
  A* q_rows_ = nullptr;     // [length, key]
  A* do_rows_ = nullptr;    // [length, value]
  A* q_ = nullptr;          // panels [length, key]
  A* do_ = nullptr;         // panels [length, value]
  A* k_ = nullptr;          // panels [length, key]
  A* k_columns_ = nullptr;  // panels [key, length]
  A* v_columns_ = nullptr;  // panels [value, length]
  A* dk_ = nullptr;         // [length, key_stride]
  A* dv_ = nullptr;         // [length, value_stride]
};

template <class F>
void for_tasks(const AttentionBackward& op, F&& f) {
  const auto* offsets = op.segments.as<std::int32_t>();
  for (std::int64_t s = 0; s + 1 < op.segments.size(); ++s) {
    Task task;
    task.row0 = offsets[s];
    task.length = offsets[s + 1] - offsets[s];
    if (task.length == 0) continue;
    for (task.head = 0; task.head < op.shape.heads; ++task.head) f(task);
  }
}

template <class T>
void zero_rows(const View& view, std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    T* row = view.as<T>() + r * view.row_stride();
    for (std::int64_t c = 0; c < view.cols(); ++c) row[c] = from_acc<T>(acc_t<T>(0));
  }
}
template <class T>
void zero_rows(const AttentionBackward& op, std::int64_t begin, std::int64_t end) {
  zero_rows<T>(op.dq, begin, end);
  zero_rows<T>(op.dkv, begin, end);
  zero_rows<T>(op.dk_rope, begin, end);
}

// dk_rope = sum of the shares in their order.
template <class T>
void sum_shares(CpuContext& context, const View& dk_rope, const acc_t<T>* sums, int shares,
                std::int64_t begin, std::int64_t end) {
  using A = acc_t<T>;
  const std::int64_t rope = dk_rope.cols(), size = dk_rope.rows() * rope;
  parallel_for(context, threads_for(context, shares * size), end - begin, [&](std::int64_t i) {
    const std::int64_t r = begin + i;
    T* row = dk_rope.as<T>() + r * dk_rope.row_stride();
    for (std::int64_t c = 0; c < rope; ++c) {
      A sum = 0;
      for (int share = 0; share < shares; ++share) sum += sums[share * size + r * rope + c];
      row[c] = from_acc<T>(sum);
    }
  });
}

template <class T>
void backward(CpuContext& context, const AttentionBackward& op) {
  using A = acc_t<T>;
  const auto* offsets = op.segments.as<std::int32_t>();
  const std::int64_t count = op.segments.size() - 1, tokens = op.q.rows();
  zero_rows<T>(op, 0, count > 0 ? offsets[0] : 0);
  zero_rows<T>(op, offsets[count], tokens);
  std::int64_t longest = 0;
  double total = 0.0;
  for_tasks(op, [&](const Task& task) {
    longest = task.length > longest ? task.length : longest;
    total += cost_of(task);
  });
  if (longest == 0) return;
  const double width = op.shape.nope + op.shape.rope + op.shape.value;
  const int shares = threads_for(context, static_cast<std::int64_t>(total * width / 4.0));
  const std::size_t bytes = Worker<T>::scratch_bytes(op, longest);
  reserve_scratch(context, shares, bytes);
  const std::int64_t size = tokens * op.shape.rope;
  const auto sum_bytes = sizeof(A) * static_cast<std::size_t>(shares * size);
  A* sums = reinterpret_cast<A*>(context.scratch(context.threads(), sum_bytes));
  parallel(context, shares, [&](int share, int) {
    A* dk_rope = sums + share * size;
    for (std::int64_t i = 0; i < size; ++i) dk_rope[i] = A(0);
    Worker<T> worker(op, longest, context.scratch(share, bytes), dk_rope);
    Dealer dealer(total, shares);
    for_tasks(op, [&](const Task& task) {
      if (dealer.next(cost_of(task)) == share) worker.run(task);
    });
  });
  sum_shares<T>(context, op.dk_rope, sums, shares, offsets[0], offsets[count]);
}

}  // namespace

void run(CpuContext& context, const AttentionBackward& op) {
  op_check::row_offsets(op.kName, "segments", op.segments, op.q.rows());
  with_compute_type(op.q.dtype(), [&]<class T>() { backward<T>(context, op); });
}

}  // namespace ds::kernels::DSK_ISA
