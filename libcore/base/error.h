// The one exception type of libcore, and the programs' exit codes.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace ds {

// Exit codes of all programs (man page deepseek-tools(7)).
enum class ExitCode : int {
  kDone = 0,
  kFindings = 1,   // the check found problems, a gate failed, training diverged
  kUsage = 2,      // wrong flags or configuration
  kBadInput = 3,   // a file, tensor, row or key is wrong
  kIo = 4,         // reading or writing failed
  kResources = 5,  // no device or not enough memory
  kInternal = 6,   // a defect of ours
  kInterrupted = 130,
};

// Thrown by libcore. what() is one sentence that names the file, tensor, line or key, the value
// found and the value needed; hint() says what to do next (may be empty).
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message, std::string hint = "")
      : std::runtime_error(message), code_(code), hint_(std::move(hint)) {}
  ExitCode code() const { return code_; }
  const std::string& hint() const { return hint_; }

 private:
  ExitCode code_;
  std::string hint_;
};

}  // namespace ds
