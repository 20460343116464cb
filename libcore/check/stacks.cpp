// What the stacks of the ecosystem take of a checkpoint or tokenizer, and refuse
// (docs/compatibility.md is the same table).
#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/format.h"
#include "libcore/check/stack_rows.h"

namespace ds::check {
namespace {

constexpr std::int64_t kDemoHidden = 7168;
constexpr double kDemoEps = 1e-6;
constexpr const char* kPt = "deepseek-ai/DeepSeek-V3 PR 749, hiyouga/LLaMA-Factory issue 6803";
constexpr const char* kDemo = "deepseek-ai/DeepSeek-V3 inference/model.py";
constexpr const char* kDemoConvert = "deepseek-ai/DeepSeek-V3 inference/convert.py";
constexpr const char* kFine = "transformers, integrations/finegrained_fp8.py";
constexpr const char* kLlama =
    "ggml-org/llama.cpp, conversion/deepseek.py and models/deepseek2.cpp";

class CheckpointStack : public StackRows {
 public:
  CheckpointStack(const InputFacts& input, Stack stack, std::optional<bool> fp8_device)
      : StackRows(input, stack), fp8_device_(fp8_device) {}

  CompatibilityRows run() {
    if (in_.input.kind == TargetKind::kCheckpoint) checkpoint();
    if (in_.input.kind == TargetKind::kTokenizer && stack_ != Stack::kPeft) tokenizer();
    return std::move(rows_);
  }

 private:
  bool is_fp8() const { return in_.tensors.fp8 > 0; }

  void checkpoint() {
    if (stack_ == Stack::kLlamaCpp) {
      llama_cpp();
      return;
    }
    if (stack_ == Stack::kInference) {
      inference();
      return;
    }
    layout();
    if (!config()) return;
    dtype();
    if (stack_ == Stack::kPeft) return;
    scales();
    edges();
    experts();
    if (stack_ == Stack::kTransformers) routing();
    prediction_layer();
    tokenizer();
  }

  void layout() {
    if (in_.layout == Layout::kInference) {
      refuses("target-layout", "layout", "the folder has shards of DeepSeek's inference code",
              "deepseek-convert weights IN OUT --to hf", kDemoConvert);
      return;
    }
    if (refuse_for("target-files", "files", "safetensors format, checkpoint folders",
                   {"no-checkpoint", "truncated-file", "missing-shard", "stale-index",
                    "tensor-not-in-shard", "header-syntax", "file-too-short", "wrong-container",
                    "lfs-pointer", "trailing-bytes", "overlapping-tensors", "size-mismatch",
                    "index-syntax", "missing-tensor", "missing-layer", "missing-expert"})) {
      return;
    }
    if (stack_ == Stack::kTransformers || stack_ == Stack::kPeft) {
      if (const Finding* finding = in_.find("metadata-format")) {
        refuses(
            "target-files", "metadata",
            fmt::format("{} ({}): loading ends with \"'NoneType' object has no attribute 'get'\"",
                        finding->message, finding->rule->id),
            "deepseek-convert weights IN OUT --to hf (writes {\"format\":\"pt\"})", kPt, finding);
        return;
      }
    }
    ok("layout", "Hugging Face folder", "safetensors format, checkpoint folders");
  }

  // False when nothing further can be said.
  bool config() {
    if (refuse_for("target-config", "architecture", "transformers, model registry",
                   {"distilled-model", "deepseek-v3.2", "deepseek-v4", "other-architecture",
                    "class-and-type", "inference-config", "config-missing", "config-syntax"})) {
      return false;
    }
    if (!in_.config) {
      const Finding* key = in_.find("config-key");
      refuses("target-config", "architecture",
              key != nullptr ? key->message : "config.json says too little",
              key != nullptr ? key->fix : "take config.json of the original model",
              "transformers, model registry", key);
      return false;
    }
    if (stack_ == Stack::kPeft) return true;
    const std::string what =
        fmt::format("{}, {} layers", in_.config->architecture, in_.config->num_hidden_layers);
    if (stack_ == Stack::kTransformers && in_.remote_code) {
      ok("architecture", what + "; built in, auto_map is not needed",
         "transformers, models/deepseek_v3");
    } else {
      ok("architecture", what, "transformers, model registry");
    }
    return true;
  }

  void dtype() {
    if (refuse_for("target-dtype", "dtype", "hiyouga/LLaMA-Factory issue 6777",
                   {"fp8-declared-only", "fp8-undeclared", "foreign-quantisation",
                    "quantisation-method", "fp8-format", "block-size", "must-not-be-fp8",
                    "fp8-without-scale", "scale-shape", "unsupported-dtype"})) {
      return;
    }
    if (serves()) {
      if (refuse_for("target-dtype", "dtype", "vllm-project/vllm, fused MLP layers",
                     {"unquantised-pair"})) {
        return;
      }
    }
    if (!is_fp8()) {
      ok("dtype", "16 or 32 bits", "transformers, vLLM, SGLang documentation");
      return;
    }
    const std::string count = format_count(in_.tensors.fp8);
    if (stack_ == Stack::kPeft) {
      needs("dtype",
            fmt::format("{} weights are FP8: gradients pass them from transformers 5.24 on, and "
                        "merge_and_unload cannot write them",
                        count),
            fmt::format("train on the result of {}, or with deepseek-finetune; merge with {}",
                        kToBf16, kMerge),
            "huggingface/transformers issues 41516, 46736");
      return;
    }
    if (fp8_device_ == true) {
      ok("dtype", fmt::format("{} weights are FP8 (E4M3)", count), kFine);
      return;
    }
    const char* source = serves() ? engine().fp8_source : kFine;
    const std::string without =
        stack_ == Stack::kVllm ? "; sm_80 and sm_86 run them weight-only (Marlin)"
        : stack_ == Stack::kTransformers
            ? "; 4.57 refuses them without a GPU, 5.24 widens them on the CPU"
            : "";
    needs("dtype",
          fmt::format("{} weights are FP8 (E4M3): sm_89 or newer is needed{}", count, without),
          fmt::format("--hardware says whether the device has FP8; otherwise {}", kToBf16), source);
  }

  void scales() {
    if (!is_fp8()) return;
    const std::string& dtype = in_.tensors.scale_dtype;
    if (dtype == "F8_E8M0" || dtype == "U8") {
      refuses("target-scales", "scale format",
              fmt::format("scales are stored as {}, one byte each; F32 is read by every version",
                          dtype),
              kToBf16, "deepseek-ai/DeepSeek-V3 issue 994, alvarobartt/hf-mem issue 56");
      return;
    }
    if (in_.ue8m0 && !in_.tensors.mantissa_scale.empty()) {
      const Finding place{.file = in_.file("config.json"), .tensor = in_.tensors.mantissa_scale};
      refuses("target-scales", "scale format",
              fmt::format("scale_fmt is ue8m0, but {} is no power of two: kernels that keep the "
                          "exponent are off by up to a factor of two",
                          in_.tensors.mantissa_scale),
              "deepseek-convert weights IN OUT --to fp8 --scale_fmt ue8m0, or remove scale_fmt",
              "deepseek-ai/DeepSeek-V3 issue 994", &place);
      return;
    }
    if (serves() && !in_.ue8m0) {
      needs("scale format",
            fmt::format("scales are {} without scale_fmt; sm_100 (B200) needs powers of two and "
                        "quantises again while loading (about 2.6 % of an error)",
                        dtype),
            "for sm_100: deepseek-convert weights IN OUT --to fp8 --scale_fmt ue8m0",
            engine().ue8m0_source);
      return;
    }
    ok("scale format", fmt::format("{}{}", dtype, in_.ue8m0 ? ", powers of two (ue8m0)" : ""),
       kFine);
  }

  void edges() {
    if (!is_fp8()) return;
    const TensorFacts& tensors = in_.tensors;
    if (tensors.ragged == 0) {
      ok("block edges", "all FP8 weights are whole blocks of 128, or one smaller block", kFine);
      return;
    }
    const std::string what =
        fmt::format("{} FP8 weights end in a smaller block ({} {})", format_count(tensors.ragged),
                    tensors.ragged_tensor, tensors.ragged_shape);
    if (stack_ != Stack::kTransformers) {
      ok("block edges", what + "; such edges are read",
         "deepseek-ai/DeepSeek-V3 README_WEIGHTS.md");
    } else if (fp8_device_ == true) {
      needs("block edges",
            what + "; the FP8 kernels take them, widening (the CPU, dequantize) does not",
            "leave dequantize off", "runs of transformers 5.24.0");
    } else {
      const Finding place{.file = in_.file("config.json"), .tensor = tensors.ragged_tensor};
      refuses("target-block-edges", "block edges",
              what +
                  "; widening divides the rows by the number of scales: it fails, or takes the "
                  "wrong scale",
              std::string(kToBf16) + ", or a GPU with FP8 (--hardware)",
              "runs of transformers 5.24.0", &place);
    }
  }

  void experts() {
    if (in_.config->n_routed_experts == 0) return;
    if (const Finding* finding = in_.find("fused-experts")) {
      refuses("target-config", "experts", finding->message, finding->fix,
              "transformers, integrations/moe.py", finding);
      return;
    }
    ok("experts", fmt::format("{} a layer, one tensor each", in_.config->n_routed_experts),
       "transformers, integrations/moe.py");
  }

  void routing() {
    const ModelConfig& config = *in_.config;
    if (config.n_routed_experts == 0) return;
    if (config.model_class == ModelClass::kV2 && config.yarn) {
      needs("routing and scale", "4.57 leaves m^2 of YaRN out of the softmax scale of V2",
            "transformers 5.24 or newer", "huggingface/transformers PR 47435");
    } else if (config.n_group > 1 && !in_.tensors.negative_bias.empty()) {
      needs("routing and scale",
            fmt::format("{} has negative values: before April 2026 experts outside the chosen "
                        "groups could win",
                        in_.tensors.negative_bias),
            "transformers 5 with PR 45441", "huggingface/transformers issue 45440, PR 45441");
    } else if (config.method == RouterMethod::kNoauxTc) {
      needs("routing and scale", "4.57 casts e_score_correction_bias to the model's dtype on load",
            "transformers 5.24 or newer for exact routing",
            "transformers, models/deepseek_v3 (4.57.6, 5.24.0)");
    } else {
      ok("routing and scale", "as the reference", "transformers, models/deepseek_v2");
    }
  }

  void prediction_layer() {
    if (!in_.tensors.prediction_layer) return;
    const std::int64_t layer = in_.config->num_hidden_layers;
    if (stack_ == Stack::kTransformers) {
      needs("prediction layer",
            fmt::format("layer {} (MTP) is left out when loading, and lost when saving", layer),
            "keep the original folder; never ship what save_pretrained wrote",
            "huggingface/transformers issue 35688");
    } else {
      ok("prediction layer", fmt::format("layer {} (MTP) serves speculative decoding", layer),
         "vLLM and SGLang documentation, MTP");
    }
  }

  // ---- tokenizer and template

  void tokenizer() {
    const TokenizerFacts& facts = in_.tokenizer;
    if (refuse_for("target-tokenizer", "tokenizer", "deepseek-ai/DeepSeek-V3 issue 190",
                   {"tokenizer-syntax", "tokenizer-config-syntax", "token-beyond-embedding",
                    "other-tokenizer", "special-ids", "special-token-missing",
                    "added-tokens-disagree", "v4-tokenizer"})) {
      return;
    }
    if (!facts.json) {
      needs("tokenizer",
            facts.other ? "the tokenizer is no tokenizer.json and comes with code of its own"
                        : "there is no tokenizer",
            facts.other ? "trust_remote_code" : "name the tokenizer's folder beside the model",
            "transformers, tokenization_auto.py");
      return;
    }
    const bool llama = facts.token_class.starts_with("LlamaTokenizer");
    ok("tokenizer",
       llama ? fmt::format("tokenizer.json; tokenizer_class {} must not be taken for SentencePiece",
                           facts.token_class)
             : "tokenizer.json",
       "tokenizer.json and tokenizer_config.json of DeepSeek-V3");
    chat_template();
  }

  void chat_template() {
    const TokenizerFacts& facts = in_.tokenizer;
    if (stack_ == Stack::kInference && !facts.has_template) {
      needs("chat template", "there is none; generate.py renders with it", "copy the original's",
            kDemo);
      return;
    }
    if (!facts.has_template) {
      needs("chat template", "there is none", "name one when serving (--chat-template)",
            "transformers, chat_template_utils.py");
      return;
    }
    if (refuse_for("target-template", "chat template",
                   "vllm-project/vllm examples/tool_chat_template_deepseekv31.jinja",
                   {"template-delimiters", "template-token-missing", "template-near-miss",
                    "think-tokens"})) {
      return;
    }
    if (!facts.chat_template.kind) {
      needs("chat template", "it is none of DeepSeek's", "see the findings of the group template",
            "DeepSeek-V3.1 model card");
      return;
    }
    const ChatTemplate kind = *facts.chat_template.kind;
    const std::string what = fmt::format("that of {}{}", chat_template_name(kind),
                                         facts.chat_template.published ? ", as published" : "");
    if (serves() && kind != ChatTemplate::kV2) {
      needs("chat template", what + "; calls are parsed by a parser of the same generation",
            kind == ChatTemplate::kV31 ? engine().tool_parser_v31 : engine().tool_parser_v3,
            "a V3 parser on V3.1 output reads no call, and the reverse");
    } else if (stack_ == Stack::kLlamaCpp && facts.splits_once) {
      needs("chat template", what + "; it calls split(x, 1), which older engines do not know",
            "a build with it, or render with deepseek-convert data --to text",
            "ikawrakow/ik_llama.cpp issue 804");
    } else {
      ok("chat template", what, "DeepSeek-V3.1 model card");
    }
  }

  // ---- llama.cpp and the demo

  void llama_cpp() {
    if (!config()) return;
    refuses("target-layout", "layout", "a GGUF file is needed, this is a folder of safetensors",
            "deepseek-convert weights IN OUT.gguf --to gguf --gguf_type bf16|f16|f32|q8_0", kLlama);
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

  void inference() {
    if (!config()) return;
    if (in_.layout == Layout::kInference) {
      ok("layout", "shards of the inference code", kDemoConvert);
    } else {
      refuses("target-layout", "layout", "model{RANK}-mp{N}.safetensors are needed",
              fmt::format("deepseek-convert weights IN OUT --to inference --mp {}", largest_mp()),
              kDemoConvert);
    }
    const ModelConfig& config = *in_.config;
    if (config.method == RouterMethod::kNoauxTc && config.n_routed_experts > 0 &&
        config.hidden_size != kDemoHidden) {
      const Finding place{.file = in_.file("config.json"), .key = "hidden_size"};
      refuses(
          "target-shape", "router bias",
          fmt::format("hidden_size is {}: the demo makes a router bias only at 7168, and cannot "
                      "load this one",
                      config.hidden_size),
          "change Gate in inference/model.py", kDemo, &place);
    }
    if (config.attention_bias) {
      const Finding place{.file = in_.file("config.json"), .key = "attention_bias"};
      refuses("target-shape", "biases", "attention_bias is true, the demo's projections have none",
              "use another stack", kDemo, &place);
    }
    if (config.rms_norm_eps != kDemoEps) {
      needs("settings", fmt::format("rms_norm_eps is {:g}, the demo has 1e-6", config.rms_norm_eps),
            "set eps in inference/model.py", kDemo);
    }
    if (!refuse_for("target-dtype", "dtype", kDemoConvert,
                    {"foreign-quantisation", "quantisation-method", "fp8-format",
                     "fp8-without-scale", "scale-shape"})) {
      if (is_fp8() && fp8_device_ != true) {
        needs("dtype", "FP8 kernels of Triton: sm_89 or newer", kToBf16,
              "deepseek-ai/DeepSeek-V3 issue 190");
      } else {
        ok("dtype", is_fp8() ? "FP8" : "BF16", kDemo);
      }
    }
    needs("software", "Linux, Python 3.10, triton 3.0.0", "install them",
          "deepseek-ai/DeepSeek-V3 README");
    if (in_.tensors.prediction_layer) {
      needs("prediction layer", "the demo does not run MTP; its converter drops it",
            "none: it is left out, and said", kDemoConvert);
    }
    tokenizer();
  }

  std::int64_t largest_mp() const {
    std::int64_t largest = 1;
    for (const TensorParallel& degree : tensor_parallel_degrees(*in_.config, is_fp8(), 16)) {
      if (degree.fits && in_.config->n_routed_experts % degree.degree == 0) {
        largest = degree.degree;
      }
    }
    return largest;
  }

  std::optional<bool> fp8_device_;
};

}  // namespace

CompatibilityRows check_stack(const InputFacts& input, Stack stack,
                              std::optional<bool> fp8_device) {
  if (input.input.kind == TargetKind::kAdapter) return adapter_stack_rows(input, stack);
  return CheckpointStack(input, stack, fp8_device).run();
}

}  // namespace ds::check
