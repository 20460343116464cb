// From argv to a running subcommand.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "libcore/cli/run.h"

namespace ds::cli {

// declare() adds options (long names with underscores) whose variables live as long as the program;
// execute() runs after parsing. Declared with capture_default_str(), a default shows up in help and
// --print_config.
struct Subcommand {
  std::string name;
  std::string summary;
  std::function<void(CLI::App&)> declare;
  std::function<void(Run&)> execute;
};

// The first subcommand is the default: it runs when argv names none. With `bare_words` its words
// may follow the program's name ("deepseek-check PATH"); a path named like a subcommand then needs
// a "./".
struct Program {
  std::string name;  // "deepseek-finetune"
  std::string summary;
  std::vector<Subcommand> subcommands;
  bool bare_words = false;
  std::vector<std::string> formats{"text", "json"};  // words of --format
  // Heaps of the C library. One keeps training's memory low; threads that allocate all the time
  // would wait for each other there.
  int heaps = 1;
};

// Parses, merges settings (default < config file < environment < command line), runs, reports
// errors as "PROGRAM: error: ..." and maps every exception to its exit code. The only catch-all.
int run_main(int argc, char** argv, const Program& program);

}  // namespace ds::cli
