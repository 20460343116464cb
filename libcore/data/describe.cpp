#include <nlohmann/json.hpp>

#include "libcore/base/utf8.h"
#include "libcore/data/dataset.h"

namespace ds {

nlohmann::json describe(const Dataset& dataset) {
  nlohmann::json files = nlohmann::json::array();
  nlohmann::json formats = nlohmann::json::array();
  for (const auto& file : dataset.files) {
    files.push_back(utf8_replace(file.string()));
    const auto format = dataset.format_by_file.find(file.string());
    formats.push_back(format == dataset.format_by_file.end() ? "unknown" : format->second);
  }
  // An empty std::map would become null.
  nlohmann::json dropped = nlohmann::json::object();
  nlohmann::json repaired = nlohmann::json::object();
  for (const auto& [kind, count] : dataset.dropped_by_kind) dropped[kind] = count;
  for (const auto& [kind, count] : dataset.repaired_by_kind) repaired[kind] = count;
  return {{"files", std::move(files)},
          {"formats", std::move(formats)},
          {"rows_read", dataset.rows_read},
          {"kept", static_cast<std::int64_t>(dataset.examples.size())},
          {"dropped", std::move(dropped)},
          {"repaired", std::move(repaired)},
          {"truncated", dataset.truncated},
          {"tokens", dataset.tokens},
          {"target_tokens", dataset.target_tokens}};
}

}  // namespace ds
