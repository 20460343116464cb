// Which degrees of tensor parallelism can cut a model.
#include <fmt/format.h>

#include "libcore/base/format.h"
#include "libcore/check/compatibility.h"

namespace ds::check {
namespace {

constexpr std::int64_t kBlock = 128;

// A side of a weight that tensor parallelism cuts.
struct Cut {
  const char* tensor;
  const char* side;
  std::int64_t size;
  bool expert;
};

std::vector<Cut> cuts_of(const ModelConfig& config) {
  const std::int64_t heads = config.num_attention_heads;
  std::vector<Cut> cuts{
      {config.q_lora_rank > 0 ? "self_attn.q_b_proj.weight" : "self_attn.q_proj.weight", "rows",
       heads * config.q_head_dim(), false},
      {"self_attn.kv_b_proj.weight", "rows", heads * (config.qk_nope_head_dim + config.v_head_dim),
       false},
      {"self_attn.o_proj.weight", "columns", heads * config.v_head_dim, false}};
  if (config.n_routed_experts == 0 || config.first_k_dense_replace > 0) {
    cuts.push_back({"mlp.gate_proj.weight", "rows", config.intermediate_size, false});
  }
  if (config.n_routed_experts > 0) {
    const std::int64_t width = config.moe_intermediate_size;
    if (config.n_shared_experts > 0) {
      cuts.push_back(
          {"mlp.shared_experts.gate_proj.weight", "rows", config.n_shared_experts * width, false});
    }
    cuts.push_back({"mlp.experts.0.gate_proj.weight", "rows", width, true});
  }
  return cuts;
}

}  // namespace

TensorParallel tensor_parallel_degree(const ModelConfig& config, bool fp8, std::int64_t degree) {
  TensorParallel out{.degree = degree};
  if (degree == 1) return out;
  if (config.num_attention_heads % degree != 0) {
    out.fits = false;
    out.tensor = "self_attn.o_proj.weight";
    out.reason = fmt::format("{} heads are no multiple of it", config.num_attention_heads);
    return out;
  }
  for (const Cut& cut : cuts_of(config)) {
    std::string reason;
    if (cut.size % degree != 0) {
      reason = fmt::format("{} {} are no multiple of it", format_count(cut.size), cut.side);
    } else if (fp8 && (cut.size / degree) % kBlock != 0) {
      const std::int64_t part = cut.size / degree;
      reason = fmt::format("{} / {} = {} {}, {:g} blocks of 128", cut.size, degree, part, cut.side,
                           static_cast<double>(part) / static_cast<double>(kBlock));
    } else {
      continue;
    }
    if (out.reason.empty()) {
      out.tensor = cut.tensor;
      out.reason = reason;
    }
    (cut.expert ? out.experts_whole : out.fits) = false;
    if (!out.fits) return out;
  }
  return out;
}

std::vector<TensorParallel> tensor_parallel_degrees(const ModelConfig& config, bool fp8,
                                                    std::int64_t largest) {
  std::vector<TensorParallel> out;
  for (std::int64_t degree = 1; degree <= largest; degree *= 2) {
    out.push_back(tensor_parallel_degree(config, fp8, degree));
  }
  return out;
}

}  // namespace ds::check
