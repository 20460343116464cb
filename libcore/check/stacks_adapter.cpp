// What the stacks take of an adapter, and refuse (docs/compatibility.md).
#include "libcore/check/stack_rows.h"

namespace ds::check {
namespace {

constexpr const char* kDemo = "deepseek-ai/DeepSeek-V3 inference/model.py";
constexpr const char* kRuns = "runs of peft 0.18.1 and 0.21.2 with transformers 4.57.6 and 5.24.0";
constexpr const char* kLlama =
    "ggml-org/llama.cpp, conversion/deepseek.py and models/deepseek2.cpp";

class AdapterStack : public StackRows {
 public:
  using StackRows::StackRows;

  CompatibilityRows run() {
    adapter();
    return std::move(rows_);
  }

 private:
  void adapter() {
    if (stack_ == Stack::kTransformers) {
      needs("adapters", "loads them through PEFT", "see the rows of peft",
            "transformers, integrations/peft.py");
      return;
    }
    if (stack_ == Stack::kInference) {
      refuses("target-layout", "adapters", "the demo has no adapters", kMerge, kDemo);
      return;
    }
    if (refuse_for(
            "target-adapter-keys", "keys", "vllm-project/vllm issues 34186, 55193",
            {"adapter-config-missing", "adapter-config-syntax", "adapter-weights-missing",
             "key-prefix", "key-matches-nothing", "key-unmatched", "adapter-name-in-key",
             "half-pair", "adapter-shape", "pair-rank", "adapter-rank", "targets-match-nothing"})) {
      return;
    }
    ok("keys", "as PEFT writes them", "huggingface/peft, docs checkpoint.md");
    if (!refuse_for("target-adapter-feature", "type", "huggingface/peft, tuners/lora/config.py",
                    {"adapter-type", "fan-in-fan-out", "adapter-dtype"})) {
      ok("type", "LoRA", "huggingface/peft, tuners/lora/config.py");
    }
    switch (stack_) {
      case Stack::kPeft:
        peft();
        break;
      case Stack::kLlamaCpp:
        llama_adapter();
        break;
      default:
        served();
    }
  }

  void peft() {
    if (const Finding* fused = in_.find("fused-keys")) {
      refuses("target-adapter-version", "PEFT 0.18",
              "experts stand in the fused form of transformers 5", kToPeft,
              "huggingface/peft issue 3009", fused);
    } else {
      ok("PEFT 0.18", "loads as meant (transformers 4.57)", kRuns);
    }
    bool any_found = false;
    for (const char* rule :
         {"mlp-leaf-targets", "some-expert-projections", "rslora-experts", "dropout-experts",
          "dora-mlp", "expert-ranks", "all-linear", "router-target"}) {
      const Finding* finding = in_.find(rule);
      if (finding == nullptr) continue;
      any_found = true;
      refuses("target-adapter-version", "PEFT 0.21",
              fmt::format("{} ({}): {}", finding->message, finding->rule->id, finding->rule->why),
              std::string(rule) == "dora-mlp" ? kMerge : kToPeft, kRuns, finding);
    }
    if (!any_found) ok("PEFT 0.21", "loads as meant (transformers 5)", kRuns);
  }

  void served() {
    const AdapterFacts& facts = in_.adapter;
    refuse_for("target-adapter-feature", "file", engine().lora_source, {"adapter-pickle"});
    refuse_for("target-adapter-feature", "whole weights", engine().lora_source,
               {"extra-weights", "full-weight"});
    refuse_for("target-adapter-feature", "settings", engine().lora_source, {"uncommon-setting"});
    if (facts.dora) {
      const Finding place{.file = in_.file("adapter_config.json"), .key = "use_dora"};
      refuses("target-adapter-feature", "DoRA", "use_dora is true: magnitudes are not read", kMerge,
              engine().lora_source, &place);
    } else {
      ok("DoRA", "not in use", engine().lora_source);
    }
    if (engine().largest_rank > 0 && facts.rank > engine().largest_rank) {
      const Finding place{.file = in_.file("adapter_config.json"), .key = "r"};
      refuses("target-adapter-feature", "rank",
              fmt::format("rank {}, the largest is {}", facts.rank, engine().largest_rank), kMerge,
              engine().lora_source, &place);
    } else if (engine().default_rank > 0 && facts.rank > engine().default_rank) {
      needs("rank",
            fmt::format("rank {} is above the default of {}", facts.rank, engine().default_rank),
            fmt::format("--max-lora-rank {}", facts.rank), engine().lora_source);
    } else {
      ok("rank", fmt::format("rank {}", facts.rank), engine().lora_source);
    }
    if (facts.rslora) {
      needs("rsLoRA",
            facts.experts ? "use_rslora was ignored on experts, in older versions everywhere"
                          : "use_rslora was ignored in older versions",
            std::string(kToPeft) + " writes it as plain LoRA",
            "vllm-project/vllm issues 10798, 55545");
    }
    if (!facts.kv_b.empty()) {
      const Finding place{.file = in_.file("adapter_model.safetensors"),
                          .tensor = facts.kv_b.front()};
      refuses("target-adapter-modules", "kv_b_proj",
              fmt::format("{} modules kv_b_proj are adapted: absorbed MLA leaves that part out "
                          "without a word",
                          facts.kv_b.size()),
              kMerge, engine().kv_b_source, &place);
    }
    if (const Finding* fused = in_.find("fused-keys")) {
      refuses("target-adapter-modules", "experts", fused->message, kToPeft,
              "huggingface/peft issue 3009", fused);
    } else if (facts.experts) {
      needs("experts", "routed experts are adapted one by one",
            "a version with LoRA on MoE layers; test the served model",
            "vLLM and SGLang documentation, LoRA");
    }
    if (facts.parameters) {
      needs("target_parameters", "how this engine reads target_parameters was not seen",
            "test the served model, or " + std::string(kMerge), "not verified");
    }
    if (facts.embeddings) {
      needs("embedding and head", "not every version adapts embed_tokens and lm_head",
            "test the served model, or " + std::string(kMerge), "vLLM documentation, LoRA");
    }
  }

  void llama_adapter() {
    refuses("target-layout", "layout", "a GGUF adapter is needed, this is a folder of safetensors",
            "deepseek-convert adapter IN OUT.gguf --to gguf_lora --model MODEL", kLlama);
    const AdapterFacts& facts = in_.adapter;
    refuse_for("target-adapter-feature", "whole weights", "ggml-org/llama.cpp issue 11554",
               {"extra-weights", "full-weight"});
    refuse_for("target-adapter-feature", "settings", kLlama, {"uncommon-setting"});
    if (facts.dora) {
      const Finding place{.file = in_.file("adapter_config.json"), .key = "use_dora"};
      refuses("target-adapter-feature", "DoRA", "a GGUF adapter has no place for magnitudes",
              kMerge, kLlama, &place);
    }
    if (!facts.graph_plain.empty()) {
      const Finding place{.file = in_.file("adapter_model.safetensors"),
                          .tensor = facts.graph_plain.front()};
      refuses("target-adapter-modules", "modules",
              fmt::format("{} are multiplied without asking for adapters: that part is lost "
                          "without a word",
                          some_names(facts.graph_plain, "module")),
              std::string(kMerge) + ", then --to gguf", "docs/merge.md; llama.cpp at 07bede6",
              &place);
    } else {
      ok("modules", "all are asked for adapters", "docs/merge.md");
    }
  }
};

}  // namespace

CompatibilityRows adapter_stack_rows(const InputFacts& input, Stack stack) {
  return AdapterStack(input, stack).run();
}

}  // namespace ds::check
