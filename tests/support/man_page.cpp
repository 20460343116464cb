#include "tests/support/man_page.h"

#include <fstream>
#include <iterator>
#include <regex>
#include <set>

#include "tests/support/paths.h"
#include "tests/support/process.h"

namespace ds::test {

namespace {

std::set<std::string> matches(const std::string& text, const char* pattern) {
  const std::regex flag(pattern);
  std::set<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), flag), end; it != end; ++it) {
    found.insert((*it)[1]);
  }
  return found;
}

}  // namespace

std::vector<std::string> man_page_problems(const std::string& program,
                                           const std::vector<std::string>& subcommands) {
  std::vector<std::string> problems;
  std::set<std::string> helped;
  for (const std::string& sub : subcommands) {
    const Outcome help = run_program(program, {sub, "--help"});
    if (help.exit_code != 0) problems.push_back(sub + " --help: " + help.err);
    helped.merge(matches(help.out, "--([a-z_0-9]+)"));
  }
  std::ifstream in(source_dir() / "man" / (program + ".1"));
  const std::string page((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto documented = matches(page, "Fl -([a-z_0-9]+)");
  if (documented.empty()) problems.push_back("man/" + program + ".1 names no flag");
  for (const std::string& flag : helped) {
    if (documented.count(flag) == 0) problems.push_back("--" + flag + " is not in the man page");
  }
  for (const std::string& flag : documented) {
    if (helped.count(flag) == 0) problems.push_back("--" + flag + " is in the man page only");
  }
  return problems;
}

}  // namespace ds::test
