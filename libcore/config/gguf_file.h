// What a deepseek2 GGUF file says of its model, for config_from_gguf().
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "libcore/config/gguf_names.h"
#include "libcore/io/gguf.h"

namespace ds {

// The keys of one file (the first of a split). Throws Error(kBadInput) for an array.
class GgufFileSettings final : public GgufSettings {
 public:
  // `file` must outlive this object.
  explicit GgufFileSettings(const GgufFile& file) : file_(file) {}
  std::optional<GgufSetting> find(const std::string& key) const override;

 private:
  const GgufFile& file_;
};

// The facts that its tensors tell. `entries` of all parts, by name ascending; `where` is the file's
// name. Throws Error(kBadInput) when token_embd or the norm of the first block is missing.
GgufFacts gguf_facts(const std::vector<GgufModel::Entry>& entries, const std::string& where);

// Tensors that a file may have beside those of gguf_tensor_plan(): tables that any loader can
// compute, and the split copies that some unsplit files have beside attn_kv_b.
bool is_gguf_extra(std::string_view name, GgufMla mla);

}  // namespace ds
