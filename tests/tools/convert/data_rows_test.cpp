// deepseek-convert data: bad rows, refusals, reports.
#include <random>

#include "tests/support/schema.h"
#include "tests/tools/convert/data_fixture.h"

namespace ds::test {

namespace {

const std::string kGood = R"({"instruction": "q", "input": "", "output": "a"})";

// Lines of every kind of badness, good ones between them.
std::string mixed_rows() {
  return kGood + "\n{\"instruction\": \"q\",}\n" + kGood + "\n" +
         R"({"instruction": "q", "output": ["a"]})" + "\n\n" +
         R"({"instruction": "q", "output": ""})" +
         "\n{\"instruction\": \"q\xff\", \"output\": " + "\"a\"}\n5\n" + R"({"text": "t"})" + "\n" +
         kGood;
}

}  // namespace

TEST_CASE("data: every dropped or repaired row has line, column and reason; the others are kept") {
  for (const char* threads : {"1", "3"}) {
    const DataRun run = convert_data(mixed_rows(), {"--to", "messages", "--threads", threads});
    CHECK(run.outcome.exit_code == 0);
    CHECK(run.rows.size() == 4);
    REQUIRE(run.rejects.size() == 6);
    const auto expect = [&](std::size_t i, int line, const char* kind, const char* reason) {
      CHECK(run.rejects[i]["line"] == line);
      CHECK(run.rejects[i]["kind"] == kind);
      CHECK_MESSAGE(has(run.rejects[i]["reason"], reason), run.rejects[i].dump());
    };
    expect(0, 2, "invalid_json", "object key");
    CHECK(run.rejects[0]["column"] == 21);
    CHECK(run.rejects[0]["row"] == "{\"instruction\": \"q\",}");
    expect(1, 4, "bad_type", "output: a list of 1, a text is needed");
    expect(2, 6, "empty_answer", "output");
    expect(3, 7, "replaced_bytes", "byte 0xFF");
    CHECK(run.rejects[3]["action"] == "repaired");
    CHECK(run.rejects[3]["column"] == 19);
    CHECK_FALSE(run.rejects[3].contains("row"));
    expect(4, 8, "bad_type", "the number 5");
    expect(5, 9, "other_format", "format text");
    CHECK(has(run.outcome.err, "read      9 rows of alpaca"));
    CHECK(has(run.outcome.err, "line 2, column 21: "));
  }
}

TEST_CASE("data: --on_error fail and --encoding_errors stop at the first, and nothing is written") {
  const TempFolder temp;
  write_text(temp / "in", mixed_rows());
  const auto fails = [&](const std::vector<std::string>& more) {
    std::vector<std::string> flags = {"data", temp / "in", temp / "out",    "--to",
                                      "text", "--rejects", temp / "rejects"};
    flags.insert(flags.end(), more.begin(), more.end());
    const Outcome outcome = convert(flags);
    CHECK(outcome.exit_code == 3);
    CHECK(temp.names() == std::vector<std::string>{"in"});
    return outcome.err;
  };
  CHECK(has(fails({"--on_error", "fail"}), "in: line 2, column 21: "));
  CHECK(has(fails({"--encoding_errors", "error"}), "line 7, column 19: invalid UTF-8"));
  write_text(temp / "in", "{\"a\": 1}\nnope\n");
  const Outcome none = convert({"data", temp / "in", temp / "out", "--to", "text"});
  CHECK(none.exit_code == 3);
  CHECK(has(none.err, "none of the 2 rows can be used: 1 invalid_json (line 2"));
  write_text(temp / "in", " \n");
  CHECK(has(fails({}), "no rows"));
  write_text(temp / "in", std::string("\xff\xfe{\0", 4));
  CHECK(has(fails({}), "UTF-16"));
}

TEST_CASE("data: summary, report and rejects agree, and the report fits its schemas") {
  const TempFolder temp;
  write_text(temp / "in", mixed_rows());
  const Outcome outcome =
      converted({"data", temp / "in", temp / "out", "--to", "alpaca", "--rejects", temp / "rejects",
                 "--report", temp / "report", "--format", "json"});
  const Json summary = Json::parse(outcome.out);
  CHECK(summary["rows_read"] == 9);
  CHECK(summary["rows_kept"] == 4);
  CHECK(summary["rows_dropped"] == 5);
  CHECK(summary["rows_repaired"] == 1);
  CHECK(summary["bytes_read"] == fs::file_size(temp / "in"));
  CHECK(summary["bytes_written"] == fs::file_size(temp / "out"));
  CHECK(summary["seconds"] >= 0);
  CHECK(summary["peak_rss_bytes"] > 0);
  int dropped = 0;
  for (const auto& [kind, count] : summary["dropped"].items()) dropped += count.get<int>();
  CHECK(dropped == 5);
  for (const std::string& problem : validate_report(temp / "report")) FAIL_CHECK(problem);
  std::size_t events = 0;
  for (const Json& event : parse_lines(read_text(temp / "report"))) {
    if (event["schema"] == "deepseek/data-row/1") ++events;
    if (event["schema"] == "deepseek/convert-summary/1") {
      CHECK(event["rows_kept"] == summary["rows_kept"]);
    }
  }
  CHECK(events == parse_lines(read_text(temp / "rejects")).size());
}

TEST_CASE("data: refusals before anything is read") {
  const TempFolder temp;
  write_text(temp / "in", kGood);
  write_text(temp / "there", "old");
  const auto refused = [&](std::vector<std::string> flags, int code) {
    flags.insert(flags.begin(), "data");
    const Outcome outcome = convert(flags);
    CHECK_MESSAGE(outcome.exit_code == code, outcome.err);
    CHECK(read_text(temp / "there") == "old");
    return outcome.err;
  };
  CHECK(has(refused({temp / "in", temp / "there", "--to", "text"}, 2), "--force"));
  CHECK(has(refused({temp / "in", temp / "out", "--rejects", temp / "there", "--to", "text"}, 2),
            "--force"));
  CHECK(has(refused({temp / "in", "-", "--format", "json", "--to", "text"}, 2), "standard output"));
  refused({temp / "in", temp / "out"}, 2);
  refused({temp / "in", temp / "out", "--to", "parquet"}, 2);
  refused({temp / "in", temp / "out", "--to", "text", "--from", "csv"}, 2);
  CHECK(has(refused({temp / "absent", temp / "out", "--to", "text"}, 4), "absent"));
  CHECK(has(refused({temp.root().string(), temp / "out", "--to", "text"}, 4), "folder"));
  refused({temp / "in", temp / "no/folder", "--to", "text"}, 4);
  CHECK(has(refused({temp / "in", temp / "same", "--rejects", temp / "same", "--to", "text"}, 2),
            "two names"));
  converted({"data", temp / "in", temp / "there", "--to", "text", "--force"});
  CHECK(read_text(temp / "there") != "old");
  // A file may replace itself.
  converted({"data", temp / "in", temp / "in", "--to", "alpaca", "--force"});
  CHECK(read_text(temp / "in") == kGood + "\n");
}

TEST_CASE("data: mutated rows never end the run, and every one is accounted for") {
  std::mt19937 random(20250101);
  const std::string kBytes = "{}[]\",:\\\x80\xff\x01 0n";
  const std::vector<std::string> seeds = {
      kGood,
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null, )"
      R"("tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, {}]}}}]}]})",
      R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})",
      R"({"text": "<｜User｜>q<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}"})"};
  for (std::size_t seed = 0; seed < seeds.size(); ++seed) {
    std::string input = seeds[seed] + "\n";
    std::int64_t lines = 1;
    for (int i = 0; i < 3000; ++i) {
      std::string row = seeds[seed];
      for (unsigned n = 0; n <= random() % 3; ++n) {
        const std::size_t at = random() % row.size();
        switch (random() % 3) {
          case 0:
            row.erase(at, 1 + random() % 8);
            break;
          case 1:
            row.insert(at, 1, kBytes[random() % kBytes.size()]);
            break;
          default:
            row[at] = static_cast<char>(random());
        }
        if (row.empty()) row = "x";
      }
      std::replace(row.begin(), row.end(), '\n', ' ');
      if (row.find_first_not_of(" \t\r") == std::string::npos) continue;
      input += row + "\n";
      ++lines;
    }
    for (const char* to : {"messages", "sharegpt", "alpaca", "text"}) {
      const DataRun run = convert_data(input, {"--to", to});
      CAPTURE(seed);
      CAPTURE(to);
      const bool usable = !(seed == 1 && std::string(to) == "alpaca");
      CHECK(run.outcome.exit_code == (usable ? 0 : 3));
      std::int64_t dropped = 0;
      for (const auto& [kind, count] : run.kinds("dropped")) dropped += count;
      CHECK(static_cast<std::int64_t>(run.rows.size()) + dropped == lines);
    }
  }
}

}  // namespace ds::test
