#include "libcore/check/detect.h"

#include <algorithm>
#include <fstream>
#include <system_error>
#include <vector>

#include "libcore/base/error.h"
#include "libcore/config/inference_names.h"
#include "libcore/io/gguf.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKnown =
    "known are: a checkpoint folder, a safetensors file, a GGUF file, a folder of inference "
    "shards, "
    "an adapter folder, a tokenizer folder or tokenizer.json, a dataset (.jsonl or .json)";

bool there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

std::string first_bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string head(512, '\0');
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<std::size_t>(in.gcount()));
  return head;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code code;
  fs::directory_iterator it(folder, code);
  if (code) {
    throw Error(ExitCode::kIo, folder.string() + ": cannot be read: " + code.message());
  }
  for (; !code && it != fs::directory_iterator(); it.increment(code)) {
    names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

Detected detect_folder(const fs::path& folder) {
  const std::vector<std::string> names = names_in(folder);
  const auto any = [&](auto&& accept) { return std::any_of(names.begin(), names.end(), accept); };
  const auto has = [&](const char* name) {
    return std::binary_search(names.begin(), names.end(), name);
  };
  if (has("adapter_config.json") || has("adapter_model.safetensors") || has("adapter_model.bin")) {
    return {TargetKind::kAdapter, folder};
  }
  if (is_inference_folder(folder)) return {TargetKind::kInference, folder};
  const bool weights = any([](const std::string& name) {
    return name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
  });
  // Such folders often have the config.json that the file was made from as well.
  if (!weights && any([](const std::string& name) { return name.ends_with(".gguf"); })) {
    return {TargetKind::kGguf, folder};
  }
  if (has("config.json") || weights) return {TargetKind::kCheckpoint, folder};
  if (has("tokenizer.json") || has("tokenizer_config.json"))
    return {TargetKind::kTokenizer, folder};
  throw Error(
      ExitCode::kBadInput,
      folder.string() + ": the folder holds no config.json, safetensors file, adapter or tokenizer",
      kKnown);
}

fs::path folder_of(const fs::path& file) {
  const fs::path parent = file.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

// A model, or an adapter by its general.type; a file that cannot be read is taken for a model.
Detected detect_gguf(const fs::path& path) {
  try {
    const GgufFile file = GgufFile::open(path);
    const GgufKey* type = file.find_key("general.type");
    if (type != nullptr && type->type == GgufValueType::kString && type->text() == "adapter") {
      return {TargetKind::kGgufAdapter, path};
    }
  } catch (const Error& error) {
    if (error.code() != ExitCode::kBadInput) throw;
  }
  return {TargetKind::kGguf, path};
}

Detected detect_file(const fs::path& path) {
  const std::string name = path.filename().string();
  if (name == "config.json" || name.ends_with(".safetensors.index.json")) {
    const bool inference = is_inference_folder(folder_of(path));
    return {inference ? TargetKind::kInference : TargetKind::kCheckpoint, folder_of(path)};
  }
  if (name == "adapter_config.json") return {TargetKind::kAdapter, folder_of(path)};
  if (name == "adapter_model.safetensors") return {TargetKind::kAdapter, folder_of(path)};
  if (name == "tokenizer.json" || name == "tokenizer_config.json" ||
      name == "generation_config.json" || name == "chat_template.jinja") {
    return {TargetKind::kTokenizer, folder_of(path)};
  }
  if (name.ends_with(".safetensors")) return {TargetKind::kShard, path};
  if (name.ends_with(".jsonl") || name.ends_with(".json") || name.ends_with(".csv")) {
    return {TargetKind::kDataset, path};
  }
  const std::string head = first_bytes(path);
  if (head.starts_with("GGUF") || name.ends_with(".gguf")) return detect_gguf(path);
  // A safetensors header begins with its length and a brace.
  if (head.size() > 8 && head[8] == '{' && head[7] == '\0') return {TargetKind::kShard, path};
  const std::size_t text = head.find_first_not_of(" \t\r\n\xef\xbb\xbf");
  if (text != std::string::npos && (head[text] == '{' || head[text] == '[')) {
    return {TargetKind::kDataset, path};
  }
  throw Error(ExitCode::kBadInput,
              path.string() +
                  ": neither the name nor the first bytes are of "
                  "a kind that is known",
              kKnown);
}

}  // namespace

std::string_view target_name(TargetKind kind) {
  switch (kind) {
    case TargetKind::kCheckpoint:
      return "checkpoint";
    case TargetKind::kShard:
      return "shard";
    case TargetKind::kAdapter:
      return "adapter";
    case TargetKind::kTokenizer:
      return "tokenizer";
    case TargetKind::kMachine:
      return "machine";
    case TargetKind::kGguf:
      return "gguf";
    case TargetKind::kGgufAdapter:
      return "gguf-adapter";
    case TargetKind::kInference:
      return "inference";
    default:
      return "dataset";
  }
}

Detected detect(const fs::path& path) {
  std::error_code ignored;
  if (!there(path)) {
    throw Error(ExitCode::kBadInput, path.string() + ": there is no such file or folder");
  }
  return fs::is_directory(path, ignored) ? detect_folder(path) : detect_file(path);
}

}  // namespace ds::check
