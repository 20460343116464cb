#include "libcore/config/gguf_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/error.h"

namespace ds {

std::optional<GgufSetting> GgufFileSettings::find(const std::string& key) const {
  const GgufKey* found = file_.find_key(key);
  if (found == nullptr) return std::nullopt;
  if (found->is_integer()) return found->integer();
  if (found->is_number()) return found->number();
  if (found->type == GgufValueType::kBool) return found->boolean();
  if (found->type == GgufValueType::kString) return std::string(found->text());
  throw Error(ExitCode::kBadInput, fmt::format("{}: key {} is an array, a single value is needed",
                                               file_.path().string(), key));
}

GgufFacts gguf_facts(const std::vector<GgufModel::Entry>& entries, const std::string& where) {
  const auto rows = [&](const char* name) {
    const GgufModel::Entry entry = find_gguf_tensor(entries, name);
    if (entry.tensor == nullptr || entry.tensor->shape.empty()) {
      throw Error(ExitCode::kBadInput, fmt::format("{}: tensor {} is missing", where, name),
                  "the file is no whole deepseek2 model");
    }
    return entry.tensor->shape.front();
  };
  GgufFacts facts;
  facts.mla = find_gguf_tensor(entries, "blk.0.attn_kv_b.weight").tensor != nullptr
                  ? GgufMla::kUnsplit
                  : GgufMla::kSplit;
  facts.tied = find_gguf_tensor(entries, "output.weight").tensor == nullptr;
  facts.selection_bias =
      std::any_of(entries.begin(), entries.end(), [](const GgufModel::Entry& entry) {
        return entry.tensor->name.ends_with(".exp_probs_b.bias");
      });
  facts.vocabulary_rows = rows("token_embd.weight");
  facts.kv_lora_rank = rows("blk.0.attn_kv_a_norm.weight");
  return facts;
}

bool is_gguf_extra(std::string_view name, GgufMla mla) {
  return name == "rope_freqs.weight" ||
         (mla == GgufMla::kUnsplit &&
          (name.ends_with(".attn_k_b.weight") || name.ends_with(".attn_v_b.weight")));
}

}  // namespace ds
