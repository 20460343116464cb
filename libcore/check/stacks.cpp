// What the stacks of the ecosystem take of an input, and refuse (docs/compatibility.md is the same
// table): here checkpoint folders in Hugging Face layout on the four that read them.
#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/format.h"
#include "libcore/check/stack_rows.h"

namespace ds::check {
namespace {

constexpr const char* kPt = "deepseek-ai/DeepSeek-V3 PR 749, hiyouga/LLaMA-Factory issue 6803";
constexpr const char* kFine = "transformers, integrations/finegrained_fp8.py";

class FolderStack : public StackRows {
 public:
  FolderStack(const InputFacts& input, Stack stack, std::optional<bool> fp8_device)
      : StackRows(input, stack), fp8_device_(fp8_device) {}

  CompatibilityRows run() {
    if (in_.input.kind == TargetKind::kCheckpoint) checkpoint();
    if (in_.input.kind == TargetKind::kTokenizer && stack_ != Stack::kPeft) tokenizer();
    return std::move(rows_);
  }

 private:
  void checkpoint() {
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

  std::optional<bool> fp8_device_;
};

}  // namespace

CompatibilityRows check_stack(const InputFacts& input, Stack stack,
                              std::optional<bool> fp8_device) {
  const bool llama = stack == Stack::kLlamaCpp, demo = stack == Stack::kInference;
  switch (input.input.kind) {
    case TargetKind::kAdapter:
    case TargetKind::kGgufAdapter:
      return adapter_stack_rows(input, stack);
    case TargetKind::kGguf:
      return llama ? llama_rows(input) : form_rows(input, stack);
    case TargetKind::kInference:
      return demo ? demo_rows(input, fp8_device) : form_rows(input, stack);
    case TargetKind::kCheckpoint:
      if (llama) return llama_rows(input);
      if (demo) return demo_rows(input, fp8_device);
      return FolderStack(input, stack, fp8_device).run();
    default:
      return FolderStack(input, stack, fp8_device).run();
  }
}

}  // namespace ds::check
