// Settings of the subcommands.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "tools/check/canary.h"

namespace ds::check {

struct CheckSettings {
  std::vector<std::string> paths;
  std::string model;
  std::string adapter;
  std::string dataset;
  bool deep = false;
  std::int64_t cutoff_len = 2048;
  std::string fail_on = "error";
  std::string select;
  std::string ignore;
  std::string baseline;
  std::int64_t max_findings = 0;
  bool compatibility = false;
  std::string from;
  std::string to;
  std::string target;
  std::string hardware;
  std::int64_t context = 0;
  std::int64_t batch = 1;
  bool fix = false;
  std::string fix_output;
};
struct ListSettings {
  std::string path;
};
struct RulesSettings {
  bool markdown = false;
};
struct ExplainSettings {
  std::string rule;
};

void declare_check(CLI::App& app, CheckSettings& settings);
void declare_list(CLI::App& app, ListSettings& settings);
void declare_rules(CLI::App& app, RulesSettings& settings);
void declare_explain(CLI::App& app, ExplainSettings& settings);
void declare_canary(CLI::App& app, CanarySettings& settings);

}  // namespace ds::check
