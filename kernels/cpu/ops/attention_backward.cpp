#include "kernels/attention.h"
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
  static constexpr bool kWidened = dtype_of_v<T> == DType::kBF16;

  // `dk_rope` [tokens, rope]: this share's sums over heads.
  Worker(const AttentionBackward& op, std::int64_t longest, std::byte* memory, A* dk_rope)
      : op_(op),
        carver_(memory),
        nope_(op.shape.nope),
        rope_(op.shape.rope),
        value_(op.shape.value),
        key_(nope_ + rope_),
        dk_rope_(dk_rope) {
    const std::int64_t block = kQueries * score_stride(least(longest, kKeys));
    p_ = carver_.take<A>(block);
    ds_ = carver_.take<A>(block);
    along_ = carver_.take<A>(kQueries);
    if constexpr (kWidened) {
      q_copy_ = carver_.take<A>(longest * key_);
      k_copy_ = carver_.take<A>(longest * key_);
      v_copy_ = carver_.take<A>(longest * value_);
      do_copy_ = carver_.take<A>(longest * value_);
      dq_copy_ = carver_.take<A>(longest * key_);
      dkv_copy_ = carver_.take<A>(longest * (nope_ + value_));
    }
  }
  static std::size_t scratch_bytes(const AttentionBackward& op, std::int64_t longest) {
    return Worker(op, longest, nullptr, nullptr).carver_.used();
  }

  bool run(const Task& task) {
    open(task);
    clear(dkv_, task.length, nope_ + value_);
    const std::int64_t blocks = (task.length + kQueries - 1) / kQueries;
    const std::int64_t block = (task.length + blocks - 1) / blocks;
    bool ok = true;
    for (std::int64_t i = 0; i < task.length; i += block) {
      const std::int64_t count = least(block, task.length - i);
      for (std::int64_t r = 0; r < count; ++r) {
        along_[r] = dot(d_o_narrow_ + (i + r) * op_.d_o.row_stride(),
                        o_narrow_ + (i + r) * op_.o.row_stride(), value_);
      }
      for (std::int64_t j = 0; j < i + count; j += kKeys) {
        ok &= run_block(task, i, count, j, least(kKeys, i + count - j));
      }
    }
    close(task);
    return ok;
  }

 private:
  // Queries [i, i + m) against keys [j, j + n).
  bool run_block(const Task& task, std::int64_t i, std::int64_t m, std::int64_t j, std::int64_t n) {
    const auto scale = static_cast<A>(op_.scale);
    const Tile<A> p{p_, score_stride(n)}, ds{ds_, score_stride(n)};
    const Tile<const A> q = q_.at(i), d_o = do_.at(i);
    const Tile<A> dkv = dkv_.at(j);
    bool ok = multiply(Form::kNT, m, n, nope_, scale, q, k_nope_.at(j), A(0), p);
    ok &= multiply(Form::kNT, m, n, rope_, scale, q.at(0, nope_), k_rope_.at(j), A(1), p);
    ok &= multiply(Form::kNT, m, n, value_, A(1), d_o, v_.at(j), A(0), ds);
    const A* lse = op_.lse.template as<A>() + task.head * op_.lse.row_stride() + task.row0 + i;
    for (std::int64_t r = 0; r < m; ++r) {
      const std::int64_t seen = i + r + 1 - j;
      gradient_row(p.at(r).data, ds.at(r).data, seen < 0 ? 0 : least(seen, n), n, lse[r], along_[r],
                   scale);
    }
    ok &= multiply(Form::kTN, n, value_, m, A(1), p, d_o, A(1), dkv.at(0, nope_));
    const A before = j == 0 ? A(0) : A(1);
    ok &= multiply(Form::kNN, m, nope_, n, A(1), ds, k_nope_.at(j), before, dq_.at(i));
    ok &= multiply(Form::kNN, m, rope_, n, A(1), ds, k_rope_.at(j), before, dq_.at(i, nope_));
    ok &= multiply(Form::kTN, n, nope_, m, A(1), ds, q, A(1), dkv);
    const Tile<A> dk_rope{dk_rope_ + (task.row0 + j) * rope_, rope_};
    ok &= multiply(Form::kTN, n, rope_, m, A(1), ds, q.at(0, nope_), A(1), dk_rope);
    return ok;
  }

  // p: scaled scores -> probabilities rounded to T. ds: dO . v -> gradient of q . k.
  static void gradient_row(A* __restrict p, A* __restrict ds, std::int64_t visible, std::int64_t n,
                           A lse, A along, A scale) {
    for (std::int64_t c = 0; c < visible; ++c) {
      const A probability = exp_approx(p[c] - lse);
      ds[c] = probability * (ds[c] - along) * scale;
      p[c] = to_acc(from_acc<T>(probability));
    }
    for (std::int64_t c = visible; c < n; ++c) p[c] = ds[c] = A(0);
  }

  // Points the tiles at the operands of the task, or at widened copies of them.
  void open(const Task& task) {
    const std::int64_t row = task.row0;
    const T* q = op_.q.template as<T>() + row * op_.q.row_stride() + task.head * key_;
    const T* kv =
        op_.kv.template as<T>() + row * op_.kv.row_stride() + task.head * (nope_ + value_);
    const T* k_rope = op_.k_rope.template as<T>() + row * op_.k_rope.row_stride();
    o_narrow_ = op_.o.template as<T>() + row * op_.o.row_stride() + task.head * value_;
    d_o_narrow_ = op_.d_o.template as<T>() + row * op_.d_o.row_stride() + task.head * value_;
    if constexpr (kWidened) {
      const std::int64_t n = task.length;
      widen(q, op_.q.row_stride(), n, key_, Tile<A>{q_copy_, key_});
      widen(kv, op_.kv.row_stride(), n, nope_, Tile<A>{k_copy_, key_});
      widen(k_rope, op_.k_rope.row_stride(), n, rope_, Tile<A>{k_copy_ + nope_, key_});
      widen(kv + nope_, op_.kv.row_stride(), n, value_, Tile<A>{v_copy_, value_});
      widen(d_o_narrow_, op_.d_o.row_stride(), n, value_, Tile<A>{do_copy_, value_});
      q_ = {q_copy_, key_};
      k_nope_ = {k_copy_, key_};
      k_rope_ = {k_copy_ + nope_, key_};
      v_ = {v_copy_, value_};
      do_ = {do_copy_, value_};
      dq_ = {dq_copy_, key_};
      dkv_ = {dkv_copy_, nope_ + value_};
    } else {
      q_ = {q, op_.q.row_stride()};
      k_nope_ = {kv, op_.kv.row_stride()};
      k_rope_ = {k_rope, op_.k_rope.row_stride()};
      v_ = {kv + nope_, op_.kv.row_stride()};
      do_ = {d_o_narrow_, op_.d_o.row_stride()};
      dq_ = {dq_out(task), op_.dq.row_stride()};
      dkv_ = {dkv_out(task), op_.dkv.row_stride()};
    }
  }
  void close(const Task& task) {
    if constexpr (kWidened) {
      narrow<T>(dq_, task.length, key_, dq_out(task), op_.dq.row_stride());
      narrow<T>(dkv_, task.length, nope_ + value_, dkv_out(task), op_.dkv.row_stride());
    }
  }
  T* dq_out(const Task& task) const {
    return op_.dq.template as<T>() + task.row0 * op_.dq.row_stride() + task.head * key_;
  }
  T* dkv_out(const Task& task) const {
    return op_.dkv.template as<T>() + task.row0 * op_.dkv.row_stride() +
           task.head * (nope_ + value_);
  }

  const AttentionBackward& op_;
  Carver carver_;
  std::int64_t nope_, rope_, value_, key_;
  A* dk_rope_;
  A* p_ = nullptr;
  A* ds_ = nullptr;
  A* along_ = nullptr;  // per query: dO . o
  A* q_copy_ = nullptr;
  A* k_copy_ = nullptr;
  A* v_copy_ = nullptr;
  A* do_copy_ = nullptr;
  A* dq_copy_ = nullptr;
  A* dkv_copy_ = nullptr;
  const T* o_narrow_ = nullptr;
  const T* d_o_narrow_ = nullptr;
  Tile<const A> q_, k_nope_, k_rope_, v_, do_;
  Tile<A> dq_, dkv_;
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
  int failures = 0;
  parallel(context, shares, [&](int share, int) {
    A* dk_rope = sums + share * size;
    for (std::int64_t i = 0; i < size; ++i) dk_rope[i] = A(0);
    Worker<T> worker(op, longest, context.scratch(share, bytes), dk_rope);
    Dealer dealer(total, shares);
    for_tasks(op, [&](const Task& task) {
      if (dealer.next(cost_of(task)) == share && !worker.run(task)) count_one(failures);
    });
  });
  if (failures > 0) op_check::out_of_memory();
  sum_shares<T>(context, op.dk_rope, sums, shares, offsets[0], offsets[count]);
}

}  // namespace

void run(CpuContext& context, const AttentionBackward& op) {
  op_check::row_offsets(op.kName, "segments", op.segments, op.q.rows());
  with_compute_type(op.q.dtype(), [&]<class T>() { backward<T>(context, op); });
}

}  // namespace ds::kernels::DSK_ISA
