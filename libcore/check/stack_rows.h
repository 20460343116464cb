// Rows of one stack, and what the stacks share.
#pragma once

#include <fmt/format.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "libcore/check/compatibility.h"

namespace ds::check {

// What differs between the two engines that serve from Hugging Face folders.
struct Engine {
  const char* tool_parser_v31;
  const char* tool_parser_v3;
  std::int64_t default_rank;  // of an adapter, above which a flag is needed; 0: none
  std::int64_t largest_rank;  // 0: none
  const char* lora_source;
  const char* fp8_source;
  const char* kv_b_source;
  const char* ue8m0_source;
};
inline constexpr Engine kVllmEngine{"--tool-call-parser deepseek_v31",
                                    "--tool-call-parser deepseek_v3",
                                    16,
                                    512,
                                    "vllm-project/vllm, config/lora.py and lora/peft_helper.py",
                                    "vllm-project/vllm issues 12581, 15336",
                                    "vllm-project/vllm issue 48974",
                                    "vllm-project/vllm PR 58157"};
inline constexpr Engine kSglangEngine{"--tool-call-parser deepseekv31",
                                      "--tool-call-parser deepseekv3",
                                      0,
                                      0,
                                      "SGLang documentation, LoRA (not verified)",
                                      "sgl-project/sglang issue 7715",
                                      "sgl-project/sglang PR 25001",
                                      "sgl-project/sglang PR 28307"};

// Sources that several rooms name.
inline constexpr const char* kLlamaSource =
    "ggml-org/llama.cpp, conversion/deepseek.py and models/deepseek2.cpp";
inline constexpr const char* kDemoSource = "deepseek-ai/DeepSeek-V3 inference/model.py";
inline constexpr const char* kDemoConvert = "deepseek-ai/DeepSeek-V3 inference/convert.py";

// RMSNorm's epsilon in the demo, and inside MLA in transformers.
inline constexpr double kDemoEps = 1e-6;

// Commands that rows recommend.
inline constexpr const char* kToBf16 = "deepseek-convert weights IN OUT --to bf16";
inline constexpr const char* kMerge = "deepseek-convert merge MODEL ADAPTER OUT";
inline constexpr const char* kToPeft = "deepseek-convert adapter IN OUT --to peft --model MODEL";

// Collects the rows of one stack on one input, which must outlive it.
class StackRows {
 public:
  StackRows(const InputFacts& input, Stack stack) : in_(input), stack_(stack) {}

 protected:
  void add(const char* requirement, Verdict verdict, const std::string& detail,
           const std::string& action, const char* source, const char* rule,
           const Finding* place = nullptr) {
    CompatibilityRow row{.section = "target",
                         .subject = std::string(stack_name(stack_)),
                         .requirement = requirement,
                         .verdict = verdict,
                         .detail = detail,
                         .action = action,
                         .source = source,
                         .rule = rule,
                         .file = in_.input.path.string()};
    if (place != nullptr) {
      row.file = place->file;
      row.tensor = place->tensor;
      row.key = place->key;
      row.line = place->line;
    }
    rows_.push_back(std::move(row));
  }
  void ok(const char* requirement, const std::string& detail, const char* source) {
    add(requirement, Verdict::kOk, detail, "", source, "");
  }
  void needs(const char* requirement, const std::string& detail, const std::string& action,
             const char* source) {
    add(requirement, Verdict::kNeeds, detail, action, source, "");
  }
  void refuses(const char* rule, const char* requirement, const std::string& detail,
               const std::string& action, const char* source, const Finding* place = nullptr) {
    add(requirement, Verdict::kRefuses, detail, action, source, rule, place);
  }
  // The first of these rules of the plain checks that found something.
  const Finding* any(std::initializer_list<std::string_view> rules) const {
    for (const std::string_view rule : rules) {
      if (const Finding* finding = in_.find(rule)) return finding;
    }
    return nullptr;
  }
  // Refuses with the plain check's own words and fix.
  bool refuse_for(const char* rule, const char* requirement, const char* source,
                  std::initializer_list<std::string_view> rules) {
    const Finding* finding = any(rules);
    if (finding == nullptr) return false;
    refuses(rule, requirement, fmt::format("{} ({})", finding->message, finding->rule->id),
            finding->fix, source, finding);
    return true;
  }
  bool is_fp8() const { return in_.tensors.fp8 > 0; }
  bool serves() const { return stack_ == Stack::kVllm || stack_ == Stack::kSglang; }
  const Engine& engine() const { return stack_ == Stack::kVllm ? kVllmEngine : kSglangEngine; }

  // The architecture of config.json; false when nothing further can be said (stacks_text.cpp).
  bool config();
  // The files of a tokenizer and its chat template; the template alone (stacks_text.cpp).
  void tokenizer();
  void chat_template();

  const InputFacts& in_;
  Stack stack_;
  CompatibilityRows rows_;
};

// A checkpoint that llama.cpp or the demo would have to be given in another form, and the forms
// that they read (stacks_llama.cpp, stacks_demo.cpp).
CompatibilityRows llama_rows(const InputFacts& input);
CompatibilityRows demo_rows(const InputFacts& input, std::optional<bool> fp8_device);
// A GGUF model or inference shards on a stack that does not read them, or not all of them
// (stacks_form.cpp).
CompatibilityRows form_rows(const InputFacts& input, Stack stack);
// Adapters, PEFT's and GGUF (stacks_adapter.cpp).
CompatibilityRows adapter_stack_rows(const InputFacts& input, Stack stack);

}  // namespace ds::check
