#include "libcore/check/inference_target.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "libcore/base/error.h"
#include "libcore/check/checks.h"
#include "libcore/config/inference_names.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// More ranks than any such model has experts: nothing is reserved by a name's say beyond that.
constexpr std::int64_t kMostRanks = 4096;

}  // namespace

InferenceTarget::InferenceTarget(const fs::path& folder, Findings& findings) : folder_(folder) {
  find_shards(findings);
  read_config(findings);
}

void InferenceTarget::find_shards(Findings& findings) {
  std::map<std::int64_t, std::int64_t> sets;  // ranks and files
  std::vector<std::string> stray;
  std::error_code code;
  for (fs::directory_iterator it(folder_, code), end; !code && it != end; it.increment(code)) {
    const std::string name = it->path().filename().string();
    if (!name.ends_with(".safetensors")) continue;
    const auto shard = parse_inference_shard(name);
    if (shard && shard->ranks <= kMostRanks) {
      ++sets[shard->ranks];
    } else {
      stray.push_back(name);
    }
  }
  if (code) throw Error(ExitCode::kIo, folder_.string() + ": cannot be read: " + code.message());
  std::sort(stray.begin(), stray.end());
  for (const std::string& name : stray) {
    const std::string file = (folder_ / name).string();
    findings.add(
        "inference-stray-file",
        {.file = file, .message = file + ": no shard of the inference layout by its name"});
  }
  if (sets.empty()) {
    complete_ = false;
    return;
  }
  const auto most = std::max_element(
      sets.begin(), sets.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  ranks_ = most->first;
  for (const auto& [ranks, files] : sets) {
    if (ranks == ranks_) continue;
    findings.add("inference-mixed-sets",
                 {.file = folder_.string(),
                  .message = fmt::format("{}: {} shards of a set of {} ranks, beside {} of {}",
                                         folder_.string(), files, ranks, most->second, ranks_),
                  .found = std::to_string(ranks),
                  .expected = std::to_string(ranks_)});
  }
  for (std::int64_t rank = 0; rank < ranks_; ++rank) {
    const fs::path path = folder_ / inference_shard_name(rank, ranks_);
    shards_.emplace_back();
    if (!fs::exists(path, code)) {
      complete_ = false;
      findings.add("inference-shard-missing",
                   {.file = path.string(),
                    .message = fmt::format("{}: there is no such file, {} shards are needed",
                                           path.string(), ranks_)});
      continue;
    }
    auto file = check_shard(path, findings);
    if (file) {
      shards_.back() = std::make_unique<SafetensorsFile>(std::move(*file));
    } else {
      complete_ = false;
    }
  }
}

void InferenceTarget::read_config(Findings& findings) {
  const std::string file = (folder_ / "config.json").string();
  std::error_code ignored;
  if (!fs::exists(file, ignored)) {
    findings.add("inference-without-config",
                 {.file = file, .message = file + ": there is no such file"});
    return;
  }
  std::optional<nlohmann::json> value = read_config_json(folder_, findings);
  if (!value) return;
  const bool demo = value->contains("dim") && value->contains("n_layers");
  nlohmann::json config = demo ? from_demo_config(*value) : *value;
  // The layout has no place for prediction layers.
  config["num_nextn_predict_layers"] = 0;
  config_ = read_model_config(config, file, findings);
  if (!demo) json_ = std::move(value);
}

json from_demo_config(const json& demo) {
  json out;
  const auto take = [&](const char* from, const char* to, const json& fallback) {
    out[to] = demo.contains(from) ? demo.at(from) : fallback;
  };
  take("vocab_size", "vocab_size", 102400);
  take("dim", "hidden_size", 2048);
  take("inter_dim", "intermediate_size", 10944);
  take("moe_inter_dim", "moe_intermediate_size", 1408);
  take("n_layers", "num_hidden_layers", 27);
  take("n_dense_layers", "first_k_dense_replace", 1);
  take("n_heads", "num_attention_heads", 16);
  out["num_key_value_heads"] = out["num_attention_heads"];
  take("n_routed_experts", "n_routed_experts", 64);
  take("n_shared_experts", "n_shared_experts", 2);
  take("n_activated_experts", "num_experts_per_tok", 6);
  take("n_expert_groups", "n_group", 1);
  take("n_limited_groups", "topk_group", 1);
  take("score_func", "scoring_func", "softmax");
  take("route_scale", "routed_scaling_factor", 1.0);
  take("q_lora_rank", "q_lora_rank", 0);
  if (out["q_lora_rank"] == 0) out["q_lora_rank"] = nullptr;
  take("kv_lora_rank", "kv_lora_rank", 512);
  take("qk_nope_head_dim", "qk_nope_head_dim", 128);
  take("qk_rope_head_dim", "qk_rope_head_dim", 64);
  take("v_head_dim", "v_head_dim", 128);
  take("max_seq_len", "max_position_embeddings", 16384);
  take("rope_theta", "rope_theta", 10000.0);
  const bool v3 = out["scoring_func"] == "sigmoid";
  const bool groups = out["n_group"] != 1;
  out["architectures"] = {v3 ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM"};
  out["model_type"] = v3 ? "deepseek_v3" : "deepseek_v2";
  out["topk_method"] = v3 ? "noaux_tc" : groups ? "group_limited_greedy" : "greedy";
  out["norm_topk_prob"] = v3;
  out["moe_layer_freq"] = 1;
  out["hidden_act"] = "silu";
  out["rms_norm_eps"] = 1e-6;
  return out;
}

nlohmann::ordered_json to_demo_config(const ModelConfig& config, bool fp8, bool ue8m0) {
  constexpr std::int64_t kLength = 16384;  // of ModelArgs
  nlohmann::ordered_json out;
  out["vocab_size"] = config.vocab_size;
  out["dim"] = config.hidden_size;
  out["inter_dim"] = config.intermediate_size;
  out["moe_inter_dim"] = config.moe_intermediate_size;
  out["n_layers"] = config.num_hidden_layers;
  out["n_dense_layers"] =
      config.n_routed_experts > 0 ? config.first_k_dense_replace : config.num_hidden_layers;
  out["n_heads"] = config.num_attention_heads;
  out["n_routed_experts"] = config.n_routed_experts;
  out["n_shared_experts"] = config.n_shared_experts;
  out["n_activated_experts"] = config.num_experts_per_tok;
  out["n_expert_groups"] = config.n_group;
  out["n_limited_groups"] = config.topk_group;
  out["score_func"] = config.scoring == RouterScoring::kSigmoid ? "sigmoid" : "softmax";
  out["route_scale"] = config.routed_scaling_factor;
  out["q_lora_rank"] = config.q_lora_rank;
  out["kv_lora_rank"] = config.kv_lora_rank;
  out["qk_nope_head_dim"] = config.qk_nope_head_dim;
  out["qk_rope_head_dim"] = config.qk_rope_head_dim;
  out["v_head_dim"] = config.v_head_dim;
  out["rope_theta"] = config.rope_theta;
  const std::int64_t original = config.yarn ? config.yarn->original_max_position : 0;
  const std::int64_t length =
      std::min(config.max_position_embeddings, std::max(kLength, 2 * original));
  out["max_seq_len"] = length;
  out["original_seq_len"] = config.yarn ? original : length;
  if (config.yarn) {
    out["rope_factor"] = config.yarn->factor;
    out["beta_fast"] = config.yarn->beta_fast;
    out["beta_slow"] = config.yarn->beta_slow;
    out["mscale"] = config.yarn->mscale_all_dim;
  }
  out["dtype"] = fp8 ? "fp8" : "bf16";
  if (ue8m0) out["scale_fmt"] = "ue8m0";
  return out;
}

}  // namespace ds::check
