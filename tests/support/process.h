// Running the programs as a user does.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace ds::test {

struct Outcome {
  int exit_code = -1;  // 128 + signal when a signal ended it
  std::string out;     // stdout
  std::string err;     // stderr
};

struct RunOptions {
  std::map<std::string, std::string> environment;  // added to ours
  std::string directory;                           // empty: ours
  // Called in the child before exec (limits); must be async-signal-safe.
  std::function<void()> in_child;
  // Milliseconds after which `signal` is sent; negative: never.
  int signal_after_ms = -1;
  int signal = 9;
};

// Runs bin/PROGRAM of the build folder.
Outcome run_program(const std::string& program, const std::vector<std::string>& arguments,
                    const RunOptions& options = {});

}  // namespace ds::test
