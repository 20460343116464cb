// deepseek-check --compatibility as a user runs it.
#pragma once

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/process.h"

namespace ds::test {

inline Outcome compatibility(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "--compatibility");
  return run_program("deepseek-check", arguments);
}
inline nlohmann::json compatibility_json(std::vector<std::string> arguments, int exit_code) {
  arguments.insert(arguments.end(), {"--format", "json"});
  const Outcome outcome = compatibility(arguments);
  REQUIRE_MESSAGE(outcome.exit_code == exit_code, (outcome.err + outcome.out));
  return nlohmann::json::parse(outcome.out);
}

}  // namespace ds::test
