// Writing the planned files: whole or not at all, resumable.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libcore/cli/run.h"
#include "tools/convert/output_plan.h"

namespace ds::convert {

// What every subcommand that writes weights lets the user set.
struct OutputSettings {
  std::string output;  // folder, or one file
  bool force = false;
  bool resume = false;
  bool dry_run = false;
  std::string memory_limit = "1GiB";
};

struct OutputPlan {
  std::vector<OutputFile> files;
  // Small files written at the end: name -> text (config.json, the index, copied side files).
  std::map<std::string, std::string> texts;
  bool single_file = false;  // OUT is a file: `files` has one entry and `texts` none
  // Whatever decides the bytes besides the files' own headers: source files with size and time,
  // settings. Goes into the digest that --resume compares.
  std::string identity;
  // What the recipes count beside the tally, kept for --resume: saved behind every file, and given
  // back to the run that goes on. `recall` may throw nlohmann::json::exception.
  std::function<nlohmann::json()> save;
  std::function<void(const nlohmann::json&)> recall;
  // Owners of what the recipes read, beside the source itself.
  std::vector<std::shared_ptr<const void>> keeps;
};

// Prints the plan and stops there under --dry_run; refuses an existing OUT without --force and a
// disk that is too small; writes to OUT.partial, files in order, each renamed when whole, and
// renames OUT.partial to OUT at the end. Progress, events deepseek/convert-shard/1 and
// deepseek/convert-summary/1, product. A stop or a failed write keeps the finished files for
// --resume and says so; any other failure removes them. `extra` adds keys to the summary.
void write_output(const OutputSettings& settings, const OutputPlan& plan, cli::Run& run,
                  const std::function<void(nlohmann::json&, const Tally&)>& extra = {});

}  // namespace ds::convert
