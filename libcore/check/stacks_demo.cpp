// What DeepSeek's inference demo takes: a checkpoint that would be converted, and its own shards.
#include <algorithm>

#include "libcore/check/inference_target.h"
#include "libcore/check/stack_rows.h"

namespace ds::check {
namespace {

constexpr std::int64_t kDemoHidden = 7168;

class DemoStack : public StackRows {
 public:
  DemoStack(const InputFacts& input, std::optional<bool> fp8_device)
      : StackRows(input, Stack::kInference), fp8_device_(fp8_device) {}

  CompatibilityRows run() {
    in_.input.kind == TargetKind::kInference ? shards() : checkpoint();
    return std::move(rows_);
  }

 private:
  void checkpoint() {
    if (!config()) return;
    refuses("target-layout", "layout", "model{RANK}-mp{N}.safetensors are needed",
            in_.convert(fmt::format("inference --mp {}", largest_mp())), kDemoConvert);
    model();
    if (!refuse_for("target-dtype", "dtype", kDemoConvert,
                    {"foreign-quantisation", "quantisation-method", "fp8-format",
                     "fp8-without-scale", "scale-shape"})) {
      dtype();
    }
    software();
    if (in_.tensors.prediction_layer) {
      needs("prediction layer", "the demo does not run MTP; its converter drops it",
            "none: it is left out, and said", kDemoConvert);
    }
    tokenizer();
  }

  // ---- its own layout

  void shards() {
    if (!refuse_for(
            "target-files", "files", kDemoConvert,
            {"inference-shard-missing", "truncated-file", "header-syntax", "file-too-short",
             "wrong-container", "lfs-pointer", "trailing-bytes", "overlapping-tensors",
             "size-mismatch", "inference-name", "inference-not-in-all", "inference-missing-tensor",
             "inference-unknown-tensor", "inference-expert-rank", "web-page"}) &&
        !refuse_for("target-shape", "ranks", kDemoSource,
                    {"inference-not-divisible", "inference-ranks-differ", "inference-shape"})) {
      ranks();
    }
    settings();
    if (in_.config) model();
    if (!refuse_for("target-dtype", "dtype", kDemoSource, {"inference-scale"}) &&
        !refuse_for("target-scales", "scale format",
                    "vllm-project/vllm issue 12256, sgl-project/sglang issue 3345",
                    {"inference-block-cut"})) {
      dtype();
    }
    software();
    tokenizer();
  }

  void ranks() {
    ok("layout", "shards of the inference code", kDemoConvert);
    const std::int64_t ranks = in_.inference.ranks;
    if (ranks == 1) {
      ok("ranks", "one shard: one process, one GPU", kDemoSource);
      return;
    }
    needs(
        "ranks",
        fmt::format("{} shards: each process reads model{{RANK}}-mp{{WORLD_SIZE}}.safetensors, so "
                    "there must be {} of them, a GPU each",
                    ranks, ranks),
        fmt::format("torchrun with nodes x --nproc-per-node = {}; for another number: {}", ranks,
                    in_.convert("inference --mp N")),
        "deepseek-ai/DeepSeek-V3 inference/generate.py");
  }

  // The demo's --config.
  void settings() {
    const char* source = "deepseek-ai/DeepSeek-V3 inference/generate.py and configs";
    if (refuse_for("target-config", "config keys", source, {"config-syntax"})) return;
    if (!in_.inference.has_config) {
      needs("config keys", "there is no config.json", "name one of the demo's with --config",
            source);
    } else if (!in_.config) {
      const Finding* key = any({"other-architecture", "deepseek-v3.2", "deepseek-v4",
                                "distilled-model", "class-and-type", "config-key"});
      refuses("target-config", "config keys",
              key != nullptr ? key->message : "config.json says too little",
              key != nullptr ? key->fix : "take config.json of the original model", source, key);
    } else if (!in_.inference.demo_config) {
      needs("config keys",
            "config.json has the keys of Hugging Face: the demo stops at the first that it does "
            "not know",
            fmt::format("--config FILE that holds {}",
                        to_demo_config(*in_.config, is_fp8(), in_.ue8m0).dump()),
            source);
    } else if (is_fp8() != (in_.inference.dtype == "fp8")) {
      needs("config keys",
            fmt::format("config.json says dtype {}, the weights are {}",
                        in_.inference.dtype.empty() ? "nothing (bf16)" : in_.inference.dtype,
                        is_fp8() ? "FP8" : "not FP8"),
            fmt::format("\"dtype\": \"{}\"", is_fp8() ? "fp8" : "bf16"), source);
    } else {
      ok("config keys", "config.json has the demo's keys", source);
    }
  }

  // ---- both

  // What model.py has fixed.
  void model() {
    const ModelConfig& config = *in_.config;
    if (config.method == RouterMethod::kNoauxTc && config.n_routed_experts > 0 &&
        config.hidden_size != kDemoHidden) {
      needs("router bias",
            fmt::format("hidden_size is {}: the demo makes a router bias only at 7168, and cannot "
                        "load this one",
                        config.hidden_size),
            "change Gate in inference/model.py", kDemoSource);
    }
    if (config.attention_bias) {
      needs("biases", "attention_bias is true, the demo's projections have none",
            "give the projections of MLA in inference/model.py a bias", kDemoSource);
    }
    if (config.rms_norm_eps != kDemoEps) {
      needs("settings", fmt::format("rms_norm_eps is {:g}, the demo has 1e-6", config.rms_norm_eps),
            "set eps in inference/model.py", kDemoSource);
    }
  }

  void dtype() {
    if (is_fp8() && fp8_device_ != true) {
      needs("dtype", "FP8 kernels of Triton: sm_89 or newer", in_.convert("bf16"),
            "deepseek-ai/DeepSeek-V3 issue 190");
    } else {
      ok("dtype", is_fp8() ? "FP8" : "BF16", kDemoSource);
    }
  }

  void software() {
    needs("software", "Linux, Python 3.10, triton 3.0.0", "install them",
          "deepseek-ai/DeepSeek-V3 README");
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

CompatibilityRows demo_rows(const InputFacts& input, std::optional<bool> fp8_device) {
  return DemoStack(input, fp8_device).run();
}

}  // namespace ds::check
