// Rows of data files for tests of deepseek-convert data.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <sstream>

#include "tests/tools/convert/fixture.h"

namespace ds::test {

using Json = nlohmann::ordered_json;

inline std::vector<Json> parse_lines(const std::string& text) {
  std::vector<Json> rows;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) rows.push_back(Json::parse(line));
  return rows;
}

// One run of `deepseek-convert data`.
struct DataRun {
  Outcome outcome;
  std::vector<Json> rows;
  std::vector<Json> rejects;
  // By kind, of rejects with `action`.
  std::map<std::string, int> kinds(const std::string& action) const {
    std::map<std::string, int> result;
    for (const Json& reject : rejects) {
      if (reject["action"] == action) ++result[reject["kind"].get<std::string>()];
    }
    return result;
  }
};

// Converts `text`, given on standard input, to standard output.
inline DataRun convert_data(const std::string& text, std::vector<std::string> arguments) {
  const TempFolder temp;
  write_text(temp / "in", text);
  arguments.insert(arguments.begin(), {"data", "-", "-"});
  arguments.insert(arguments.end(), {"--rejects", temp / "rejects"});
  RunOptions options;
  const std::string input = temp / "in";
  options.in_child = [&input] { dup2(open(input.c_str(), O_RDONLY), STDIN_FILENO); };
  DataRun run{convert(arguments, options), {}, {}};
  run.rows = parse_lines(run.outcome.out);
  if (fs::exists(temp / "rejects")) run.rejects = parse_lines(read_text(temp / "rejects"));
  return run;
}
// The same where every row is kept as it is.
inline std::vector<Json> clean_data(const std::string& text, std::vector<std::string> arguments) {
  DataRun run = convert_data(text, std::move(arguments));
  CHECK_MESSAGE(run.outcome.exit_code == 0, run.outcome.err);
  for (const Json& reject : run.rejects) FAIL_CHECK(reject.dump());
  return run.rows;
}

// The folder of nano-v3's tokenizer, or empty with a message.
inline std::string nano_folder() {
  for (const auto& folder : {source_dir() / "examples" / "nano-v3",
                             source_dir() / ".." / "shared" / "models" / "nano-v3"}) {
    if (fs::exists(folder / "tokenizer.json")) return folder.string();
  }
  MESSAGE("skipped: nano-v3 is not there");
  return {};
}

}  // namespace ds::test
