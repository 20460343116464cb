// Whole files: counts, problems with their places, errors.
#include "libcore/data/dataset.h"

#include <doctest/doctest.h>
#include <omp.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libcore/base/error.h"
#include "libcore/base/stop.h"
#include "tests/core/data/data_fixtures.h"

namespace ds {
namespace {

using test::DataFile;

// Rows of ids need no tokenizer.
std::string tokens_row(int i) { return R"({"input_ids": [1, )" + std::to_string(i) + "]}\n"; }

Dataset load(const std::filesystem::path& file, EncodingPolicy policy = EncodingPolicy::kReplace) {
  DatasetOptions options;
  options.files = {file};
  options.encoding = policy;
  return load_dataset(options, test::nano_tokenizer());
}

// kept + dropped = read, and the sums are those of the examples.
void check_counts(const Dataset& data) {
  std::int64_t dropped = 0, tokens = 0, targets = 0;
  for (const auto& [kind, count] : data.dropped_by_kind) dropped += count;
  for (const Example& example : data.examples) {
    tokens += static_cast<std::int64_t>(example.ids.size());
    targets += example.target_count();
    CHECK(example.target_count() > 0);
  }
  CHECK(data.rows_read == static_cast<std::int64_t>(data.examples.size()) + dropped);
  CHECK(data.tokens == tokens);
  CHECK(data.target_tokens == targets);
}

Error failure(const DatasetOptions& options) {
  try {
    load_dataset(options, test::nano_tokenizer());
  } catch (const Error& error) {
    return error;
  }
  FAIL("no error");
  return Error(ExitCode::kDone, "");
}

Error failure(const std::filesystem::path& file, EncodingPolicy policy = EncodingPolicy::kReplace) {
  DatasetOptions options;
  options.files = {file};
  options.encoding = policy;
  return failure(options);
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("rows keep the file's order and their lines") {
  std::string text = "\xef\xbb\xbf";  // a byte order mark
  for (int i = 0; i < 1500; ++i) text += tokens_row(i) + (i % 100 == 0 ? "\r\n" : "");
  const DataFile file(text);
  const Dataset data = load(file.path());
  check_counts(data);
  REQUIRE(data.examples.size() == 1500);
  std::int64_t line = 1;
  for (int i = 0; i < 1500; ++i) {
    const Example& example = data.examples[static_cast<std::size_t>(i)];
    if (example.ids[1] != i || example.line != line) FAIL("row ", i);
    line += i % 100 == 0 ? 2 : 1;
  }
  CHECK(data.format_by_file.at(file.path().string()) == "tokens");
  CHECK(data.problems.empty());
}

TEST_CASE("the result does not depend on the number of threads") {
  if (test::nano_tokenizer() == nullptr) {
    MESSAGE("skipped: nano-v3 is not there");
    return;
  }
  std::string text;
  for (int i = 0; i < 700; ++i) {
    const std::string n = std::to_string(i);
    text += i % 7 == 3 ? R"({"instruction": "x"})"
                       : R"({"instruction": "count )" + n + R"(", "output": "it is )" + n + R"("})";
    text += "\n";
  }
  const DataFile file(text);
  const int threads = omp_get_max_threads();
  std::vector<Dataset> runs;
  for (const int n : {1, 3}) {
    omp_set_num_threads(n);
    runs.push_back(load(file.path()));
    check_counts(runs.back());
  }
  omp_set_num_threads(threads);
  CHECK(runs[0].examples.size() == 600);
  REQUIRE(runs[1].examples.size() == runs[0].examples.size());
  for (std::size_t i = 0; i < runs[0].examples.size(); ++i) {
    if (runs[0].examples[i].ids != runs[1].examples[i].ids) FAIL("row ", i);
    if (runs[0].examples[i].labels != runs[1].examples[i].labels) FAIL("row ", i);
  }
  REQUIRE(runs[0].problems.size() == 100);
  CHECK(runs[0].problems[0].line == 4);
  CHECK(runs[0].problems[99].line == runs[1].problems[99].line);
}

TEST_CASE("several files, each with its format; kept and dropped are counted by kind") {
  const DataFile first(tokens_row(5) + "{\"input_ids\": \"x\"}\n" + R"({"text": "t"})" + "\n");
  const DataFile second("[[1], {\"input_ids\": [1, 2]}, {\"input_ids\": [1, 3], \"labels\": []}]");
  DatasetOptions options;
  options.files = {first.path(), second.path()};
  const Dataset data = load_dataset(options, nullptr);
  check_counts(data);
  CHECK(data.rows_read == 6);
  REQUIRE(data.examples.size() == 2);
  CHECK(data.examples[0].file == 0);
  CHECK(data.examples[1].file == 1);
  CHECK(data.dropped_by_kind == std::map<std::string, std::int64_t>{
                                    {"bad_type", 2}, {"length_mismatch", 1}, {"other_format", 1}});
  REQUIRE(data.problems.size() == 4);
  CHECK(data.problems[0].line == 2);
  CHECK(data.problems[0].field == "input_ids");
  CHECK(data.problems[1].line == 3);
  CHECK(data.problems[1].reason ==
        "the key \"text\" (format text), but the file's rows are of format tokens");
  CHECK(data.problems[2].file == second.path());

  const nlohmann::json event = describe(data);
  CHECK(event["files"] == nlohmann::json({first.path().string(), second.path().string()}));
  CHECK(event["formats"] == nlohmann::json({"tokens", "tokens"}));
  CHECK(event["rows_read"] == 6);
  CHECK(event["kept"] == 2);
  CHECK(event["dropped"]["bad_type"] == 2);
  CHECK(event["repaired"] == nlohmann::json::object());
  CHECK(event["truncated"] == 0);
  CHECK(event["tokens"] == 4);
  CHECK(event["target_tokens"] == 2);
}

TEST_CASE("FR-029: one broken byte, a GBK file, a byte order mark") {
  const std::string good = tokens_row(2);
  const DataFile broken(good + "{\"input_ids\": [1, 3], \"note\": \"a\xff\"}\n" + good);
  const Dataset skipped = load(broken.path(), EncodingPolicy::kSkip);
  check_counts(skipped);
  CHECK(skipped.examples.size() == 2);
  REQUIRE(skipped.problems.size() == 1);
  CHECK(skipped.problems[0].kind == "invalid_utf8");
  CHECK(skipped.problems[0].line == 2);
  CHECK(skipped.problems[0].column == 33);
  CHECK(skipped.problems[0].dropped);

  const Dataset replaced = load(broken.path(), EncodingPolicy::kReplace);
  check_counts(replaced);
  CHECK(replaced.examples.size() == 3);
  REQUIRE(replaced.problems.size() == 1);
  CHECK(replaced.problems[0].kind == "replaced_bytes");
  CHECK(replaced.problems[0].column == 33);
  CHECK_FALSE(replaced.problems[0].dropped);
  CHECK(replaced.repaired_by_kind.at("replaced_bytes") == 1);

  const Error error = failure(broken.path(), EncodingPolicy::kError);
  CHECK(error.code() == ExitCode::kBadInput);
  CHECK(contains(error.what(), "rows.jsonl: line 2, column 33: "));

  // GBK for two Chinese words.
  const DataFile gbk("{\"text\": \"\xc4\xe3\xba\xc3\xca\xc0\xbd\xe7\"}\n" + good);
  const Dataset rest = load(gbk.path(), EncodingPolicy::kSkip);
  CHECK(rest.examples.size() == 1);
  CHECK(contains(rest.problems.at(0).reason, "GBK"));

  const DataFile surrogate("{\"input_ids\": [1, 3], \"note\": \"\\ud800\"}\n" + good);
  CHECK(load(surrogate.path(), EncodingPolicy::kSkip).dropped_by_kind.at("lone_surrogate") == 1);
  CHECK(load(surrogate.path()).repaired_by_kind.at("replaced_bytes") == 1);
}

TEST_CASE("of a key that is there twice the last one counts, and that is told") {
  const DataFile twice("{\"input_ids\": [7, 8], \"input_ids\": [1, 3]}\n{\"input_ids\": [1, 4]}\n");
  const Dataset data = load(twice.path());
  check_counts(data);
  REQUIRE(data.examples.size() == 2);
  CHECK(data.examples[0].ids == std::vector<std::int32_t>{1, 3});
  CHECK(data.repaired_by_kind.at("duplicate_key") == 1);
  REQUIRE(data.problems.size() == 1);
  CHECK(data.problems[0].line == 1);
  CHECK(data.problems[0].field == "input_ids");
  CHECK(contains(data.problems[0].reason, "\"input_ids\" is there twice"));
}

TEST_CASE("FR-031: arrays or lines; the odd row is named with its field") {
  const char* const row = R"({"instruction": "i", "output": "o"})";
  const char* const odd = R"({"instruction": "i", "output": ["o"]})";
  if (test::nano_tokenizer() == nullptr) {
    MESSAGE("skipped: nano-v3 is not there");
    return;
  }
  const DataFile lines(std::string(row) + "\r\n\r\n" + odd + "\r\n" + row);
  const DataFile array(std::string("[\n") + row + ",\n\n" + odd + ",\n" + row + "\n]\n");
  const DataFile comma(std::string("[") + row + ",\n" + row + ",\n]");
  for (const auto& [file, line] : {std::pair(&lines, 3), std::pair(&array, 4)}) {
    const Dataset data = load(file->path());
    check_counts(data);
    CHECK(data.examples.size() == 2);
    REQUIRE(data.problems.size() == 1);
    CHECK(data.problems[0].line == line);
    CHECK(data.problems[0].field == "output");
    CHECK(data.problems[0].reason == "output: a list of 1, a text is needed");
  }
  const Dataset data = load(comma.path());
  check_counts(data);
  CHECK(data.examples.size() == 2);
  CHECK(data.dropped_by_kind.at("invalid_json") == 1);
  CHECK(data.problems.at(0).line == 3);
  CHECK(data.problems.at(0).column == 1);
}

TEST_CASE("a line that is no JSON has a place") {
  const DataFile file(tokens_row(2) + "{\"input_ids\": [1, 2}\n" + tokens_row(3) +
                      "5\n\"x\"\nnull\n");
  const Dataset data = load(file.path());
  check_counts(data);
  CHECK(data.examples.size() == 2);
  CHECK(data.problems.at(0).kind == "invalid_json");
  CHECK(data.problems.at(0).line == 2);
  CHECK(data.problems.at(0).column == 20);
  CHECK(data.dropped_by_kind.at("bad_type") == 3);
}

TEST_CASE("the format is that of the first usable row") {
  const DataFile file("{\"question\": \"q\"}\n{\"text\": \"\"}\n" + tokens_row(2) + tokens_row(3));
  const Dataset data = load(file.path());
  check_counts(data);
  CHECK(data.examples.size() == 2);
  CHECK(data.dropped_by_kind ==
        std::map<std::string, std::int64_t>{{"empty_row", 1}, {"unknown_format", 1}});
  CHECK(data.format_by_file.at(file.path().string()) == "tokens");
}

TEST_CASE("FR-067: no usable row is an error with the reasons") {
  const std::string row =
      R"({"conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"},)"
      R"( {"from": "gpt", "value": "c"}]})"
      "\n";
  const DataFile file(R"({"conversations": []})"
                      "\n" +
                      row + row);
  const Error error = failure(file.path());
  CHECK(error.code() == ExitCode::kBadInput);
  CHECK(contains(error.what(),
                 "none of the 3 rows can be used: 2 roles_not_alternating (line 2: "
                 "conversations[1]: user after user, assistant is needed); "
                 "1 empty_row (line 1: "));
  CHECK_FALSE(error.hint().empty());
  const DataFile empty("");
  CHECK(failure(empty.path()).code() == ExitCode::kBadInput);
  const DataFile blank("\n \n");
  CHECK(failure(blank.path()).code() == ExitCode::kBadInput);
  const DataFile none("[]");
  CHECK(failure(none.path()).code() == ExitCode::kBadInput);
  CHECK(failure(file.path().parent_path() / "absent.jsonl").code() == ExitCode::kIo);
}

TEST_CASE("FR-020: a set without targets is an error") {
  const DataFile file("{\"input_ids\": [1, 2], \"labels\": [-100, -100]}\n");
  const Error error = failure(file.path());
  CHECK(error.code() == ExitCode::kBadInput);
  CHECK(contains(error.what(), "1 no_target (line 1: "));
}

TEST_CASE("options that contradict each other, too long rows, no tokenizer") {
  const DataFile file(tokens_row(2) + "{\"input_ids\": [1, 2, 3, 4]}\n");
  DatasetOptions options;
  CHECK(failure(options).code() == ExitCode::kUsage);  // no file
  options.files = {file.path()};
  options.cutoff_len = 1;
  CHECK(failure(options).code() == ExitCode::kUsage);
  options.cutoff_len = 3;
  options.truncation = Truncation::kError;
  const Error error = failure(options);
  CHECK(error.code() == ExitCode::kBadInput);
  CHECK(contains(error.what(), "rows.jsonl: line 2: the row has 4 tokens, at most 3 are allowed"));
  options.truncation = Truncation::kSkip;
  CHECK(load_dataset(options, nullptr).dropped_by_kind.at("too_long") == 1);
  options.truncation = Truncation::kRight;
  const Dataset data = load_dataset(options, nullptr);
  CHECK(data.truncated == 1);
  CHECK(data.examples[1].truncated);
  options.train_on_prompt = options.mask_history = true;
  CHECK(failure(options).code() == ExitCode::kUsage);
  const DataFile text("{\"text\": \"a b\"}\n");
  DatasetOptions plain;
  plain.files = {text.path()};
  CHECK_THROWS_AS(load_dataset(plain, nullptr), Error);
}

TEST_CASE("hostile rows: very many keys, the same key twice, deep nesting") {
  std::string keys = "{";
  for (int i = 0; i < 200000; ++i) keys += "\"k" + std::to_string(i) + "\": 0, ";
  keys += "\"input_ids\": [1, 2], \"k5\": 0}\n";
  const std::string twice = "{\"input_ids\": 5, \"input_ids\": [1, 3]}\n";
  const std::string deep = "{\"input_ids\": " + std::string(100000, '[') + "\n";
  const DataFile file(keys + twice + deep);
  const Dataset data = load(file.path());
  check_counts(data);
  REQUIRE(data.examples.size() == 2);
  CHECK(data.examples[0].ids[1] == 2);
  CHECK(data.examples[1].ids[1] == 3);
  CHECK(data.dropped_by_kind.at("invalid_json") == 1);
}

TEST_CASE("a stop signal ends reading") {
  const DataFile file(tokens_row(2));
  request_stop();
  const Error error = failure(file.path());
  clear_stop();
  CHECK(error.code() == ExitCode::kInterrupted);
}

TEST_CASE("problems are listed up to a limit, counted beyond it") {
  std::string text = tokens_row(2);
  for (int i = 0; i < 1500; ++i) text += "{}\n";
  const DataFile file(text);
  const Dataset data = load(file.path());
  CHECK(data.problems.size() == 1000);
  CHECK(data.dropped_by_kind.at("other_format") == 1500);
}

TEST_CASE("nano-v3's task files are usable to the last row") {
  if (test::nano_tokenizer() == nullptr || test::shared_dir().empty()) {
    MESSAGE("skipped: the shared models are not there");
    return;
  }
  const auto tasks = test::shared_dir() / "models" / "nano-v3" / "tasks";
  struct Case {
    const char* name;
    std::size_t rows;
  };
  for (const Case& c :
       {Case{"intent_train_500.jsonl", 500}, Case{"intent_test_300.jsonl", 300},
        Case{"pubmedqa_train_500.jsonl", 500}, Case{"pubmedqa_test_500.jsonl", 500}}) {
    DatasetOptions options;
    options.files = {tasks / c.name};
    options.vocab_size = 4096;
    const Dataset data = load_dataset(options, test::nano_tokenizer());
    check_counts(data);
    CHECK(data.examples.size() == c.rows);
    CHECK(data.problems.empty());
    CHECK(data.truncated == 0);
    for (const Example& example : data.examples) {
      // One answer, whole: its end-of-sentence is the last id and a target.
      if (example.ids[0] != 0 || example.labels.back() != 1) FAIL(c.name, " ", example.line);
    }
  }
}

}  // namespace ds
