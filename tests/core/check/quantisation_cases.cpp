// FP8 weights, scales, and values.
#include "tests/core/check/checkpoint_cases.h"

namespace ds::test {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

std::function<void(Model&)> quantization(const char* key, const json& value) {
  return [=](Model& m) { m.config["quantization_config"][key] = value; };
}

// Overwrites elements of a tensor's data.
std::function<void(Model&)> poke(const char* name, std::size_t at, const std::string& bytes) {
  return [=](Model& m) { m.at(name).data.replace(at, bytes.size(), bytes); };
}
std::string f32(float value) { return std::string(reinterpret_cast<const char*>(&value), 4); }

}  // namespace

const std::vector<Case>& quantisation_cases() {
  static const std::vector<Case> kCases{
      {"fp8-without-scale", kQ, [](Model& m) { m.tensors.erase(kQScale); }, {}},
      {"scale-without-weight", kQScale, [](Model& m) { m.tensors.erase(kQ); }, {}},
      {"scale-of-unquantised",
       kQScale,
       [](Model& m) {
         m.set(kQ, "BF16", {96, 32});
       },
       {}},
      {"scale-shape",
       kQScale,
       [](Model& m) {
         m.set(kQScale, "F32", {1, 2});
       },
       {}},
      {"scale-dtype",
       kQScale,
       [](Model& m) {
         m.set(kQScale, "F64", {1, 1});
       },
       {}},
      {"narrow-scale",
       kQScale,
       [](Model& m) {
         m.set(kQScale, "BF16", {1, 1});
       },
       {}},
      {"must-not-be-fp8",
       "mlp.gate.weight",
       [](Model& m) {
         m.set("model.layers.1.mlp.gate.weight", "F8_E4M3", {8, 64});
       },
       {}},
      {"must-not-be-fp8",
       "eh_proj",
       [](Model& m) {
         m.set("model.layers.3.eh_proj.weight", "F8_E4M3", {64, 128});
       },
       {}},
      {"fp8-undeclared",
       "quantization_config",
       [](Model& m) { m.config.erase("quantization_config"); },
       {}},
      {"partly-quantised",
       kExpert,
       [](Model& m) {
         m.set(kExpert, "BF16", {32, 64});
         m.tensors.erase(std::string(kExpert) + "_scale_inv");
       },
       {}},
      {"block-size", "weight_block_size", quantization("weight_block_size", {64, 128}), {}},
      {"quantisation-method", "quant_method", quantization("quant_method", "awq"), {}},
      {"fp8-format", "fmt", quantization("fmt", "e5m2"), {}},
      {"fp8-format",
       kQ,
       [](Model& m) {
         m.set(kQ, "F8_E5M2", {96, 32});
       },
       {}},
      {"scale-format", "scale_fmt", quantization("scale_fmt", "e8m0"), {}},
      {"ue8m0-undeclared",
       kQScale,
       [](Model& m) {
         m.set(kQScale, "F8_E8M0", {1, 1});
       },
       {}},
      {"activation-scheme", "activation_scheme", quantization("activation_scheme", "static"), {}},
      {"foreign-quantisation",
       "qweight",
       [](Model& m) {
         m.set("model.layers.1.self_attn.o_proj.qweight", "I32", {8, 64});
       },
       {}},
      {"unmatched-exclusion",
       "modules_to_not_convert",
       quantization("modules_to_not_convert", {"vision_tower"}),
       {}},
      {"excluded-is-fp8",
       kQ,
       quantization("modules_to_not_convert", {"model.layers.1.self_attn.q_b_proj"}),
       {}},
      {"unquantised-pair",
       "experts.3.gate_proj",
       [](Model& m) {
         m.set(kExpert, "BF16", {32, 64});
         m.tensors.erase(std::string(kExpert) + "_scale_inv");
       },
       {}},
  };
  return kCases;
}

const std::vector<Case>& deep_cases() {
  static const std::vector<Case> kCases{
      {"fp8-nan", kQ, poke(kQ, 77, "\x7f"), {}},
      {"fp8-nan", kQ, poke(kQ, 78, "\xff"), {}},
      {"scale-not-finite", kQScale, poke(kQScale, 0, f32(HUGE_VALF)), {}},
      {"scale-not-finite", kQScale, poke(kQScale, 0, f32(NAN)), {}},
      {"scale-not-positive", kQScale, poke(kQScale, 0, f32(0.0f)), {}},
      {"scale-not-positive", kQScale, poke(kQScale, 0, f32(-0.01f)), {}},
      {"scale-range", kQScale, poke(kQScale, 0, f32(1e6f)), {}},
      {"ue8m0-mantissa", kQScale, quantization("scale_fmt", "ue8m0"), {}},
      {"ue8m0-possible",
       "scale_fmt",
       [](Model& m) {
         for (auto& [name, tensor] : m.tensors) {
           if (!name.ends_with("_scale_inv")) continue;
           for (std::size_t i = 0; i < tensor.data.size(); i += 4) {
             tensor.data.replace(i, 4, f32(0.000244140625f));
           }
         }
       },
       {}},
      {"saturated", kQ, poke(kQ, 0, std::string(400, '\x7e')), {}},
      {"weight-not-finite",
       "model.norm.weight",
       poke("model.norm.weight", 10, std::string("\x80\x7f", 2)),
       {}},
      {"weight-not-finite",
       "e_score_correction_bias",
       poke("model.layers.1.mlp.gate.e_score_correction_bias", 4, f32(NAN)),
       {}},
      {"weight-range", "model.norm.weight", poke("model.norm.weight", 10, "\x80\x7e"), {}},
      {"many-zeros", kQ, poke(kQ, 100, std::string(900, '\0')), {}},
      {"zero-tensor",
       "model.norm.weight",
       poke("model.norm.weight", 0, std::string(128, '\0')),
       {}},
      {"identical-tensors",
       "model.embed_tokens.weight",
       [](Model& m) { m.at("model.embed_tokens.weight").data = m.at("lm_head.weight").data; },
       {}},
      {"constant-tensor", kQ, poke(kQ, 0, std::string(96 * 32, '\x31')), {}},
      {"zero-tensor", kQ, poke(kQ, 0, std::string(96 * 32, '\0')), {}},
      {"identical-tensors",
       "experts.4.up_proj",
       [](Model& m) {
         m.at("model.layers.1.mlp.experts.4.up_proj.weight").data = m.at(kExpert).data;
       },
       {}},
      {"unlike-siblings",
       kExpert,
       poke("model.layers.1.mlp.experts.3.up_proj.weight_scale_inv", 0, f32(1.0f)),
       {}},
      {"codes-below-scale",
       kQ,
       [](Model& m) {
         for (char& code : m.at(kQ).data) code = static_cast<char>(code & 0xbf);
       },
       {}},
  };
  return kCases;
}

const std::vector<Case>& plain_cases() {
  static const std::vector<Case> kCases{
      {"fp8-declared-only",
       "quantization_config",
       config("quantization_config", {{"activation_scheme", "dynamic"},
                                      {"fmt", "e4m3"},
                                      {"quant_method", "fp8"},
                                      {"weight_block_size", {128, 128}}}),
       {}},
      {"mixed-dtypes",
       kQ,
       [](Model& m) {
         m.set(kQ, "F16", {96, 32});
       },
       {}},
  };
  return kCases;
}
const std::vector<Case>& softmax_cases() {
  static const std::vector<Case> kCases{
      {"bias-without-sigmoid",
       "e_score_correction_bias",
       [](Model& m) { m.set("model.layers.1.mlp.gate.e_score_correction_bias", "F32", {8}); },
       {}},
  };
  return kCases;
}

}  // namespace ds::test
