// Names of tensors in PEFT's adapter files, and of settings (reference/formats.md 7).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ds::check {

enum class AdapterPart {
  kA,
  kB,
  kMagnitude,  // DoRA
  kFused,      // of all experts of a layer (transformers 5)
  kBaseCopy,   // the unchanged weight of an adapted embedding
  kOther,      // no part of a LoRA
};

struct AdapterKey {
  AdapterPart part = AdapterPart::kOther;
  std::string module;      // "model.layers.0.self_attn.o_proj"
  bool prefixed = false;   // begins with base_model.model. once, and then as the base's names do
  bool named = false;      // an adapter's name is in it (".lora_A.default.weight")
  bool embedding = false;  // A is [r, vocab] under another name
};
AdapterKey split_adapter_key(std::string_view name);

// Fields of PEFT's LoraConfig, of all versions.
const std::vector<std::string>& known_adapter_keys();

}  // namespace ds::check
