#include <algorithm>
#include <fstream>

#include "libcore/base/error.h"
#include "libcore/config/model_config.h"

namespace ds {
namespace {

namespace fs = std::filesystem;

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

// The snapshot of a `models--ORG--NAME` folder that refs/main points to, or the newest one.
fs::path snapshot_of(const fs::path& repository) {
  std::ifstream reference(repository / "refs" / "main");
  std::string revision;
  if (reference >> revision && !revision.empty() && revision.find('/') == std::string::npos &&
      is_folder(repository / "snapshots" / revision)) {
    return repository / "snapshots" / revision;
  }
  fs::path newest;
  fs::file_time_type newest_time;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(repository / "snapshots", error)) {
    std::error_code ignored;
    if (!entry.is_directory(ignored)) continue;
    const auto time = entry.last_write_time(ignored);
    // Equal times: the name decides, so that the choice does not depend on the folder's order.
    if (newest.empty() || time > newest_time || (time == newest_time && entry.path() > newest)) {
      newest = entry.path();
      newest_time = time;
    }
  }
  return newest;
}

std::string hub_folder_name(const std::string& name) {
  std::string out = "models--";
  for (const char c : name) out += c == '/' ? std::string("--") : std::string(1, c);
  return out;
}

}  // namespace

fs::path find_model(const std::string& name, const ModelSearchPaths& paths) {
  if (name.empty()) throw Error(ExitCode::kBadInput, "the model's name is empty");
  std::vector<std::string> looked;
  if (is_folder(name)) return name;
  std::error_code ignored;
  if (fs::exists(name, ignored)) {
    throw Error(ExitCode::kBadInput, "model " + name + " is a file, a folder is needed",
                "give the folder that holds config.json");
  }
  looked.push_back(name);
  const bool may_be_name = name.front() != '/' && name.front() != '.' && name.front() != '~';
  if (may_be_name) {
    std::size_t begin = 0;
    while (begin < paths.deepseek_models.size()) {
      const std::size_t end =
          std::min(paths.deepseek_models.find(':', begin), paths.deepseek_models.size());
      if (end > begin) {
        const fs::path folder = fs::path(paths.deepseek_models.substr(begin, end - begin)) / name;
        if (is_folder(folder)) return folder;
        looked.push_back(folder.string());
      }
      begin = end + 1;
    }
    std::vector<fs::path> hubs;
    if (!paths.hf_hub_cache.empty()) hubs.emplace_back(paths.hf_hub_cache);
    if (!paths.hf_home.empty()) hubs.push_back(fs::path(paths.hf_home) / "hub");
    if (!paths.home.empty()) {
      hubs.push_back(fs::path(paths.home) / ".cache" / "huggingface" / "hub");
    }
    for (const fs::path& hub : hubs) {
      const fs::path repository = hub / hub_folder_name(name);
      const fs::path snapshot = snapshot_of(repository);
      if (!snapshot.empty()) return snapshot;
      looked.push_back((repository / "snapshots").string());
    }
  }
  std::string message = "model " + name + " was not found; looked in ";
  for (std::size_t i = 0; i < looked.size(); ++i) message += (i == 0 ? "" : ", ") + looked[i];
  throw Error(ExitCode::kBadInput, message,
              "give a folder in Hugging Face layout, or set DEEPSEEK_MODELS to the folder that "
              "holds it");
}

}  // namespace ds
