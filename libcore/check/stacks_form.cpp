// GGUF models and inference shards on stacks that were made for Hugging Face folders, and each on
// the stack of the other.
#include "libcore/check/stack_rows.h"

namespace ds::check {
namespace {

class FormStack : public StackRows {
 public:
  using StackRows::StackRows;

  CompatibilityRows run() {
    in_.is_gguf() ? gguf() : shards();
    return std::move(rows_);
  }

 private:
  void gguf() {
    switch (stack_) {
      case Stack::kVllm:
        vllm();
        break;
      case Stack::kSglang:
        layout("a GGUF file of deepseek2, which its loader does not know", "hf",
               "sgl-project/sglang issue 4756 (not run)");
        break;
      case Stack::kInference:
        layout("a GGUF file, model{RANK}-mp{N}.safetensors are needed", "inference --mp N",
               kDemoConvert);
        break;
      default:
        layout("a GGUF file of deepseek2, which gguf_file= does not know", "hf",
               "huggingface/transformers issues 34335, 36144, PR 47421 (open)");
    }
  }

  // Its loader goes by the names of transformers, among which kv_b_proj is one matrix.
  void vllm() {
    const char* source = "vllm-project/vllm PR 13167, issue 42229, gguf_loader.py (not run)";
    if (in_.gguf.mla == GgufMla::kSplit) {
      layout("a GGUF file with attn_k_b and attn_v_b: vLLM's loader knows attn_kv_b alone", "hf",
             source);
      return;
    }
    needs("layout",
          "a GGUF file with attn_kv_b: settings and tokenizer of deepseek2 are not read out of it",
          fmt::format("--hf-config-path and --tokenizer with the original's files{}; or {}",
                      in_.gguf.parts > 1 ? ", and one file (llama-gguf-split --merge)" : "",
                      in_.convert("hf")),
          source);
  }

  void shards() {
    layout("shards of DeepSeek's inference demo",
           stack_ == Stack::kLlamaCpp ? "gguf --gguf_type bf16|f16|f32|q8_0" : "hf", kDemoConvert);
  }

  void layout(const char* detail, const char* to, const char* source) {
    refuses("target-layout", "layout", detail, in_.convert(to), source);
  }
};

}  // namespace

CompatibilityRows form_rows(const InputFacts& input, Stack stack) {
  return FormStack(input, stack).run();
}

}  // namespace ds::check
