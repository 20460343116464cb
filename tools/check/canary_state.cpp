#include "tools/check/canary_state.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/json.h"

namespace ds::check {

namespace {

const char* const kSchema = "deepseek/canary-state/1";

nlohmann::json outcome_json(const RowOutcome& o) {
  return {o.loss_sum, o.targets, o.correct, o.refused, o.tokens, o.seconds, o.answer};
}

RowOutcome outcome_of(const nlohmann::json& json) {
  RowOutcome o;
  o.loss_sum = json.at(0).get<double>();
  o.targets = json.at(1).get<double>();
  o.correct = json.at(2).get<bool>();
  o.refused = json.at(3).get<bool>();
  o.tokens = json.at(4).get<std::int64_t>();
  o.seconds = json.at(5).get<double>();
  o.answer = json.at(6).get<std::string>();
  return o;
}

}  // namespace

void save_state(const std::filesystem::path& path, const CanaryState& state) {
  nlohmann::json rows = nlohmann::json::array();
  for (const PairedRow& row : state.rows) {
    rows.push_back({outcome_json(row.baseline), outcome_json(row.candidate)});
  }
  const nlohmann::json json{{"schema", kSchema}, {"identity", state.identity}, {"rows", rows}};
  write_file(path, json.dump() + "\n");
}

CanaryState load_state(const std::filesystem::path& path,
                       const std::map<std::string, std::string>& identity) {
  CanaryState state;
  state.identity = identity;
  if (!std::filesystem::exists(path)) return state;
  const nlohmann::json json = parse_json_file(path);
  const auto refuse = [&](const std::string& what) {
    throw Error(ExitCode::kBadInput, path.string() + ": " + what,
                "go on with what the state was made with, or give another --state");
  };
  try {
    if (json.at("schema") != kSchema) refuse("is no state of a canary");
    const auto found = json.at("identity").get<std::map<std::string, std::string>>();
    for (const auto& [name, value] : identity) {
      const auto at = found.find(name);
      if (at == found.end() || at->second != value) {
        refuse(fmt::format("was made with another {}: {}, now {}", name,
                           at == found.end() ? "(none)" : at->second, value));
      }
    }
    for (const nlohmann::json& row : json.at("rows")) {
      state.rows.push_back({outcome_of(row.at(0)), outcome_of(row.at(1))});
    }
  } catch (const nlohmann::json::exception& error) {
    refuse(fmt::format("is no state of a canary ({})", error.what()));
  }
  return state;
}

}  // namespace ds::check
