// Random tiny checkpoints for tests that must not need anything outside the clone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace ds::test {

// The suggested tiny shape of the family; the switches make the variants.
struct TinyModel {
  bool v2 = false;     // softmax router, no bias
  bool q_lora = true;  // q_a_proj and q_b_proj instead of q_proj
  bool tied = false;   // no lm_head.weight
  bool attention_bias = false;
  bool mtp = false;         // one MTP layer after the last
  std::int64_t layers = 3;  // the first is dense
  std::int64_t shared_experts = 1;
  std::int64_t groups = 2;   // of 8 experts; one is kept
  float bias_centre = 0.0f;  // of the router's selection bias
  std::uint64_t seed = 1;
};

// Writes config.json and model.safetensors (F32) into `folder`, which is created.
void write_tiny_model(const std::filesystem::path& folder, const TinyModel& tiny);
// The text of its config.json.
std::string tiny_config(const TinyModel& tiny);
inline constexpr std::int64_t kTinyVocab = 300;

}  // namespace ds::test
