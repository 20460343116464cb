#include "libcore/nn/op_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/block_quantise.h"
#include "kernels/cast.h"
#include "kernels/cross_entropy.h"
#include "kernels/gemm.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/router.h"
#include "kernels/swiglu.h"
#include "libcore/tensor/tensor.h"

namespace ds {

namespace {

using kernels::Gemm;
using kernels::GemmProblem;

constexpr std::int64_t kFlushBytes = std::int64_t{64} << 20;
constexpr std::int64_t kLogitElements = std::int64_t{16} << 20;  // as the head cuts its chunks
constexpr std::int64_t kRank = 8;

template <class F>
double seconds_of(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Small numbers of both signs: no product overflows and none is denormal.
void fill(Tensor& tensor) {
  const std::int64_t n = tensor.size();
  for (std::int64_t i = 0; i < n; ++i) {
    const auto step = static_cast<std::int32_t>(i * 7 % 31) - 15;
    switch (tensor.dtype()) {
      case DType::kF32:
        tensor.as<float>()[i] = 0.01f * static_cast<float>(step);
        break;
      case DType::kBF16:  // +-1/64 .. 1/32
        static_cast<std::uint16_t*>(tensor.data())[i] =
            static_cast<std::uint16_t>((step < 0 ? 0xbc80 : 0x3c80) + (i * 7 % 31));
        break;
      case DType::kF8E4M3:  // +-1 .. 1.875
        static_cast<std::uint8_t*>(tensor.data())[i] =
            static_cast<std::uint8_t>((step < 0 ? 0xb8 : 0x38) + (i % 8));
        break;
      default:
        return;  // integers: the caller's
    }
  }
}

class OpBench {
 public:
  OpBench(Device& device, const ModelConfig& config, const OpBenchRequest& request,
          const std::function<void(const std::string&, double)>& progress)
      : device_(device), c_(config), request_(request), progress_(progress) {}

  OpBenchResult run() {
    products();
    for (const auto& f : {&OpBench::norms, &OpBench::attention, &OpBench::router, &OpBench::swiglu,
                          &OpBench::cross_entropy, &OpBench::adamw, &OpBench::casts}) {
      (this->*f)();
    }
    return std::move(result_);
  }

 private:
  // A tensor that lives until the next case begins.
  View make(DType dtype, std::vector<std::int64_t> shape) {
    Tensor& tensor = tensors_.emplace_back(dtype, std::move(shape));
    fill(tensor);
    return tensor.view();
  }
  View make_indices(std::int64_t n, std::int64_t modulus, std::int64_t divisor = 1) {
    const View view = tensors_.emplace_back(DType::kI32, std::vector<std::int64_t>{n}).view();
    for (std::int64_t i = 0; i < n; ++i) {
      view.as<std::int32_t>()[i] = static_cast<std::int32_t>(i / divisor % modulus);
    }
    return view;
  }
  // Whether `elements` 4-byte numbers fit; else the case is named as left out.
  bool begin(const std::string& name, std::int64_t elements) {
    tensors_.clear();
    if (elements * 4 <= request_.memory) return true;
    result_.left_out.push_back(name);
    return false;
  }

  template <class Op>
  void time(const std::string& name, bool matrix, const Op& op) {
    OpTiming timing{.name = name, .cost = cost(op), .matrix = matrix, .cold = !matrix};
    if (timing.cold && !flush_) {
      flush_ = Tensor(DType::kF32, {kFlushBytes / 4});
    }
    device_.run(op);
    for (int i = 0; i < request_.repeats; ++i) {
      if (timing.cold) std::memset(flush_.data(), i, static_cast<std::size_t>(kFlushBytes));
      timing.seconds.push_back(seconds_of([&] { device_.run(op); }));
    }
    result_.timings.push_back(std::move(timing));
    const auto done = static_cast<double>(result_.timings.size());
    progress_(name, done / (done + 4.0));
  }

  void linear(const std::string& name, std::int64_t rows, std::int64_t in, std::int64_t out) {
    grouped(name, 1, rows, in, out);
  }

  // `count` weights [out, in], each met by `rows` rows: one call, as for the experts of a layer.
  void grouped(const std::string& name, std::int64_t count, std::int64_t rows, std::int64_t in,
               std::int64_t out) {
    const std::string shape = count == 1 ? fmt::format("{}x{}x{}", rows, out, in)
                                         : fmt::format("{}x{}x{}x{}", count, rows, out, in);
    if (!begin(fmt::format("gemm {} {}", name, shape),
               count * (out * in + rows * in + rows * out))) {
      return;
    }
    const View x = make(request_.dtype, {count * rows, in});
    const View y = make(request_.dtype, {count * rows, out});
    const View w = make(request_.dtype, {count * out, in});
    std::vector<GemmProblem> problems;
    for (std::int64_t i = 0; i < count; ++i) {
      problems.push_back({.a = x.slice_rows(i * rows, rows),
                          .b = w.slice_rows(i * out, out),
                          .c = y.slice_rows(i * rows, rows),
                          .trans_b = true});
    }
    time(fmt::format("gemm {} forward {}", name, shape), true, Gemm{problems});
    for (std::int64_t i = 0; i < count; ++i) {
      problems[static_cast<std::size_t>(i)] = {.a = y.slice_rows(i * rows, rows),
                                               .b = w.slice_rows(i * out, out),
                                               .c = x.slice_rows(i * rows, rows)};
    }
    time(fmt::format("gemm {} input_gradient {}", name, shape), true, Gemm{problems});
  }

  void products() {
    const std::int64_t t = request_.tokens;
    const std::int64_t d = c_.hidden_size;
    const std::int64_t h = c_.num_attention_heads;
    if (c_.q_lora_rank > 0) {
      linear("q_a_proj", t, d, c_.q_lora_rank);
      linear("q_b_proj", t, c_.q_lora_rank, h * c_.q_head_dim());
    } else {
      linear("q_proj", t, d, h * c_.q_head_dim());
    }
    linear("kv_a_proj_with_mqa", t, d, c_.kv_lora_rank + c_.qk_rope_head_dim);
    linear("kv_b_proj", t, c_.kv_lora_rank, h * (c_.qk_nope_head_dim + c_.v_head_dim));
    linear("o_proj", t, h * c_.v_head_dim, d);
    linear("mlp.gate_proj", t, d, c_.intermediate_size);
    linear("mlp.down_proj", t, c_.intermediate_size, d);
    if (c_.n_routed_experts > 0) {
      const std::int64_t rows =
          std::max<std::int64_t>(1, t * c_.num_experts_per_tok / c_.n_routed_experts);
      grouped("experts.gate_proj", c_.n_routed_experts, rows, d, c_.moe_intermediate_size);
      grouped("experts.down_proj", c_.n_routed_experts, rows, c_.moe_intermediate_size, d);
    }
    linear("lm_head", std::min(t, std::max<std::int64_t>(16, kLogitElements / c_.vocab_size)), d,
           c_.vocab_size);
    lora();
  }

  void lora() {
    const std::int64_t t = request_.tokens;
    const std::int64_t d = c_.hidden_size;
    const std::string shape = fmt::format("{}x{}x{}", t, kRank, d);
    if (!begin("gemm lora_A " + shape, t * (d + kRank) + 2 * kRank * d)) return;
    const View x = make(request_.dtype, {t, d});
    const View a = make(DType::kF32, {kRank, d});
    const View p = make(DType::kF32, {t, kRank});
    const View grad = make(DType::kF32, {kRank, d});
    const GemmProblem down{.a = x, .b = a, .c = p, .trans_b = true};
    time("gemm lora_A forward " + shape, true, Gemm{{&down, 1}});
    const GemmProblem gradient{.a = p, .b = x, .c = grad, .trans_a = true, .beta = 1.0};
    time("gemm lora_A weight_gradient " + shape, true, Gemm{{&gradient, 1}});
  }

  void norms() {
    const std::int64_t t = request_.tokens;
    const std::int64_t d = c_.hidden_size;
    if (!begin("rms_norm", 4 * t * d)) return;
    const View x = make(request_.dtype, {t, d});
    const View y = make(request_.dtype, {t, d});
    const View weight = make(DType::kF32, {d});
    const View rstd = make(DType::kF32, {t});
    const View dx = make(request_.dtype, {t, d});
    time("rms_norm_forward", false,
         kernels::RmsNormForward{.x = x, .weight = weight, .y = y, .rstd = rstd});
    time("rms_norm_backward", false,
         kernels::RmsNormBackward{.dy = y, .x = x, .weight = weight, .rstd = rstd, .dx = dx});
  }

  void attention() {
    const std::int64_t t = request_.tokens;
    const std::int64_t s = std::min(request_.seq_len, t);
    const std::int64_t h = c_.num_attention_heads;
    const std::int64_t q_width = h * c_.q_head_dim();
    const std::int64_t kv_width = h * (c_.qk_nope_head_dim + c_.v_head_dim);
    const std::int64_t o_width = h * c_.v_head_dim;
    if (!begin("attention", t * (2 * q_width + 2 * kv_width + 2 * o_width))) return;
    const std::int64_t r = c_.qk_rope_head_dim;
    const View q = make(request_.dtype, {t, q_width});
    const View positions = make_indices(t, s);
    const View cos = make(DType::kF32, {s, r / 2});
    const View sin = make(DType::kF32, {s, r / 2});
    time("rope", false,
         kernels::Rope{.x = q,
                       .positions = positions,
                       .cos = cos,
                       .sin = sin,
                       .heads = static_cast<int>(h),
                       .head_stride = c_.q_head_dim(),
                       .offset = c_.qk_nope_head_dim,
                       .interleaved = c_.rope_interleave});
    const kernels::MlaShape shape{.heads = static_cast<int>(h),
                                  .nope = static_cast<int>(c_.qk_nope_head_dim),
                                  .rope = static_cast<int>(r),
                                  .value = static_cast<int>(c_.v_head_dim)};
    const std::int64_t count = (t + s - 1) / s;
    const View segments = make_indices(count + 1, count + 1);
    for (std::int64_t i = 0; i <= count; ++i) {
      segments.as<std::int32_t>()[i] = static_cast<std::int32_t>(std::min(i * s, t));
    }
    const double scale = rope_settings(c_).softmax_scale;
    const View kv = make(request_.dtype, {t, kv_width});
    const View k_rope = make(request_.dtype, {t, r});
    const View o = make(request_.dtype, {t, o_width});
    const View lse = make(DType::kF32, {h, t});
    time("attention_forward", true,
         kernels::AttentionForward{.shape = shape,
                                   .scale = scale,
                                   .q = q,
                                   .kv = kv,
                                   .k_rope = k_rope,
                                   .segments = segments,
                                   .o = o,
                                   .lse = lse});
    const View d_o = make(request_.dtype, {t, o_width});
    const View dq = make(request_.dtype, {t, q_width});
    const View dkv = make(request_.dtype, {t, kv_width});
    const View dk_rope = make(request_.dtype, {t, r});
    time("attention_backward", true,
         kernels::AttentionBackward{.shape = shape,
                                    .scale = scale,
                                    .q = q,
                                    .kv = kv,
                                    .k_rope = k_rope,
                                    .segments = segments,
                                    .o = o,
                                    .lse = lse,
                                    .d_o = d_o,
                                    .dq = dq,
                                    .dkv = dkv,
                                    .dk_rope = dk_rope});
  }

  void router() {
    const std::int64_t experts = c_.n_routed_experts;
    if (experts == 0) return;
    const std::int64_t t = request_.tokens;
    const std::int64_t k = c_.num_experts_per_tok;
    if (!begin("router", t * (2 * experts + 2 * k))) return;
    using kernels::Scoring;
    using kernels::TopkMethod;
    const std::map<RouterMethod, TopkMethod> methods{
        {RouterMethod::kGreedy, TopkMethod::kGreedy},
        {RouterMethod::kGroupLimitedGreedy, TopkMethod::kGroupLimitedGreedy},
        {RouterMethod::kNoauxTc, TopkMethod::kNoauxTc}};
    const kernels::RouterSettings settings{
        .scoring = c_.scoring == RouterScoring::kSigmoid ? Scoring::kSigmoid : Scoring::kSoftmax,
        .method = methods.at(c_.method),
        .groups = static_cast<int>(c_.n_group),
        .kept_groups = static_cast<int>(c_.topk_group),
        .top_k = static_cast<int>(k),
        .normalise = c_.norm_topk_prob,
        .scale = c_.routed_scaling_factor};
    const View logits = make(DType::kF32, {t, experts});
    const View scores = make(DType::kF32, {t, experts});
    const View weights = make(DType::kF32, {t, k});
    const View chosen = make_indices(t * k, 1).reshape({t, k});
    time("router_forward", false,
         kernels::RouterForward{.settings = settings,
                                .logits = logits,
                                .scores = scores,
                                .experts = chosen,
                                .weights = weights});
    time("router_backward", false,
         kernels::RouterBackward{.settings = settings,
                                 .scores = scores,
                                 .experts = chosen,
                                 .d_weights = weights,
                                 .d_logits = logits});
  }

  void swiglu() {
    const bool moe = c_.n_routed_experts > 0;
    const std::int64_t rows = request_.tokens * (moe ? c_.num_experts_per_tok : 1);
    const std::int64_t width = moe ? c_.moe_intermediate_size : c_.intermediate_size;
    if (!begin("swiglu", rows * width * 3)) return;
    const View gate_up = make(request_.dtype, {rows, 2 * width});
    const View y = make(request_.dtype, {rows, width});
    time("swiglu_forward", false, kernels::SwigluForward{.gate_up = gate_up, .y = y});
    time("swiglu_backward", false,
         kernels::SwigluBackward{.dy = y, .gate_up = gate_up, .d_gate_up = gate_up});
  }

  void cross_entropy() {
    const std::int64_t rows =
        std::min(request_.tokens, std::max<std::int64_t>(16, kLogitElements / c_.vocab_size));
    if (!begin("cross_entropy", rows * c_.vocab_size)) return;
    const View logits = make(DType::kF32, {rows, c_.vocab_size});
    const View targets = make_indices(rows, c_.vocab_size);
    const View loss = make(DType::kF32, {rows});
    const View lse = make(DType::kF32, {rows});
    const View d_logits =
        request_.dtype == DType::kBF16 ? make(DType::kBF16, {rows, c_.vocab_size}) : logits;
    time("cross_entropy_forward", false,
         kernels::CrossEntropyForward{
             .logits = logits, .targets = targets, .loss = loss, .lse = lse});
    time("cross_entropy_backward", false,
         kernels::CrossEntropyBackward{
             .logits = logits, .targets = targets, .lse = lse, .scale = 1.0, .d_logits = d_logits});
  }

  void adamw() {
    constexpr std::int64_t kParameters = std::int64_t{4} << 20;
    if (!begin("adamw", 4 * kParameters)) return;
    const View m = make(DType::kF32, {kParameters});
    const View v = make(DType::kF32, {kParameters});
    std::memset(v.data(), 0, static_cast<std::size_t>(kParameters) * sizeof(float));
    const kernels::AdamWItem item{.param = make(DType::kF32, {kParameters}),
                                  .grad = make(DType::kF32, {kParameters}),
                                  .exp_avg = m,
                                  .exp_avg_sq = v,
                                  .lr = 1e-4};
    time("adamw", false, kernels::AdamW{.items = {&item, 1}});
  }

  void casts() {
    constexpr std::int64_t kRows = 2048;
    constexpr std::int64_t kCols = 4096;
    if (!begin("cast", kRows * kCols * 4)) return;
    const View f32 = make(DType::kF32, {kRows, kCols});
    const View bf16 = make(DType::kBF16, {kRows, kCols});
    const View f8 = make(DType::kF8E4M3, {kRows, kCols});
    const View scale = make(DType::kF32, {kRows / 128, kCols / 128});
    time("cast f32 to bf16", false, kernels::Cast{.src = f32, .dst = bf16});
    time("cast bf16 to f32", false, kernels::Cast{.src = bf16, .dst = f32});
    time("cast f8_e4m3 to f32", false, kernels::Cast{.src = f8, .scale = scale, .dst = f32});
    time("cast f8_e4m3 to bf16", false, kernels::Cast{.src = f8, .scale = scale, .dst = bf16});
    time("quantise f32 to f8_e4m3", false,
         kernels::BlockQuantise{.src = f32, .codes = f8, .scale = scale});
  }

  Device& device_;
  const ModelConfig& c_;
  const OpBenchRequest& request_;
  const std::function<void(const std::string&, double)>& progress_;
  std::deque<Tensor> tensors_;
  Tensor flush_;
  OpBenchResult result_;
};

}  // namespace

OpBenchResult bench_ops(Device& device, const ModelConfig& config, const OpBenchRequest& request,
                        const std::function<void(const std::string&, double)>& progress) {
  return OpBench(device, config, request, progress).run();
}

}  // namespace ds
