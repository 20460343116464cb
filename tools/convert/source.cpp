#include "tools/convert/source.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <charconv>

#include "libcore/cli/environment.h"
#include "tools/convert/config_json.h"

namespace ds::convert {

Source open_source(const std::string& name, cli::Run& run) {
  Source source;
  source.folder = find_model(name, cli::model_search_paths());
  source.config = load_model_config(source.folder);
  source.json = read_config(source.folder);
  source.checkpoint = Checkpoint::open(source.folder);
  for (const CheckpointFinding& finding : source.checkpoint.warnings()) run.warn(finding.message);
  return source;
}

std::string identity_of(const std::vector<const SafetensorsFile*>& files) {
  std::string text;
  for (const SafetensorsFile* file : files) {
    struct stat status {};
    if (::stat(file->path().c_str(), &status) != 0) status = {};
    text += fmt::format("{} {} {}.{}\n", file->path().filename().string(), status.st_size,
                        status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
  }
  return text;
}

std::string identity_of(const Checkpoint& checkpoint) {
  std::vector<const SafetensorsFile*> files;
  for (const auto& file : checkpoint.files()) files.push_back(file.get());
  return identity_of(files);
}

std::int64_t layer_of(std::string_view tensor) {
  constexpr std::string_view kStart = "model.layers.";
  if (!tensor.starts_with(kStart)) return -1;
  tensor.remove_prefix(kStart.size());
  std::int64_t layer = -1;
  const auto end = std::from_chars(tensor.data(), tensor.data() + tensor.size(), layer);
  return end.ec == std::errc() && *end.ptr == '.' ? layer : -1;
}

bool is_mtp(std::string_view tensor, const ModelConfig& config) {
  return layer_of(tensor) >= config.num_hidden_layers;
}

std::string_view weight_of_scale(std::string_view tensor) {
  if (!tensor.ends_with(kScaleSuffix)) return {};
  return tensor.substr(0, tensor.size() - kScaleSuffix.size());
}

bool is_wide(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kBF16 ||
         dtype == DType::kF16;
}

bool is_parameter(std::string_view tensor) {
  return tensor.ends_with(".weight") || tensor.ends_with(".bias");
}

bool is_fp8_kind(const TensorInfo& tensor) {
  constexpr std::array<std::string_view, 9> kProjections{
      "q_proj", "q_a_proj",  "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj",
      "o_proj", "gate_proj", "up_proj",  "down_proj"};
  constexpr std::string_view kWeight = ".weight";
  std::string_view name = tensor.name;
  if (tensor.shape.size() != 2 || !name.ends_with(kWeight) || layer_of(name) < 0) return false;
  name.remove_suffix(kWeight.size());
  name = name.substr(name.rfind('.') + 1);
  for (const std::string_view projection : kProjections) {
    if (name == projection) return true;
  }
  return false;
}

}  // namespace ds::convert
