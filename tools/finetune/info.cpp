#include "tools/finetune/info.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "libcore/base/format.h"
#include "tools/finetune/plan_report.h"
#include "tools/finetune/session.h"

namespace ds::finetune {

void run_info(const InfoSettings& settings, cli::Run& run) {
  const BaseModel base = find_base(settings.model);
  const ModelConfig& c = base.config;
  const AdapterPlan plan = settings.adapter_folder.empty()
                               ? plan_adapter(settings.adapter, base)
                               : plan_adapter_folder(settings.adapter_folder, c);
  const ParameterCounts counts = count_parameters(c);
  const std::int64_t total = counts.total();
  const double share = static_cast<double>(plan.trainable) / static_cast<double>(total);
  const std::map<std::string, std::int64_t> by_kind{{"embedding", counts.embedding},
                                                    {"head", counts.head},
                                                    {"attention", counts.attention},
                                                    {"mlp", counts.mlp},
                                                    {"shared_experts", counts.shared_experts},
                                                    {"experts", counts.experts},
                                                    {"router", counts.router},
                                                    {"norms", counts.norms}};

  std::string text;
  text += fmt::format("{} ({})\n", c.architecture, base.folder.string());
  text += fmt::format("  layers          {} ({} dense)\n", c.num_hidden_layers,
                      std::min(c.first_k_dense_replace, c.num_hidden_layers));
  text += fmt::format(
      "  hidden          {}, {} heads (nope {}, rope {}, value {}), q_lora {}, kv_lora {}\n",
      c.hidden_size, c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim,
      c.q_lora_rank > 0 ? std::to_string(c.q_lora_rank) : "none", c.kv_lora_rank);
  if (c.n_routed_experts > 0) {
    text += fmt::format("  experts         {} routed ({} a token), {} shared, {} of {} groups\n",
                        c.n_routed_experts, c.num_experts_per_tok, c.n_shared_experts, c.topk_group,
                        c.n_group);
  }
  text += fmt::format("  vocabulary      {}\n", format_count(c.vocab_size));
  text += fmt::format("  parameters      {}: {}\n", format_count(total), kinds_text(by_kind));
  text += fmt::format("  activated       {} a token, embedding and head included\n",
                      format_count(activated_parameters(c)));
  text += fmt::format("  trainable       {} ({:.4f} %) with {}: {}\n", format_count(plan.trainable),
                      100.0 * share, describe(settings.adapter, plan), kinds_text(plan.by_kind));
  run.product(text, {{"architecture", c.architecture},
                     {"model_type", c.model_type},
                     {"parameters", total},
                     {"activated_parameters", activated_parameters(c)},
                     {"parameters_by_kind", by_kind},
                     {"trainable_parameters", plan.trainable},
                     {"trainable_share", share},
                     {"trainable_by_kind", plan.by_kind},
                     {"lora_r", plan.full ? 0 : plan.lora.r}});
}

}  // namespace ds::finetune
