// What the stacks take of an adapter, PEFT's or GGUF, and refuse (docs/compatibility.md).
#include "libcore/check/stack_rows.h"

namespace ds::check {
namespace {

constexpr const char* kRuns = "runs of peft 0.18.1 and 0.21.2 with transformers 4.57.6 and 5.24.0";
constexpr const char* kLlamaAdapter = "ggml-org/llama.cpp, src/llama-adapter.cpp";

class AdapterStack : public StackRows {
 public:
  using StackRows::StackRows;

  CompatibilityRows run() {
    in_.is_gguf() ? gguf() : adapter();
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
      no_adapters();
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

  void no_adapters() {
    refuses("target-layout", "adapters", "the demo has no adapters", kMerge, kDemoSource);
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
            "deepseek-convert adapter IN OUT.gguf --to gguf_lora --model MODEL", kLlamaSource);
    const AdapterFacts& facts = in_.adapter;
    refuse_for("target-adapter-feature", "whole weights", "ggml-org/llama.cpp issue 11554",
               {"extra-weights", "full-weight"});
    refuse_for("target-adapter-feature", "settings", kLlamaSource, {"uncommon-setting"});
    if (facts.dora) {
      const Finding place{.file = in_.file("adapter_config.json"), .key = "use_dora"};
      refuses("target-adapter-feature", "DoRA", "a GGUF adapter has no place for magnitudes",
              kMerge, kLlamaSource, &place);
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

  // ---- a GGUF adapter

  void gguf() {
    if (stack_ == Stack::kInference) {
      no_adapters();
    } else if (stack_ != Stack::kLlamaCpp) {
      refuses("target-layout", "layout", "a GGUF adapter, a folder as PEFT writes it is needed",
              "take the folder that it was made from: nothing leads back from a GGUF adapter",
              "huggingface/peft, docs checkpoint.md");
    } else {
      llama_gguf();
    }
  }

  void llama_gguf() {
    if (refuse_for("target-files", "files", "ggml-org/llama.cpp, ggml/src/gguf.cpp",
                   {"lfs-pointer", "web-page", "wrong-container", "gguf-magic", "gguf-version",
                    "gguf-counts", "gguf-truncated", "gguf-text", "gguf-value", "gguf-duplicate",
                    "gguf-alignment", "gguf-tensor-size", "gguf-tensor-type", "gguf-overlap",
                    "gguf-misaligned", "gguf-hole"})) {
      return;
    }
    if (!refuse_for("target-adapter-keys", "keys", kLlamaAdapter,
                    {"gguf-architecture", "gguf-adapter-keys", "full-weight", "half-pair",
                     "adapter-shape", "pair-rank", "key-matches-nothing", "key-unmatched"})) {
      ok("keys", "adapter.type lora, pairs of lora_a and lora_b", kLlamaAdapter);
    }
    if (!refuse_for("target-adapter-feature", "type", kLlamaAdapter, {"adapter-dtype"})) {
      ok("type", "LoRA", kLlamaAdapter);
    }
    gguf_base();
    gguf_modules();
  }

  // llama.cpp gives the adapter to a GGUF model, whose tensors must have the adapter's names.
  void gguf_base() {
    const AdapterFacts& facts = in_.adapter;
    const auto form = [](GgufMla mla) { return mla == GgufMla::kSplit ? "split" : "unsplit"; };
    if (!facts.base_kind) {
      needs("base", "no model was named beside it, its tensors were compared with none",
            "--model MODEL.gguf here; llama-cli -m MODEL.gguf --lora ADAPTER.gguf there",
            kLlamaAdapter);
    } else if (*facts.base_kind != TargetKind::kGguf) {
      needs("base", fmt::format("the model beside it is a {}", target_name(*facts.base_kind)),
            fmt::format("deepseek-convert weights IN OUT.gguf --to gguf --mla {}", form(facts.mla)),
            kLlamaAdapter);
    } else if (!facts.mla_tensor.empty() && facts.mla != facts.base_mla) {
      const Finding place{.file = in_.input.path.string(), .tensor = facts.mla_tensor};
      refuses(
          "target-adapter-keys", "base",
          fmt::format("{} is of a model whose kv_b is {}, in the model beside it it is {}",
                      facts.mla_tensor, form(facts.mla), form(facts.base_mla)),
          fmt::format("deepseek-convert weights IN OUT.gguf --to gguf --mla {}", form(facts.mla)),
          "ggml-org/llama.cpp PR 12801", &place);
    } else {
      ok("base", "the GGUF model beside it has its tensors", kLlamaAdapter);
    }
  }

  void gguf_modules() {
    const AdapterFacts& facts = in_.adapter;
    if (facts.graph_plain.empty()) {
      ok("modules", "all are asked for adapters", "docs/merge.md");
      return;
    }
    add("modules", Verdict::kNeeds,
        fmt::format("{} are multiplied without asking for adapters: that part is lost without a "
                    "word",
                    some_names(facts.graph_plain, "tensor")),
        "a build that asks for them (compare answers); else " + std::string(kMerge) +
            " with the folder it was made from, then --to gguf",
        "docs/merge.md; llama.cpp at 07bede6", "target-adapter-graph");
    rows_.back().tensor = facts.graph_plain.front();
  }
};

}  // namespace

CompatibilityRows adapter_stack_rows(const InputFacts& input, Stack stack) {
  return AdapterStack(input, stack).run();
}

}  // namespace ds::check
