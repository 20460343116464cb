#include "kernels/router.h"

#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"
#include "kernels/op_check.h"

namespace ds::kernels::DSK_ISA {
namespace {

constexpr std::int64_t kWork = 8;  // of one expert of one token, in element visits

template <class A>
constexpr A kLowest = -__builtin_huge_val();

template <class A>
void score(const A* logits, std::int64_t n, Scoring scoring, A* scores) {
  if (scoring == Scoring::kSigmoid) {
#pragma omp simd
    for (std::int64_t e = 0; e < n; ++e) scores[e] = sigmoid(logits[e]);
    return;
  }
  const A largest = max_value(logits, n, kLowest<A>);
#pragma omp simd
  for (std::int64_t e = 0; e < n; ++e) scores[e] = exp_approx(logits[e] - largest);
  const A factor = A(1) / sum(scores, n);
  for (std::int64_t e = 0; e < n; ++e) scores[e] *= factor;
}

// A list of the `limit` largest values offered so far, falling; of equal values the one offered
// first wins. NaN counts as -inf, so that the list is always filled.
template <class A>
class Best {
 public:
  Best(A* values, std::int32_t* indices, int limit)
      : values_(values), indices_(indices), limit_(limit) {}
  void offer(A value, std::int32_t index) {
    const A key = value == value ? value : kLowest<A>;
    if (size_ == limit_ && !(key > values_[size_ - 1])) return;
    int at = size_ < limit_ ? size_++ : size_ - 1;
    for (; at > 0 && key > values_[at - 1]; --at) {
      values_[at] = values_[at - 1];
      indices_[at] = indices_[at - 1];
    }
    values_[at] = key;
    indices_[at] = index;
  }

 private:
  A* values_;
  std::int32_t* indices_;
  int limit_;
  int size_ = 0;
};

template <class A>
A group_score(const A* choice, std::int64_t n, TopkMethod method) {
  A first = kLowest<A>, second = kLowest<A>;
  for (std::int64_t e = 0; e < n; ++e) {
    if (choice[e] > first) {
      second = first;
      first = choice[e];
    } else if (choice[e] > second) {
      second = choice[e];
    }
  }
  return method == TopkMethod::kNoauxTc ? first + second : first;
}

// Working memory of one token.
template <class A>
struct Workspace {
  A* choice;                 // [experts] biased scores
  A* group_values;           // [kept_groups]
  A* top_values;             // [top_k]
  std::int32_t* kept;        // [kept_groups]
  unsigned char* in_choice;  // [groups]

  static std::size_t bytes(std::int64_t experts, const RouterSettings& s) {
    return static_cast<std::size_t>(experts + s.kept_groups + s.top_k) * sizeof(A) +
           static_cast<std::size_t>(s.kept_groups) * sizeof(std::int32_t) +
           static_cast<std::size_t>(s.groups);
  }
  Workspace(std::byte* memory, std::int64_t experts, const RouterSettings& s)
      : choice(reinterpret_cast<A*>(memory)),
        group_values(choice + experts),
        top_values(group_values + s.kept_groups),
        kept(reinterpret_cast<std::int32_t*>(top_values + s.top_k)),
        in_choice(reinterpret_cast<unsigned char*>(kept + s.kept_groups)) {}
};

template <class A>
void choose(const Workspace<A>& w, std::int64_t experts, const RouterSettings& s,
            std::int32_t* chosen) {
  Best<A> best(w.top_values, chosen, s.top_k);
  if (s.method == TopkMethod::kGreedy || s.groups == 1) {
    for (std::int64_t e = 0; e < experts; ++e) best.offer(w.choice[e], static_cast<int>(e));
    return;
  }
  const std::int64_t size = experts / s.groups;
  Best<A> groups(w.group_values, w.kept, s.kept_groups);
  for (int g = 0; g < s.groups; ++g) {
    w.in_choice[g] = 0;
    groups.offer(group_score(w.choice + g * size, size, s.method), g);
  }
  for (int g = 0; g < s.kept_groups; ++g) w.in_choice[w.kept[g]] = 1;
  // A dropped group, worth -inf, is not offered at all: it can never fill a place, not even where
  // kept experts are worth -inf themselves.
  for (int g = 0; g < s.groups; ++g) {
    if (w.in_choice[g] == 0) continue;
    for (std::int64_t e = g * size; e < (g + 1) * size; ++e) {
      best.offer(w.choice[e], static_cast<int>(e));
    }
  }
}

template <class A>
A normaliser(const A* scores, const std::int32_t* chosen, const RouterSettings& s) {
  if (!s.normalise) return A(1);
  A total = 0;
  for (int k = 0; k < s.top_k; ++k) total += scores[chosen[k]];
  return total + A(1e-20);
}

template <class A>
void forward(CpuContext& context, const RouterForward& op) {
  const RouterSettings& s = op.settings;
  const std::int64_t tokens = op.logits.rows(), experts = op.logits.cols();
  const A* logits = op.logits.as<A>();
  const A* bias = op.bias ? op.bias.as<A>() : nullptr;
  A* scores = op.scores.as<A>();
  auto* chosen = op.experts.as<std::int32_t>();
  A* weights = op.weights.as<A>();
  const auto scale = static_cast<A>(s.scale);
  const std::size_t bytes = Workspace<A>::bytes(experts, s);
  const int threads = threads_for(context, kWork * tokens * experts);
  reserve_scratch(context, threads, bytes);
  parallel(context, threads, [&](int me, int team) {
    const Workspace<A> w(context.scratch(me, bytes), experts, s);
    for (std::int64_t t = tokens * me / team; t < tokens * (me + 1) / team; ++t) {
      A* row_scores = scores + t * op.scores.row_stride();
      std::int32_t* row_chosen = chosen + t * op.experts.row_stride();
      A* row_weights = weights + t * op.weights.row_stride();
      score(logits + t * op.logits.row_stride(), experts, s.scoring, row_scores);
      for (std::int64_t e = 0; e < experts; ++e) {
        w.choice[e] = bias == nullptr ? row_scores[e] : row_scores[e] + bias[e];
      }
      choose(w, experts, s, row_chosen);
      const A total = normaliser(row_scores, row_chosen, s);
      for (int k = 0; k < s.top_k; ++k) row_weights[k] = row_scores[row_chosen[k]] / total * scale;
    }
  });
}

// Of one token, into d_logits: first d score of the chosen experts, 0 elsewhere.
template <class A>
void backward_row(const RouterSettings& s, std::int64_t experts, const A* scores,
                  const std::int32_t* chosen, const A* d_weights, A* d_logits) {
  const auto scale = static_cast<A>(s.scale);
  for (std::int64_t e = 0; e < experts; ++e) d_logits[e] = A(0);
  const A total = normaliser(scores, chosen, s);
  A along = 0;  // the normaliser's share
  if (s.normalise) {
    for (int k = 0; k < s.top_k; ++k) along += d_weights[k] * (scores[chosen[k]] / total);
  }
  for (int k = 0; k < s.top_k; ++k) {
    d_logits[chosen[k]] += scale * (d_weights[k] - along) / total;
  }
  if (s.scoring == Scoring::kSigmoid) {
    for (int k = 0; k < s.top_k; ++k) {
      const A value = scores[chosen[k]];
      d_logits[chosen[k]] *= value * (A(1) - value);
    }
    return;
  }
  const A mean = dot(d_logits, scores, experts);
  for (std::int64_t e = 0; e < experts; ++e) d_logits[e] = scores[e] * (d_logits[e] - mean);
}

template <class A>
void backward(CpuContext& context, const RouterBackward& op) {
  const std::int64_t tokens = op.scores.rows(), experts = op.scores.cols();
  const A* scores = op.scores.as<A>();
  const auto* chosen = op.experts.as<std::int32_t>();
  const A* d_weights = op.d_weights.as<A>();
  A* d_logits = op.d_logits.as<A>();
  parallel_for(context, threads_for(context, tokens * experts), tokens, [&](std::int64_t t) {
    backward_row(op.settings, experts, scores + t * op.scores.row_stride(),
                 chosen + t * op.experts.row_stride(), d_weights + t * op.d_weights.row_stride(),
                 d_logits + t * op.d_logits.row_stride());
  });
}

}  // namespace

void run(CpuContext& context, const RouterForward& op) {
  if (op.logits.dtype() == DType::kF64) return forward<double>(context, op);
  forward<float>(context, op);
}

void run(CpuContext& context, const RouterBackward& op) {
  op_check::indices_below(op.kName, "experts", op.experts, op.scores.cols());
  if (op.scores.dtype() == DType::kF64) return backward<double>(context, op);
  backward<float>(context, op);
}

}  // namespace ds::kernels::DSK_ISA
