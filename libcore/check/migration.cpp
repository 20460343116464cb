// From the form of V3 to that of V3.1: checkpoints, GGUF models, inference shards, tokenizers,
// adapters.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "libcore/base/format.h"
#include "libcore/check/compatibility.h"

namespace ds::check {
namespace {

constexpr std::int64_t kSizeOfV3 = 128815;
constexpr std::int32_t kThink = 128798;
constexpr std::int32_t kSearch = 128796;
constexpr std::int64_t kMaxLength = 131072;
constexpr const char* kCard = "DeepSeek-V3.1 model card and chat template";
constexpr const char* kTokenizerOfV31 =
    "take tokenizer.json and tokenizer_config.json of V3.1 (V3's with four entries replaced)";

class Migration {
 public:
  Migration(const InputFacts& input, Generation from)
      : in_(input), subject_(fmt::format("{} to v3.1", generation_name(from))) {}

  CompatibilityRows run() {
    switch (in_.input.kind) {
      case TargetKind::kCheckpoint:
        if (!architecture()) break;
        scale_format();
        prediction_layer();
        tokenizer();
        break;
      case TargetKind::kGguf:
        if (!architecture()) break;
        ok("scale format", fmt::format("{}: a GGUF file has no FP8 scales", in_.gguf.types),
           "docs/gguf.md");
        tokenizer();
        break;
      case TargetKind::kInference:
        if (!architecture()) break;
        scale_format();
        tokenizer();
        break;
      case TargetKind::kTokenizer:
        tokenizer();
        break;
      case TargetKind::kAdapter:
      case TargetKind::kGgufAdapter:
        adapter();
        break;
      default:
        break;
    }
    return std::move(rows_);
  }

 private:
  CompatibilityRow& add(const char* requirement, Verdict verdict, const std::string& detail,
                        const std::string& action, const char* source, const char* rule = "") {
    rows_.push_back({.section = "migration",
                     .subject = subject_,
                     .requirement = requirement,
                     .verdict = verdict,
                     .detail = detail,
                     .action = action,
                     .source = source,
                     .rule = rule,
                     .file = in_.input.path.string()});
    return rows_.back();
  }
  void ok(const char* requirement, const std::string& detail, const char* source) {
    add(requirement, Verdict::kOk, detail, "", source);
  }

  bool architecture() {
    const char* source = "config.json of DeepSeek-V3 and DeepSeek-V3.1";
    for (const char* rule :
         {"distilled-model", "deepseek-v3.2", "deepseek-v4", "other-architecture", "class-and-type",
          "inference-config", "gguf-architecture", "gguf-key-missing", "gguf-key-value"}) {
      const Finding* finding = in_.find(rule);
      if (finding == nullptr) continue;
      add("config keys", Verdict::kRefuses, finding->message, finding->fix, source,
          "migration-architecture");
      return false;
    }
    if (!in_.config || in_.config->model_class != ModelClass::kV3) {
      add("config keys", Verdict::kRefuses,
          in_.config ? fmt::format("{} is not of V3's architecture", in_.config->architecture)
                     : std::string(in_.is_gguf() ? "the keys of the file say too little"
                                                 : "config.json says too little"),
          "take a checkpoint of V3, R1 or V3.1", source, "migration-architecture");
      return false;
    }
    if (const Finding* other = in_.find("differs-from-published")) {
      add("config keys", Verdict::kNeeds, other->message, other->fix, source,
          "migration-config-key")
          .key = other->key;
    } else {
      ok("config keys", "the keys of V3.1 are those of V3, but for scale_fmt", source);
    }
    return true;
  }

  void scale_format() {
    const char* source = "config.json of DeepSeek-V3.1; deepseek-ai/DeepSeek-V3 issue 994";
    const TensorFacts& tensors = in_.tensors;
    const std::string config = in_.file("config.json");
    const std::string again = in_.convert("fp8 --scale_fmt ue8m0") + back();
    const bool demo = in_.inference.demo_config;
    const char* key = demo ? "scale_fmt" : "quantization_config.scale_fmt";
    if (tensors.fp8 == 0) {
      ok("scale format", "the weights are in 16 or 32 bits: no scales", source);
    } else if (in_.ue8m0 && !tensors.mantissa_scale.empty()) {
      CompatibilityRow& row =
          add("scale format", Verdict::kRefuses,
              fmt::format("scale_fmt is ue8m0 as in V3.1, but {} is no power of two as in V3",
                          tensors.mantissa_scale),
              again + ", or remove scale_fmt; never change scales alone", source,
              "migration-scale-mantissa");
      row.file = config;
      row.tensor = tensors.mantissa_scale;
    } else if (in_.ue8m0) {
      ok("scale format",
         fmt::format("ue8m0, {} sampled scales are powers of two (--deep looks at all)",
                     format_count(tensors.sampled)),
         source);
    } else if (tensors.sampled > 0 && tensors.mantissa_scale.empty()) {
      CompatibilityRow& row =
          add("scale format", Verdict::kNeeds,
              fmt::format("{} sampled scales are powers of two, scale_fmt is absent",
                          format_count(tensors.sampled)),
              fmt::format("set \"scale_fmt\": \"ue8m0\" in {} (--deep looks at all scales)",
                          demo ? "config.json" : "quantization_config"),
              source, "migration-scale-format");
      row.file = config;
      row.key = key;
    } else {
      CompatibilityRow& row = add(
          "scale format", Verdict::kNeeds,
          fmt::format("scales are {} without scale_fmt, as in V3; V3.1 has powers of two (ue8m0)",
                      tensors.scale_dtype.empty() ? "absent" : tensors.scale_dtype),
          again + " (about 2.6 % of relative error; sm_100 needs it)", source,
          "migration-scale-format");
      row.file = config;
      row.key = key;
    }
  }

  // Behind a command that ends in a Hugging Face folder.
  std::string back() const {
    return in_.input.kind == TargetKind::kInference
               ? fmt::format(", then deepseek-convert weights OUT SHARDS --to inference --mp {}",
                             in_.inference.ranks)
               : "";
  }
  // Where a tokenizer or its template cannot be laid beside the weights.
  std::string action(const std::string& files, const std::string& flag = "") const {
    if (!in_.is_gguf()) return files;
    const std::string around = in_.gguf.one_way.empty()
                                   ? "deepseek-convert weights IN HF --to hf, " + files +
                                         ", then deepseek-convert weights HF OUT.gguf --to gguf"
                                   : in_.convert("hf") + "; convert it with V3.1's tokenizer";
    return flag.empty() ? around : flag + "; or " + around;
  }

  void prediction_layer() {
    const std::int64_t declared = in_.config->num_nextn_predict_layers;
    if (const Finding* absent = in_.find("mtp-absent")) {
      add("prediction layer", Verdict::kNeeds, absent->message, absent->fix,
          "huggingface/transformers issue 35688", "migration-config-key")
          .key = "num_nextn_predict_layers";
    } else {
      ok("prediction layer",
         declared > 0 ? fmt::format("{} declared, and there", declared) : "none declared",
         "deepseek-ai/DeepSeek-V3 README_WEIGHTS.md");
    }
  }

  void tokenizer() {
    const TokenizerFacts& facts = in_.tokenizer;
    if (!facts.readable) {
      add("think tokens", Verdict::kNeeds,
          in_.is_gguf() ? "the file has no tokens that can be read"
          : facts.json  ? "tokenizer.json cannot be read"
                        : "there is no tokenizer.json",
          "check the tokenizer's folder with --from v3 --to v3.1", kCard);
      return;
    }
    think_tokens();
    chat_template();
    if (facts.size == kSizeOfV3 && facts.max_length > 0 && facts.max_length < kMaxLength) {
      CompatibilityRow& row =
          add("model_max_length", Verdict::kNeeds,
              fmt::format("model_max_length is {}, V3.1's is {}", facts.max_length, kMaxLength),
              "set it, or take V3.1's tokenizer_config.json",
              "tokenizer_config.json of DeepSeek-V3 and R1", "migration-config-key");
      row.file = in_.file("tokenizer_config.json");
      row.key = "model_max_length";
    }
  }

  void think_tokens() {
    const TokenizerFacts& facts = in_.tokenizer;
    const bool v3_size = facts.size == kSizeOfV3;
    const bool there = facts.think >= 0 && facts.think_end >= 0;
    const std::string file = in_.file("tokenizer.json");
    if (!there || (v3_size && (facts.think != kThink || facts.think_end != kThink + 1))) {
      std::string found;
      if (there) {
        found = fmt::format("<think> and </think> are {} and {}", facts.think, facts.think_end);
      } else if (!facts.at_think.empty()) {
        found = fmt::format("{} is {}", kThink, facts.at_think);
      } else {
        found = "<think> or </think> is no token";
      }
      CompatibilityRow& row =
          add("think tokens", Verdict::kNeeds,
              fmt::format("{}; V3.1 has <think> {} and </think> {}, not special", found, kThink,
                          kThink + 1),
              action(kTokenizerOfV31), kCard, "migration-think-tokens");
      row.file = file;
      row.key = "<think>";
      return;
    }
    ok("think tokens", fmt::format("<think> {}, </think> {}", facts.think, facts.think_end), kCard);
    if (v3_size && facts.search != kSearch) {
      CompatibilityRow& row =
          add("search tokens", Verdict::kNeeds,
              fmt::format("<\uff5csearch\u2581begin\uff5c> is {}, V3.1 has it at {}",
                          facts.search < 0 ? "absent" : std::to_string(facts.search), kSearch),
              action(kTokenizerOfV31), kCard, "migration-search-tokens");
      row.file = file;
      row.key = "<\uff5csearch\u2581begin\uff5c>";
    }
  }

  const char* template_key() const {
    return in_.is_gguf() ? "tokenizer.chat_template" : "chat_template";
  }
  void chat_template() {
    const TokenizerFacts& facts = in_.tokenizer;
    const auto& kind = facts.chat_template.kind;
    const std::string file = in_.file(
        facts.template_file.empty() ? std::string("tokenizer_config.json") : facts.template_file);
    if (kind == ChatTemplate::kV31) {
      ok("chat template",
         facts.chat_template.published ? "that of V3.1, as published"
         : facts.chat_template.notes.empty()
             ? "that of V3.1"
             : "that of V3.1, changed: " + facts.chat_template.notes.front(),
         kCard);
      ok("tool calls", "NAME<\uff5ctool\u2581sep\uff5c>ARGUMENTS, bare JSON, nothing between calls",
         kCard);
      return;
    }
    const std::string found =
        kind ? fmt::format("that of {}", chat_template_name(*kind))
             : std::string(facts.has_template ? "none of DeepSeek's" : "absent");
    const char* expects = kind == ChatTemplate::kR1
                              ? "; V3.1 opens an answer with </think>, or <think> without a line "
                                "break, on the switch thinking"
                              : "; V3.1 opens every answer with </think> (or <think>)";
    CompatibilityRow& row = add("chat template", Verdict::kNeeds, found + expects,
                                action("take the chat template of V3.1 (2,925 bytes)",
                                       "--jinja --chat-template-file with V3.1's"),
                                kCard, "migration-template");
    row.file = file;
    row.key = template_key();
    if (kind != ChatTemplate::kV3 && kind != ChatTemplate::kR1) return;
    CompatibilityRow& calls = add(
        "tool calls", Verdict::kNeeds,
        "function<\uff5ctool\u2581sep\uff5c>NAME and a fenced block, results in a wrapper; V3.1 "
        "has NAME<\uff5ctool\u2581sep\uff5c>ARGUMENTS and bare results",
        in_.is_gguf() ? "the same: llama.cpp chooses its parser of calls by the template"
                      : "take the template of V3.1, and its parser when serving (deepseek_v31 of "
                        "vLLM, deepseekv31 of SGLang)",
        kCard, "migration-tool-calls");
    calls.file = file;
    calls.key = template_key();
  }

  void adapter() {
    const AdapterFacts& facts = in_.adapter;
    const char* source = "DeepSeek-V3.1 is trained on from DeepSeek-V3: other weights";
    const std::string file = in_.file("adapter_config.json");
    const std::string again =
        "train again on V3.1: deepseek-finetune --model V3.1 --dataset DATA --output_dir OUT; "
        "compare with deepseek-check canary";
    std::string base = facts.base;
    std::transform(base.begin(), base.end(), base.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const auto names = [&](const char* part) { return base.find(part) != std::string::npos; };
    if (names("v3.1") || names("v3_1") || names("v31")) {
      ok("base", fmt::format("trained on {}", quote_text(facts.base)), source);
    } else if (names("v3") || names("r1")) {
      CompatibilityRow& row =
          add("base", Verdict::kNeeds,
              fmt::format("trained on {}, whose weights V3.1 has not", quote_text(facts.base)),
              again, source, "migration-adapter-base");
      row.file = file;
      row.key = in_.is_gguf() ? "general.base_model.0.name" : "base_model_name_or_path";
    } else {
      add("base", Verdict::kNeeds,
          facts.base.empty()
              ? "the base is not named"
              : fmt::format("trained on {}: not known to be V3.1", quote_text(facts.base)),
          again, source);
    }
    if (facts.vocabulary) {
      CompatibilityRow& row =
          add("vocabulary", Verdict::kNeeds,
              "the adapter carries rows or matrices of the vocabulary, of a base whose think and "
              "search tokens were placeholders",
              again, kCard, "migration-adapter-vocabulary");
      row.file = in_.file("adapter_model.safetensors");
    } else {
      ok("vocabulary", "no rows of the vocabulary are in the file", kCard);
    }
    ok("modules", "V3.1 has the modules of V3, by the same names", "config.json of both");
  }

  const InputFacts& in_;
  std::string subject_;
  CompatibilityRows rows_;
};

}  // namespace

CompatibilityRows check_migration(const InputFacts& input, Generation from) {
  return Migration(input, from).run();
}

}  // namespace ds::check
