#include "libcore/train/stages.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "libcore/base/error.h"

namespace ds {

namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = text.find(separator, begin);
    std::string part = text.substr(begin, end == std::string::npos ? end : end - begin);
    const std::size_t first = part.find_first_not_of(" \t");
    const std::size_t last = part.find_last_not_of(" \t");
    parts.push_back(first == std::string::npos ? "" : part.substr(first, last - first + 1));
    if (end == std::string::npos) return parts;
    begin = end + 1;
  }
}

[[noreturn]] void usage(const std::string& message, const std::string& hint) {
  throw Error(ExitCode::kUsage, message, hint);
}

void expect_count(const char* flag, std::size_t found, std::size_t stages) {
  if (found == stages) return;
  usage(fmt::format("{} has {} entries, --stage_steps makes {} stages", flag, found, stages),
        "give one entry a stage");
}

}  // namespace

std::vector<std::int64_t> parse_stage_steps(const std::string& text) {
  std::vector<std::int64_t> ends;
  for (const std::string& part : split(text, ',')) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() || value <= 0) {
      usage(fmt::format("--stage_steps \"{}\": '{}' is not a positive whole number", text, part),
            "give the step at which each stage ends, rising: --stage_steps \"1000,3000,5000\"");
    }
    if (!ends.empty() && value <= ends.back()) {
      usage(
          fmt::format("--stage_steps \"{}\": {} does not come after {}; the numbers are cumulative "
                      "ends, not lengths",
                      text, value, ends.back()),
          "give the step at which each stage ends, rising: --stage_steps \"1000,3000,5000\"");
    }
    ends.push_back(value);
  }
  return ends;
}

std::vector<Stage> parse_stages(const StageSpelling& spelling, std::int64_t total_steps) {
  std::vector<std::int64_t> ends;
  if (!spelling.steps.empty()) {
    ends = parse_stage_steps(spelling.steps);
  } else {
    ends.push_back(total_steps);
  }
  std::vector<Stage> stages;
  for (const std::int64_t end : ends) {
    Stage stage;
    stage.first_step = stages.empty() ? 1 : stages.back().last_step + 1;
    stage.last_step = end;
    stages.push_back(stage);
  }
  if (!spelling.lr_factors.empty()) {
    const auto parts = split(spelling.lr_factors, ',');
    expect_count("--stage_lr_factors", parts.size(), stages.size());
    for (std::size_t i = 0; i < parts.size(); ++i) {
      double value = 0.0;
      const auto [end, error] =
          std::from_chars(parts[i].data(), parts[i].data() + parts[i].size(), value);
      if (error != std::errc() || end != parts[i].data() + parts[i].size() ||
          !std::isfinite(value) || value < 0.0) {
        usage(fmt::format("--stage_lr_factors \"{}\": '{}' is not a number >= 0",
                          spelling.lr_factors, parts[i]),
              "give one factor a stage: --stage_lr_factors \"1,0.5,0.1\"");
      }
      stages[i].lr_factor = value;
    }
  }
  if (!spelling.targets.empty()) {
    const auto parts = split(spelling.targets, ';');
    expect_count("--stage_targets (entries separated by ';')", parts.size(), stages.size());
    for (std::size_t i = 0; i < parts.size(); ++i) stages[i].targets = parts[i];
  }
  if (!spelling.data.empty()) {
    const auto parts = split(spelling.data, ',');
    expect_count("--stage_data", parts.size(), stages.size());
    for (std::size_t i = 0; i < parts.size(); ++i) stages[i].data = parts[i];
  }
  return stages;
}

}  // namespace ds
