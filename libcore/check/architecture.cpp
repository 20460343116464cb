#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/check/alike.h"
#include "libcore/check/checks.h"
#include "libcore/check/expected_tensors.h"
#include "libcore/check/foreign_names.h"
#include "libcore/io/safetensors_header.h"

namespace ds::check {
namespace {

using kernels::DType;

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}
bool is_fp8(DType dtype) {
  return dtype == DType::kF8E4M3 || dtype == DType::kF8E5M2 || dtype == DType::kF8E4M3Fnuz ||
         dtype == DType::kF8E5M2Fnuz;
}

class ArchitectureCheck {
 public:
  ArchitectureCheck(const CheckpointTarget& target, const TensorSurvey& survey, Findings& findings)
      : target_(target),
        survey_(survey),
        expected_(survey.expected()),
        findings_(findings),
        config_file_(target.path_of("config.json")) {}

  void run() {
    if (other_names()) return;
    missing();
    shapes();
    dtypes();
    unknown();
    tied_head();
  }

 private:
  enum class State { kPresent, kUnreadable, kAbsent };
  State state(std::int64_t layer, std::int64_t expert, const TensorSlot& slot,
              const TensorSurvey::Place& place) const {
    if (place.weight >= 0) return State::kPresent;
    if (target_.inspection().unreadable.empty()) return State::kAbsent;
    return target_.unreadable(join_name(layer, expert, slot.stem)) ? State::kUnreadable
                                                                   : State::kAbsent;
  }

  // Names of another layout or with another prefix, where (nearly) nothing matches.
  bool other_names() {
    std::size_t present = 0;
    survey_.each([&](std::int64_t, std::int64_t, const TensorSlot&,
                     const TensorSurvey::Place& place) { present += place.weight >= 0 ? 1 : 0; });
    if (present >= survey_.unknown().size() || survey_.unknown().empty()) return false;
    for (const std::int32_t entry : survey_.unknown()) {
      const std::string name(survey_.tensor(entry).name);
      const std::size_t at = name.find("layers.");
      if (at == std::string::npos) continue;
      const std::string prefix = name.substr(0, at);
      if (prefix == "model.") return false;
      const bool inference = has(name, ".attn.") || has(name, ".ffn.") || has(name, "attn_norm");
      findings_.add(
          "wrong-prefix",
          {.file = survey_.file(entry),
           .tensor = name,
           .message =
               inference
                   ? fmt::format("{}: the tensors have the names of DeepSeek's inference layout "
                                 "(\"{}\"), needed are Hugging Face names",
                                 survey_.file(entry), name)
                   : fmt::format(
                         "{}: {} of {} tensors match no name; they begin with \"{}layers.\" "
                         "(\"{}\"), needed is \"model.layers.\"",
                         survey_.file(entry), survey_.unknown().size(), survey_.entries().size(),
                         prefix, name),
           .found = prefix,
           .expected = "model.",
           .fix = inference ? "convert the shards back to the Hugging Face layout" : ""});
      return true;
    }
    return false;
  }

  void missing() {
    std::vector<std::int64_t> layers;
    for (std::int64_t l = -1; l < expected_.layers(); ++l) {
      const bool mtp = l >= expected_.main_layers();
      if (l >= 0 && !mtp && whole_layer_missing(l)) {
        layers.push_back(l);
        continue;
      }
      missing_in(l, mtp);
    }
    report_layers(layers);
    alike_.flush(findings_);
  }

  void add_missing(bool mtp, const TensorSlot& slot, std::int64_t layer, std::int64_t expert) {
    alike_.add(mtp ? "mtp-incomplete" : "missing-tensor", slot.kind, "", "", [&] {
      const std::string folder = target_.folder().string();
      const std::string name = join_name(layer, expert, slot.stem);
      return Finding{.file = folder,
                     .tensor = name,
                     .message = fmt::format("{}: tensor \"{}\"{} is missing", folder, name,
                                            mtp ? " of a prediction layer" : "")};
    });
  }

  bool whole_layer_missing(std::int64_t l) const {
    const LayerPlan& plan = expected_.layer(l);
    for (std::size_t i = 0; i < plan.slots.size(); ++i) {
      if (state(l, -1, plan.slots[i], survey_.layer(l)[i]) != State::kAbsent) return false;
    }
    for (std::int64_t e = 0; plan.moe && e < expected_.experts(); ++e) {
      for (std::size_t i = 0; i < expected_.expert().slots.size(); ++i) {
        if (state(l, e, expected_.expert().slots[i], survey_.expert(l, e)[i]) != State::kAbsent) {
          return false;
        }
      }
    }
    return true;
  }

  void missing_in(std::int64_t l, bool mtp) {
    const LayerPlan& plan = l < 0 ? expected_.outside() : expected_.layer(l);
    for (std::size_t i = 0; i < plan.slots.size(); ++i) {
      const TensorSlot& slot = plan.slots[i];
      if (slot.required && state(l, -1, slot, survey_.layer(l)[i]) == State::kAbsent) {
        add_missing(mtp, slot, l, -1);
      }
    }
    if (!plan.moe) return;
    std::vector<std::int64_t> gone;
    for (std::int64_t e = 0; e < expected_.experts(); ++e) {
      std::vector<const TensorSlot*> absent;
      const auto& slots = expected_.expert().slots;
      for (std::size_t i = 0; i < slots.size(); ++i) {
        if (state(l, e, slots[i], survey_.expert(l, e)[i]) == State::kAbsent) {
          absent.push_back(&slots[i]);
        }
      }
      if (absent.size() == slots.size()) {
        gone.push_back(e);
        continue;
      }
      for (const TensorSlot* slot : absent) add_missing(mtp, *slot, l, e);
    }
    if (gone.empty() || fused_in(l)) return;
    const std::string first = fmt::format("model.layers.{}.mlp.experts.{}", l, gone.front());
    findings_.add(
        mtp ? "mtp-incomplete" : "missing-expert",
        {.file = target_.folder().string(),
         .tensor = first,
         .message =
             fmt::format("{}: layer {} has no tensors of {} of its {} experts "
                         "({}{})",
                         target_.folder().string(), l, gone.size(), expected_.experts(),
                         gone.front(), gone.size() > 1 ? fmt::format(", ... {}", gone.back()) : ""),
         .found = std::to_string(expected_.experts() - static_cast<std::int64_t>(gone.size())),
         .expected = std::to_string(expected_.experts())});
  }

  // Whether layer `l` stores its experts in one tensor (said by unknown()).
  bool fused_in(std::int64_t l) const {
    const auto& checkpoint = target_.inspection().checkpoint;
    const std::string prefix = fmt::format("model.layers.{}.mlp.experts.", l);
    return checkpoint.find(prefix + "gate_up_proj").tensor != nullptr ||
           checkpoint.find(prefix + "down_proj").tensor != nullptr;
  }

  void report_layers(const std::vector<std::int64_t>& layers) {
    for (std::size_t begin = 0; begin < layers.size();) {
      std::size_t end = begin + 1;
      while (end < layers.size() && layers[end] == layers[end - 1] + 1) ++end;
      const std::string span =
          end - begin == 1 ? fmt::format("layer {} has", layers[begin])
                           : fmt::format("layers {} to {} have", layers[begin], layers[end - 1]);
      findings_.add("missing-layer", {.file = target_.folder().string(),
                                      .tensor = fmt::format("model.layers.{}", layers[begin]),
                                      .key = "num_hidden_layers",
                                      .message = fmt::format(
                                          "{}: {} no tensors at all, num_hidden_layers is {}",
                                          target_.folder().string(), span, expected_.main_layers()),
                                      .found = std::to_string(end - begin) + " missing",
                                      .expected = std::to_string(expected_.main_layers())});
      begin = end;
    }
  }

  void shapes() {
    survey_.each(
        [&](std::int64_t, std::int64_t, const TensorSlot& slot, const TensorSurvey::Place& place) {
          if (place.weight < 0) return;
          const TensorInfo& tensor = survey_.tensor(place.weight);
          if (tensor.shape == slot.shape) return;
          const std::string found = shape_text(tensor.shape);
          const std::string expected = shape_text(slot.shape);
          alike_.add("wrong-shape", slot.kind, found, expected, [&] {
            return about(place.weight,
                         fmt::format("has shape {}, config.json demands {}", found, expected));
          });
        });
    alike_.flush(findings_);
  }

  // A finding that says `what` of an entry.
  Finding about(std::int32_t entry, const std::string& what) const {
    const std::string name(survey_.tensor(entry).name);
    return {
        .file = survey_.file(entry),
        .tensor = name,
        .message = fmt::format("{}: tensor {} {}", survey_.file(entry), quote_text(name), what)};
  }

  void dtypes() {
    std::map<DType, std::vector<std::int32_t>> matrices;
    std::map<DType, std::vector<std::int32_t>> others;  // embeddings, norms, routers
    const auto add = [&](const char* rule, std::int32_t entry, const std::string& expected) {
      const std::string found(kernels::dtype_name(survey_.tensor(entry).dtype));
      alike_.add(rule, "", found, expected,
                 [&] { return about(entry, fmt::format("is {}, needed is {}", found, expected)); });
    };
    survey_.each(
        [&](std::int64_t, std::int64_t, const TensorSlot& slot, const TensorSurvey::Place& place) {
          if (place.weight < 0) return;
          const DType dtype = survey_.tensor(place.weight).dtype;
          if (!is_float(dtype) && !is_fp8(dtype)) {
            add("unsupported-dtype", place.weight, "BF16, F16, F32 or F8_E4M3");
          } else if (slot.role == TensorRole::kRouterBias) {
            // In FP8 it breaks another rule.
            if (is_float(dtype) && dtype != DType::kF32) {
              add("router-bias-dtype", place.weight, "F32");
            }
          } else if (slot.role == TensorRole::kMatrix && is_float(dtype)) {
            matrices[dtype].push_back(place.weight);
          } else if (is_float(dtype) && dtype != DType::kF32) {
            // F32 is what some keep beside 16 bits on purpose; two kinds of 16 bits are not.
            others[dtype].push_back(place.weight);
          }
        });
    for (const auto* kinds : {&matrices, &others}) {
      const auto most = std::max_element(
          kinds->begin(), kinds->end(),
          [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
      for (const auto& [dtype, entries] : *kinds) {
        if (dtype == most->first) continue;
        const std::string expected =
            fmt::format("{}, as {} other weights are", kernels::dtype_name(most->first),
                        format_count(static_cast<std::int64_t>(most->second.size())));
        for (const std::int32_t entry : entries) add("mixed-dtypes", entry, expected);
      }
    }
    alike_.flush(findings_);
    dtype_key();
  }

  // The embedding has the dtype that the whole model is computed in, FP8 checkpoints included.
  void dtype_key() {
    const auto embedding = target_.inspection().checkpoint.find("model.embed_tokens.weight");
    const std::string& said = target_.config()->dtype;
    if (embedding.tensor == nullptr || said.empty()) return;
    static const std::map<std::string, DType> kNames{
        {"float32", DType::kF32}, {"bfloat16", DType::kBF16}, {"float16", DType::kF16}};
    const std::string bare = said.starts_with("torch.") ? said.substr(6) : said;
    const auto named = kNames.find(bare);
    if (named != kNames.end() && named->second == embedding.tensor->dtype) return;
    if (!is_float(embedding.tensor->dtype)) return;  // said elsewhere
    const char* key = target_.json()->contains("torch_dtype") ? "torch_dtype" : "dtype";
    const std::string found(kernels::dtype_name(embedding.tensor->dtype));
    findings_.add("dtype-key", {.file = config_file_,
                                .tensor = "model.embed_tokens.weight",
                                .key = key,
                                .message = fmt::format("{}: {} is {}, but the tensors are {}",
                                                       config_file_, key, quote_text(said), found),
                                .found = said,
                                .expected = found});
  }

  const char* unknown_rule(const std::string& name) const {
    const TensorName parts = split_name(name);
    if (has(name, "rotary_emb.inv_freq")) return "ignorable-buffer";
    if (has(name, "lora_A") || has(name, "lora_B") || has(name, "lora_embedding_") ||
        has(name, "lora_magnitude") || has(name, ".base_layer.")) {
      return "adapter-in-checkpoint";
    }
    if (is_foreign_quantisation(name)) return nullptr;  // said by the quantisation group
    if (has(name, "indexer.")) return "deepseek-v3.2";
    if (parts.layer >= expected_.layers()) return "layer-beyond-config";
    if (parts.layer >= 0 && parts.expert >= expected_.experts() && parts.expert >= 0) {
      return "expert-beyond-config";
    }
    if (has(name, ".mlp.experts.gate_up_proj") || has(name, ".mlp.experts.down_proj")) {
      return "fused-experts";
    }
    if (name.ends_with("e_score_correction_bias") && parts.layer >= 0 &&
        expected_.layer(parts.layer).moe) {
      return "bias-without-sigmoid";
    }
    return "unknown-tensor";
  }

  // What the author may have meant, and why it does not fit.
  std::string advice(const std::string& name) const {
    const TensorName parts = split_name(name);
    if (parts.layer >= expected_.layers()) return "";
    const LayerPlan& plan = parts.layer < 0 ? expected_.outside() : expected_.layer(parts.layer);
    if (parts.layer >= 0 && !plan.moe &&
        (parts.expert >= 0 || parts.stem.starts_with("mlp.gate.") ||
         parts.stem.starts_with("mlp.shared_experts."))) {
      return fmt::format("layer {} is dense by first_k_dense_replace", parts.layer);
    }
    if (plan.moe && parts.expert < 0 && parts.stem.starts_with("mlp.") &&
        expected_.layer(0).find(parts.stem) >= 0) {
      return fmt::format("layer {} has experts by first_k_dense_replace", parts.layer);
    }
    std::vector<std::string> stems;
    for (const TensorSlot& slot : parts.expert >= 0 ? expected_.expert().slots : plan.slots) {
      stems.push_back(slot.stem);
    }
    const std::string nearest = nearest_name(std::string(parts.stem), stems);
    return nearest.empty() ? ""
                           : "the nearest known name is \"" +
                                 join_name(parts.layer, parts.expert, nearest) + "\"";
  }

  void unknown() {
    for (const std::int32_t entry : survey_.unknown()) {
      const std::string name(survey_.tensor(entry).name);
      const char* rule = unknown_rule(name);
      if (rule == nullptr) continue;
      const bool beyond = std::string_view(rule).ends_with("-beyond-config");
      const std::string kind = beyond ? "" : std::string(split_name(name).stem);
      alike_.add(rule, kind, "", "", [&] {
        std::string what = complaint(rule);
        const std::string more =
            std::string_view(rule) == "unknown-tensor" ? advice(name) : std::string();
        return about(entry, more.empty() ? what : what + "; " + more);
      });
    }
    alike_.flush(findings_);
  }

  std::string complaint(const std::string& rule) const {
    if (rule == "ignorable-buffer") return "is a buffer that loaders compute themselves";
    if (rule == "adapter-in-checkpoint") return "belongs to an adapter";
    if (rule == "deepseek-v3.2") return "belongs to the sparse attention of DeepSeek-V3.2";
    if (rule == "fused-experts")
      return "holds all experts of a layer, needed is one tensor an expert";
    if (rule == "bias-without-sigmoid") return "is a selection bias, the router is a softmax one";
    if (rule == "layer-beyond-config") {
      return fmt::format(
          "is of a layer beyond the {} + {} of num_hidden_layers and "
          "num_nextn_predict_layers",
          expected_.main_layers(), expected_.layers() - expected_.main_layers());
    }
    if (rule == "expert-beyond-config") {
      return fmt::format("is of an expert beyond n_routed_experts {}", expected_.experts());
    }
    return "is not among those that config.json demands";
  }

  void tied_head() {
    const auto head = target_.inspection().checkpoint.find("lm_head.weight");
    if (head.tensor == nullptr || !target_.config()->tie_word_embeddings) return;
    findings_.add("tied-head",
                  {.file = config_file_,
                   .tensor = "lm_head.weight",
                   .key = "tie_word_embeddings",
                   .message = config_file_ +
                              ": tie_word_embeddings is true, but lm_head.weight is in the files",
                   .found = "true",
                   .expected = "false"});
  }

  const CheckpointTarget& target_;
  const TensorSurvey& survey_;
  const ExpectedTensors& expected_;
  Findings& findings_;
  std::string config_file_;
  Alike alike_;
};

}  // namespace

void check_architecture(const CheckpointTarget& target, const TensorSurvey& survey,
                        Findings& findings) {
  ArchitectureCheck(target, survey, findings).run();
}

}  // namespace ds::check
