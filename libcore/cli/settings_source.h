// Settings from a configuration file and the environment, as flag tokens.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

namespace ds::cli {

// Value and origin ("file", "env", "flag") of every setting that was given.
struct Given {
  std::string value;
  std::string source;
};
using GivenSettings = std::map<std::string, Given>;  // by long name, underscores

// argv after the subcommand -> settings; names normalised, "--name value" and "--name=value" alike.
// Words without dashes, and "-", go to the options declared as "--name,name", in their order; one
// that takes several values takes all that follow, joined by its delimiter (a comma by default). A
// flag whose delimiter is a line end adds to what it was given before.
// Throws Error(kUsage) for an unknown flag (naming the nearest), a missing value, a stray word.
GivenSettings read_arguments(const std::vector<std::string>& arguments, CLI::App& app);

// YAML or JSON settings of `path` added where `settings` has none. Keys are long flags, at the top,
// under `program` or under `training`, or the guide's training.memory_optimization block, nested or
// dotted; a list is joined by commas or the option's delimiter, a block is handed on as JSON, a
// null leaves the default. Throws Error(kUsage) naming an unknown key and the nearest one, or a key
// that is there twice, and Error(kBadInput) for a file that does not parse (at most 1 MiB, 500
// levels).
void read_config_file(const std::string& path, const std::string& program, CLI::App& app,
                      GivenSettings& settings);
void read_config_text(const std::string& text, const std::string& path, const std::string& program,
                      CLI::App& app, GivenSettings& settings);

// DEEPSEEK_<FLAG> for every flag of `app` that `settings` has not got from the command line.
void read_environment(CLI::App& app, GivenSettings& settings);

// Names of all long options of `app`, without dashes.
std::vector<std::string> option_names(const CLI::App& app);

}  // namespace ds::cli
