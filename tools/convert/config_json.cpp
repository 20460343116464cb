#include "tools/convert/config_json.h"

#include <fmt/format.h>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/json.h"

namespace ds::convert {

nlohmann::ordered_json read_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  const std::string text = read_file(path);
  nlohmann::ordered_json config;
  const auto problem = try_parse_json(text, false, config);
  if (problem) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: byte {}: {}", path.string(), problem->offset, problem->reason));
  }
  if (!config.is_object()) {
    throw Error(ExitCode::kBadInput, path.string() + ": not a JSON object, which is needed");
  }
  return config;
}

void set_dtype(nlohmann::ordered_json& config, const std::string& torch_name) {
  config.erase("quantization_config");
  const bool both = config.contains("dtype") && config.contains("torch_dtype");
  if (config.contains("dtype")) config["dtype"] = torch_name;
  if (both || !config.contains("dtype")) config["torch_dtype"] = torch_name;
}

void set_fp8(nlohmann::ordered_json& config, const std::string& scale_fmt) {
  // Keys of the input's own block that we know nothing of stay.
  nlohmann::ordered_json& block = config["quantization_config"];
  if (!block.is_object()) block = nlohmann::ordered_json::object();
  block["activation_scheme"] = block.value("activation_scheme", "dynamic");
  block["fmt"] = "e4m3";
  block["quant_method"] = "fp8";
  block["weight_block_size"] = {128, 128};
  if (scale_fmt.empty()) {
    block.erase("scale_fmt");
  } else {
    block["scale_fmt"] = scale_fmt;
  }
}

std::string config_text(const nlohmann::ordered_json& config) { return config.dump(2) + "\n"; }

std::map<std::string, std::string> side_files(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool wanted = name == "tokenizer.json" || name == "tokenizer_config.json" ||
                        name == "tokenizer.model" || name == "tiktoken.model" ||
                        name == "special_tokens_map.json" || name == "added_tokens.json" ||
                        name == "chat_template.json" || name == "generation_config.json" ||
                        name == "preprocessor_config.json" || name.ends_with(".jinja") ||
                        name.ends_with(".py") || name.starts_with("LICENSE");
    if (wanted && entry.is_regular_file()) files[name] = read_file(entry.path());
  }
  return files;
}

}  // namespace ds::convert
