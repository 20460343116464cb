// What a `deepseek2` GGUF file calls the tensors and settings of this family (reference/formats.md
// section 8; llama.cpp conversion/deepseek.py and gguf-py tensor_mapping.py).
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "libcore/config/model_config.h"

namespace ds {

// How kv_b_proj is stored. kSplit: attn_k_b (transposed per head) and attn_v_b, multi-query with
// the latent width (llama.cpp since PR 12801). kUnsplit: attn_kv_b as it is (before).
enum class GgufMla { kSplit, kUnsplit };

// One tensor of the file and what it is made of.
struct GgufTensorPlan {
  enum class Kind {
    kWhole,    // one source tensor as it is
    kExperts,  // the experts' tensors stacked, the expert slowest
    kKeyB,     // of every head of kv_b_proj the first qk_nope_head_dim rows, transposed
    kValueB,   // of every head of kv_b_proj the last v_head_dim rows
  };
  std::string name;
  Kind kind = Kind::kWhole;
  // Name in Hugging Face layout, with '*' for the expert's number. Names are made when they are
  // asked for: a config may claim a million experts.
  std::string source;
  std::int64_t sources = 1;                // n_routed_experts
  std::vector<std::int64_t> source_shape;  // each source's
  std::vector<std::int64_t> shape;         // slowest first
  bool always_f32 = false;                 // 1-D, norms, router and what does not end in .weight
  std::string source_name(std::int64_t expert) const;
};

// All tensors of a model in the order of the file: embedding, blocks, final norm, head. No MTP
// layers; no head when it is tied. Throws Error(kBadInput) for what deepseek2 has no place for:
// attention biases, rotary halves that are not interleaved.
std::vector<GgufTensorPlan> gguf_tensor_plan(const ModelConfig& config, GgufMla mla);

// A setting: u32, f32, bool or string in the file.
using GgufSetting = std::variant<std::int64_t, double, bool, std::string>;
struct GgufMetadata {
  std::string key;
  GgufSetting value;
};
// The keys "deepseek2.*" of a model, in the order of llama.cpp's converter.
std::vector<GgufMetadata> gguf_metadata(const ModelConfig& config, GgufMla mla);

// The way back. Settings of a file, asked for by key.
class GgufSettings {
 public:
  virtual ~GgufSettings() = default;
  virtual std::optional<GgufSetting> find(const std::string& key) const = 0;
};
// What a file's tensors say beside its keys.
struct GgufFacts {
  GgufMla mla = GgufMla::kSplit;
  bool tied = false;                 // no output.weight
  bool selection_bias = false;       // exp_probs_b is there
  std::int64_t vocabulary_rows = 0;  // of token_embd
  std::int64_t kv_lora_rank = 0;     // columns of attn_kv_b or attn_v_b
};
// config.json of the model, ready for parse_model_config(). Throws Error(kBadInput) naming the key
// that is missing, of another type or out of range; `where` is the file's name. `guesses` gets a
// sentence for every entry that the file does not hold.
nlohmann::ordered_json config_from_gguf(const GgufSettings& settings, const GgufFacts& facts,
                                        const std::string& where,
                                        std::vector<std::string>& guesses);

}  // namespace ds
