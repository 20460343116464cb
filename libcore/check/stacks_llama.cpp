// What llama.cpp takes: a checkpoint that would be converted, and GGUF files.
#include <algorithm>

#include "libcore/base/format.h"
#include "libcore/check/stack_rows.h"

namespace ds::check {
namespace {

constexpr const char* kVocabulary = "ggml-org/llama.cpp, src/llama-vocab.cpp";

class LlamaStack : public StackRows {
 public:
  explicit LlamaStack(const InputFacts& input) : StackRows(input, Stack::kLlamaCpp) {}

  CompatibilityRows run() {
    in_.is_gguf() ? gguf() : checkpoint();
    return std::move(rows_);
  }

 private:
  void checkpoint() {
    if (!config()) return;
    refuses("target-layout", "layout", "a GGUF file is needed, this is a folder of safetensors",
            "deepseek-convert weights IN OUT.gguf --to gguf --gguf_type bf16|f16|f32|q8_0",
            kLlamaSource);
    if (refuse_for("target-dtype", "dtype", "ggml-org/llama.cpp issues 11991, 12255, 14781",
                   {"foreign-quantisation", "quantisation-method", "fp8-without-scale",
                    "scale-shape", "fp8-format"})) {
      return;
    }
    ok("dtype", is_fp8() ? "FP8 is widened on the way to GGUF" : "16 or 32 bits",
       "docs/gguf.md; ggml-org/llama.cpp issue 11991");
    const ModelConfig& config = *in_.config;
    const auto columns = {
        config.hidden_size,           config.intermediate_size,
        config.moe_intermediate_size, config.q_lora_rank,
        config.kv_lora_rank,          config.num_attention_heads * config.v_head_dim,
        config.qk_nope_head_dim};
    const bool q8 = std::all_of(columns.begin(), columns.end(),
                                [](std::int64_t side) { return side % 32 == 0; });
    if (q8) {
      ok("GGUF type", "bf16, f16, f32 and q8_0", "ggml, blocks of 32");
    } else {
      needs("GGUF type", "a matrix has columns that are no multiple of 32: q8_0 cannot hold it",
            "--gguf_type bf16, f16 or f32", "ggml, blocks of 32");
    }
    settings();
    if (in_.tensors.prediction_layer) {
      needs("prediction layer", "MTP layers have no place in the file",
            "none: they are left out, and said", "ggml-org/llama.cpp issue 12242");
    }
    tokenizer();
  }

  // ---- GGUF files

  void gguf() {
    const bool damaged = refuse_for(
        "target-files", "files", "ggml-org/llama.cpp, ggml/src/gguf.cpp and src/llama-model.cpp",
        {"lfs-pointer",       "web-page",           "wrong-container",   "gguf-magic",
         "gguf-version",      "gguf-counts",        "gguf-truncated",    "gguf-text",
         "gguf-value",        "gguf-duplicate",     "gguf-alignment",    "gguf-tensor-size",
         "gguf-tensor-type",  "gguf-overlap",       "gguf-misaligned",   "gguf-hole",
         "gguf-part-missing", "gguf-part-keys",     "gguf-part-overlap", "gguf-missing-tensor",
         "gguf-shape",        "gguf-unknown-tensor"});
    if (refuse_for("target-config", "architecture", kLlamaSource,
                   {"gguf-architecture", "gguf-key-missing", "gguf-key-type", "gguf-key-value",
                    "gguf-key-contradicts"}) ||
        !in_.config) {
      return;
    }
    if (!damaged) {
      const std::size_t parts = in_.gguf.parts;
      ok("layout",
         parts == 1 ? std::string("one GGUF file")
                    : fmt::format("a split of {0} files: -m names the first, -00001-of-{0:05}.gguf",
                                  parts),
         "ggml-org/llama.cpp, tools/gguf-split");
    }
    ok("architecture", fmt::format("deepseek2, {} blocks", in_.config->num_hidden_layers),
       kLlamaSource);
    types();
    mla();
    gguf_settings();
    vocabulary();
  }

  void types() {
    if (const Finding* finding = any({"gguf-must-be-f32", "gguf-quantised-without-version"})) {
      needs("GGUF type", fmt::format("{} ({})", finding->message, finding->rule->id), finding->fix,
            "docs/gguf.md");
    } else {
      ok("GGUF type", in_.gguf.types, "ggml-org/llama.cpp, ggml/src/ggml.c");
    }
  }

  void mla() {
    const ModelConfig& config = *in_.config;
    const std::int64_t latent = config.kv_lora_rank + config.qk_rope_head_dim;
    const std::int64_t whole =
        config.num_attention_heads * (config.q_head_dim() + config.v_head_dim);
    if (in_.gguf.mla == GgufMla::kSplit) {
      ok("MLA",
         fmt::format("keys and values are split (attn_k_b, attn_v_b): {} numbers a token and layer "
                     "in the cache; programs from before, such as ktransformers, need --mla "
                     "unsplit",
                     format_count(latent)),
         "ggml-org/llama.cpp PR 12801; kvcache-ai/ktransformers issue 1333");
    } else {
      needs("MLA",
            fmt::format("attn_kv_b is in one piece: the cache has {} numbers a token and layer, "
                        "split it has {}",
                        format_count(whole), format_count(latent)),
            in_.convert("gguf --mla split"),
            "ggml-org/llama.cpp PR 12801; ikawrakow/ik_llama.cpp PR 394");
    }
  }

  void gguf_settings() {
    if (const Finding* finding = in_.find("gguf-yarn")) {
      needs("settings", fmt::format("{} ({})", finding->message, finding->rule->id), finding->fix,
            "ggml-org/llama.cpp PR 17945");
    } else {
      settings();
    }
  }

  void vocabulary() {
    if (refuse_for("target-tokenizer", "tokenizer", kVocabulary,
                   {"gguf-no-tokenizer", "gguf-vocabulary", "gguf-duplicate-token",
                    "gguf-token-type", "gguf-merges", "gguf-token-id"})) {
      return;
    }
    if (const Finding* finding = in_.find("gguf-pre-tokenizer")) {
      needs("tokenizer", finding->message,
            "--override-kv tokenizer.ggml.pre=str:deepseek-v3 (of V2 deepseek-llm, of Kimi-K2 and "
            "Moonlight kimi-k2)",
            kVocabulary);
    } else {
      ok("tokenizer", fmt::format("in the file, pre-tokenizer {}", in_.gguf.pre), kVocabulary);
    }
    chat_template();
  }

  // ---- both

  // What the GGUF keys cannot say.
  void settings() {
    const ModelConfig& config = *in_.config;
    if (config.yarn && config.yarn->mscale > 0 &&
        config.yarn->mscale != config.yarn->mscale_all_dim) {
      needs("settings",
            fmt::format("mscale {:g} is not mscale_all_dim {:g}: the file has one of them",
                        config.yarn->mscale, config.yarn->mscale_all_dim),
            "compare answers after the conversion", "docs/gguf.md; ggml-org/llama.cpp PR 17945");
    } else if (config.rms_norm_eps != kDemoEps) {
      needs("settings",
            fmt::format("rms_norm_eps {:g} is used inside MLA too, where 1e-6 is meant",
                        config.rms_norm_eps),
            "none: the last digits differ", "docs/gguf.md");
    } else {
      ok("settings", "every setting has a key", "docs/gguf.md");
    }
  }
};

}  // namespace

CompatibilityRows llama_rows(const InputFacts& input) { return LlamaStack(input).run(); }

}  // namespace ds::check
