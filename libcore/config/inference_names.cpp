#include "libcore/config/inference_names.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <vector>

namespace ds {

namespace {

using Split = InferenceSplit;

struct Row {
  std::string_view hf;
  std::string_view inference;
  Split split;
};
constexpr std::array<Row, 17> kModules{
    {{"embed_tokens", "embed", Split::kRows},
     {"input_layernorm", "attn_norm", Split::kReplicated},
     {"post_attention_layernorm", "ffn_norm", Split::kReplicated},
     {"q_proj", "wq", Split::kRows},
     {"q_a_proj", "wq_a", Split::kReplicated},
     {"q_a_layernorm", "q_norm", Split::kReplicated},
     {"q_b_proj", "wq_b", Split::kRows},
     {"kv_a_proj_with_mqa", "wkv_a", Split::kReplicated},
     {"kv_a_layernorm", "kv_norm", Split::kReplicated},
     {"kv_b_proj", "wkv_b", Split::kRows},
     {"o_proj", "wo", Split::kCols},
     {"gate", "gate", Split::kReplicated},
     {"gate_proj", "w1", Split::kRows},
     {"down_proj", "w2", Split::kCols},
     {"up_proj", "w3", Split::kRows},
     {"norm", "norm", Split::kReplicated},
     {"lm_head", "head", Split::kRows}}};

std::vector<std::string_view> parts_of(std::string_view name) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t dot = name.find('.');
    parts.push_back(name.substr(0, dot));
    if (dot == std::string_view::npos) return parts;
    name.remove_prefix(dot + 1);
  }
}

bool is_number(std::string_view text, std::int64_t& value) {
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  return end.ec == std::errc() && end.ptr == text.data() + text.size() && value >= 0;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string name;
  for (const std::string& part : parts) name += (name.empty() ? "" : ".") + part;
  return name;
}

// One way or the other over the parts of a name. `hf_first`: from Hugging Face names.
std::optional<InferenceName> translate(std::string_view name, bool from_hf) {
  std::vector<std::string_view> parts = parts_of(name);
  if (from_hf && parts.front() == "model") parts.erase(parts.begin());
  if (parts.size() < 2) return std::nullopt;
  InferenceName out;
  std::vector<std::string> result;
  const bool in_layer = parts.front() == "layers";
  if (!from_hf && (in_layer || parts.front() != "head")) result.emplace_back("model");

  const Row* module = nullptr;
  for (const Row& row : kModules) {
    if ((from_hf ? row.hf : row.inference) == parts[parts.size() - 2]) module = &row;
  }
  if (module == nullptr) return std::nullopt;
  for (std::size_t i = 0; i + 2 < parts.size(); ++i) {
    std::int64_t number = 0;
    if (from_hf && parts[i] == "self_attn") {
      result.emplace_back("attn");
    } else if (from_hf && parts[i] == "mlp") {
      result.emplace_back("ffn");
    } else if (!from_hf && parts[i] == "attn") {
      result.emplace_back("self_attn");
    } else if (!from_hf && parts[i] == "ffn") {
      result.emplace_back("mlp");
    } else if (parts[i] == "layers" || parts[i] == "experts" || parts[i] == "shared_experts" ||
               is_number(parts[i], number)) {
      if (i > 0 && parts[i - 1] == "experts" && is_number(parts[i], number)) out.expert = number;
      result.emplace_back(parts[i]);
    } else {
      return std::nullopt;
    }
  }
  result.emplace_back(from_hf ? module->inference : module->hf);
  const std::string_view last = parts.back();
  const bool is_gate = module->hf == "gate";
  if (last == "weight") {
    result.emplace_back("weight");
  } else if (last == (from_hf ? "weight_scale_inv" : "scale")) {
    result.emplace_back(from_hf ? "scale" : "weight_scale_inv");
  } else if (is_gate && last == (from_hf ? "e_score_correction_bias" : "bias")) {
    result.emplace_back(from_hf ? "bias" : "e_score_correction_bias");
  } else if (!is_gate && last == "bias") {
    result.emplace_back("bias");
  } else {
    return std::nullopt;
  }
  out.name = joined(result);
  out.split = out.expert >= 0 ? Split::kExpert : module->split;
  return out;
}

}  // namespace

std::optional<InferenceName> to_inference_name(std::string_view hf) { return translate(hf, true); }
std::optional<InferenceName> to_hf_name(std::string_view inference) {
  return translate(inference, false);
}

std::optional<InferenceShard> parse_inference_shard(std::string_view name) {
  constexpr std::string_view kStart = "model", kMiddle = "-mp", kEnd = ".safetensors";
  if (!name.starts_with(kStart) || !name.ends_with(kEnd)) return std::nullopt;
  InferenceShard shard;
  const char* const last = name.data() + name.size() - kEnd.size();
  const auto first = std::from_chars(name.data() + kStart.size(), last, shard.rank);
  if (first.ec != std::errc() || last - first.ptr < 4) return std::nullopt;
  if (std::string_view(first.ptr, kMiddle.size()) != kMiddle) return std::nullopt;
  const auto second = std::from_chars(first.ptr + kMiddle.size(), last, shard.ranks);
  const bool good = second.ec == std::errc() && second.ptr == last && shard.rank >= 0 &&
                    shard.ranks >= 1 && shard.rank < shard.ranks;
  return good ? std::optional(shard) : std::nullopt;
}

std::string inference_shard_name(std::int64_t rank, std::int64_t ranks) {
  return fmt::format("model{}-mp{}.safetensors", rank, ranks);
}

bool is_inference_folder(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (fs::exists(folder / "model.safetensors.index.json", error) ||
      fs::exists(folder / "model.safetensors", error)) {
    return false;
  }
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (parse_inference_shard(it->path().filename().string())) return true;
  }
  return false;
}

}  // namespace ds
