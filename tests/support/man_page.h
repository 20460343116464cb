// The man pages against the programs.
#pragma once

#include <string>
#include <vector>

namespace ds::test {

// Flags that the help of these subcommands has and man/PROGRAM.1 has not, and the reverse: one
// sentence each.
std::vector<std::string> man_page_problems(const std::string& program,
                                           const std::vector<std::string>& subcommands);

}  // namespace ds::test
