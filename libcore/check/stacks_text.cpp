// Rows that several stacks have: the architecture, tokenizer files, the chat template.
#include "libcore/check/stack_rows.h"

namespace ds::check {

bool StackRows::config() {
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

void StackRows::tokenizer() {
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

void StackRows::chat_template() {
  const TokenizerFacts& facts = in_.tokenizer;
  if (stack_ == Stack::kInference && !facts.has_template) {
    needs("chat template", "there is none; generate.py renders with it", "copy the original's",
          kDemoSource);
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

}  // namespace ds::check
