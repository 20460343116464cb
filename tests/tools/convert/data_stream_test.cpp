// deepseek-convert data: larger than memory, pipes, stops, full disks.
#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>

#include "tests/tools/convert/data_fixture.h"

namespace ds::test {

namespace {

// About `bytes` of rows, each with its number; some of them bad.
void write_rows(const fs::path& path, std::size_t bytes, bool array) {
  std::ofstream out(path, std::ios::binary);
  const std::string words(400, 'w');
  std::size_t written = 0;
  if (array) out << "[";
  for (int i = 0; written < bytes; ++i) {
    const std::string answer = i % 100 == 99 ? "" : words + std::to_string(i);
    const std::string row = R"({"instruction": "q", "input": "", "output": ")" + answer + "\"}";
    if (i > 0) out << (array ? ", " : "\n");
    out << row;
    written += row.size();
  }
  if (array) out << "]";
}

Json summary_of(const std::vector<std::string>& arguments, const RunOptions& options = {}) {
  const Outcome outcome = convert(arguments, options);
  REQUIRE_MESSAGE(outcome.exit_code == 0, outcome.err);
  return Json::parse(outcome.out);
}

}  // namespace

TEST_CASE("data: memory does not grow with the file") {
#ifdef __SANITIZE_ADDRESS__
  MESSAGE("skipped: the address sanitizer keeps what was freed");
  return;
#endif
  const TempFolder temp;
  for (const bool array : {false, true}) {
    CAPTURE(array);
    const auto peak = [&](const std::string& name, std::size_t bytes) {
      write_rows(temp / name, bytes, array);
      const Json summary =
          summary_of({"data", temp / name, temp / (name + ".out"), "--to", "messages", "--force",
                      "--threads", "2", "--format", "json", "--rejects", temp / "rejects"});
      CHECK(summary["rows_read"] ==
            summary["rows_kept"].get<int>() + summary["rows_dropped"].get<int>());
      return summary["peak_rss_bytes"].get<std::int64_t>();
    };
    const std::int64_t small = peak("small", 8u << 20);
    const std::int64_t large = peak("large", 64u << 20);
    // A file eight times as large may not take even an eighth of itself more.
    CHECK(large - small < (8 << 20));
  }
}

TEST_CASE("data: the bytes are the same for every number of threads, file or pipe") {
  const TempFolder temp;
  write_rows(temp / "in", 6u << 20, false);
  write_rows(temp / "array", 6u << 20, true);
  const auto output = [&](const std::vector<std::string>& arguments, const char* threads) {
    std::vector<std::string> all = {"data"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    all.insert(all.end(), {"--to", "sharegpt", "--threads", threads});
    return converted(all).out;
  };
  const std::string one = output({temp / "in", "-"}, "1");
  CHECK(one.size() > (5u << 20));
  CHECK(output({temp / "in", "-"}, "4") == one);
  CHECK(output({temp / "array", "-"}, "3") == one);
  const DataRun piped = convert_data(read_text(temp / "in"), {"--to", "sharegpt"});
  CHECK(piped.outcome.out == one);
  // A pipe, whose reads end anywhere.
  const std::string program = (build_dir() / "bin" / "deepseek-convert").string();
  const std::string command = "cat '" + (temp / "array") + "' | '" + program + "' data - '" +
                              (temp / "piped") + "' --to sharegpt --quiet >&2";
  REQUIRE(std::system(command.c_str()) == 0);
  CHECK(read_text(temp / "piped") == one);
}

TEST_CASE("data: a stop leaves nothing half-written") {
  const TempFolder temp;
  write_rows(temp / "in", 96u << 20, false);
  int interrupted = 0;
  for (const int milliseconds : {10, 40, 80}) {
    RunOptions options;
    options.signal_after_ms = milliseconds;
    options.signal = SIGINT;
    const Outcome outcome = convert({"data", temp / "in", temp / "out", "--to", "messages",
                                     "--force", "--threads", "1", "--rejects", temp / "rejects"},
                                    options);
    if (outcome.exit_code == 0) continue;
    ++interrupted;
    // Before the handlers are there a signal ends the program by itself.
    CHECK((outcome.exit_code == 130 || outcome.exit_code == 128 + SIGINT));
    for (const std::string& name : temp.names()) CHECK_MESSAGE(name == "in", name);
  }
  CHECK(interrupted > 0);
}

TEST_CASE("data: a stop ends the wait for a pipe") {
  const TempFolder temp;
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  RunOptions options;
  options.in_child = [&ends] { dup2(ends[0], STDIN_FILENO); };
  options.signal_after_ms = 300;
  options.signal = SIGINT;
  const Outcome outcome = convert({"data", "-", temp / "out", "--to", "messages"}, options);
  CHECK(outcome.exit_code == 130);
  CHECK(temp.names().empty());
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("data: a disk that is full is an error of the output, and nothing is left") {
  const TempFolder temp;
  write_rows(temp / "in", 4u << 20, false);
  RunOptions options;
  options.in_child = [] {
    const rlimit limit{1u << 20, 1u << 20};
    setrlimit(RLIMIT_FSIZE, &limit);
    std::signal(SIGXFSZ, SIG_IGN);
  };
  const Outcome outcome = convert({"data", temp / "in", temp / "out", "--to", "text"}, options);
  CHECK(outcome.exit_code == 4);
  CHECK(has(outcome.err, "out"));
  CHECK(temp.names() == std::vector<std::string>{"in"});
}

TEST_CASE("data: one line of many megabytes, and one beyond the limit's reach") {
  const TempFolder temp;
  const std::string words(24u << 20, 'x');
  write_text(temp / "in", R"({"text": ")" + words + "\"}\n{\"text\": \"after\"}\n");
  const auto rows = parse_lines(converted({"data", temp / "in", "-", "--to", "text"}).out);
  REQUIRE(rows.size() == 2);
  CHECK(rows[0]["text"] == words);
  CHECK(rows[1]["text"] == "after");
}

}  // namespace ds::test
