// A small sound adapter of the tiny model, to be spoilt.
#pragma once

#include <functional>

#include "tests/core/check/model_fixture.h"

namespace ds::test {

inline constexpr const char* kAdapterFile = "adapter_model.safetensors";
inline const std::string kAdapterPrefix = "base_model.model.model.layers.";

// An adapter of rank 4 on attention outputs, and on the experts of layer 1.
struct Adapter {
  nlohmann::json config;
  Model model;  // its tensors

  void pair(const std::string& module, std::int64_t in, std::int64_t out, std::int64_t rank = 4) {
    model.set(kAdapterPrefix + module + ".lora_A.weight", "F32", {rank, in}, kAdapterFile);
    model.set(kAdapterPrefix + module + ".lora_B.weight", "F32", {out, rank}, kAdapterFile);
  }
  std::string a(const std::string& module) const {
    return kAdapterPrefix + module + ".lora_A.weight";
  }
  std::string b(const std::string& module) const {
    return kAdapterPrefix + module + ".lora_B.weight";
  }
  void rename(const std::function<std::string(const std::string&)>& to) {
    std::map<std::string, ModelTensor> renamed;
    for (const auto& [name, tensor] : model.tensors) renamed[to(name)] = tensor;
    model.tensors = renamed;
  }
  void write(const std::filesystem::path& folder) const {
    if (!config.is_null()) write_text(folder / "adapter_config.json", config.dump());
    std::string data;
    const std::string header = model.header_of(kAdapterFile, data);
    write_text(folder / kAdapterFile, Model::file_bytes(header, data));
  }
};

inline Adapter sound_adapter() {
  Adapter adapter;
  adapter.config = {{"peft_type", "LORA"},
                    {"task_type", "CAUSAL_LM"},
                    {"base_model_name_or_path", "tiny/model"},
                    {"r", 4},
                    {"lora_alpha", 8},
                    {"lora_dropout", 0.0},
                    {"bias", "none"},
                    {"rank_pattern", nlohmann::json::object()},
                    {"alpha_pattern", nlohmann::json::object()},
                    {"target_modules",
                     {"o_proj", "layers.1.mlp.experts.0.gate_proj",
                      "layers.1.mlp.experts.0.up_proj", "layers.1.mlp.experts.0.down_proj"}}};
  for (const char* layer : {"0", "1", "2"}) {
    adapter.pair(std::string(layer) + ".self_attn.o_proj", 64, 64);
  }
  adapter.pair("1.mlp.experts.0.gate_proj", 64, 32);
  adapter.pair("1.mlp.experts.0.up_proj", 64, 32);
  adapter.pair("1.mlp.experts.0.down_proj", 32, 64);
  return adapter;
}

}  // namespace ds::test
