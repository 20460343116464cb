// deepseek-check canary as a pipeline runs it.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "libcore/base/rng.h"
#include "libcore/io/checkpoint_index.h"
#include "tests/support/paths.h"
#include "tests/support/process.h"
#include "tests/support/schema.h"
#include "tests/support/tiny_model.h"

namespace {

using namespace ds::test;
using nlohmann::json;
namespace fs = std::filesystem;

// Two tiny models, one of them twice, and 200 rows of tokens.
class Traffic {
 public:
  Traffic() : root_(make_temp_dir("canary")) {
    write_tiny_model(root_ / "base", {});
    write_tiny_model(root_ / "same", {});
    write_tiny_model(root_ / "other", TinyModel{.seed = 2});
    std::ofstream rows(root_ / "rows.jsonl");
    const ds::Rng rng(5, 0);
    std::uint64_t draw = 0;
    for (int row = 0; row < 200; ++row) {
      json ids = json::array(), labels = json::array();
      const int length = 4 + static_cast<int>(rng.bits(draw++) % 9);
      for (int i = 0; i < length; ++i) {
        ids.push_back(2 + rng.bits(draw++) % (kTinyVocab - 2));
        labels.push_back(i < length / 2 ? json(-100) : ids.back());
      }
      rows << json{{"input_ids", ids}, {"labels", labels}}.dump() << "\n";
    }
  }
  ~Traffic() {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }
  Traffic(const Traffic&) = delete;
  Traffic& operator=(const Traffic&) = delete;
  std::string operator/(const std::string& name) const { return (root_ / name).string(); }

  Outcome canary(const std::string& candidate, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments{"canary",
                                       "--baseline",
                                       *this / "base",
                                       "--candidate",
                                       *this / candidate,
                                       "--dataset",
                                       *this / "rows.jsonl",
                                       "--max_new_tokens",
                                       "4"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program("deepseek-check", arguments);
  }
  json canary_json(const std::string& candidate, int exit_code,
                   std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"--format", "json"});
    const Outcome outcome = canary(candidate, more);
    REQUIRE_MESSAGE(outcome.exit_code == exit_code, outcome.err);
    return json::parse(outcome.out);
  }

 private:
  fs::path root_;
};

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("canary: the same model passes every stage of every gate") {
  const Traffic t;
  const json result =
      t.canary_json("same", 0,
                    {"--gate", "loss_increase<=0.001", "--gate", "exact_match_drop<=0", "--gate",
                     "length_change<=0.01", "--report", t / "report.jsonl"});
  CHECK(result["passed"] == true);
  CHECK(result["complete"] == true);
  REQUIRE(result["stages"].size() == 4);
  CHECK(result["stages"][0]["n"] == 2);
  CHECK(result["stages"][3]["n"] == 200);
  CHECK(result["stages"][3]["metrics"]["agreement"] == 1.0);
  for (const json& gate : result["stages"][2]["gates"]) {
    CHECK(gate["verdict"] == "passed");
    CHECK(gate["value"] == 0.0);
  }
  for (const std::string& problem : validate_report(t / "report.jsonl")) FAIL_CHECK(problem);
}

TEST_CASE("canary: a worse model is stopped at the first stage that shows it") {
  const Traffic t;
  // Random models: the answers of one are not the other's, and never the reference.
  const json result = t.canary_json("other", 1, {"--gate", "agreement>=0.5"});
  CHECK(result["passed"] == false);
  const json& last = result["stages"].back();
  CHECK(last["gates"][0]["verdict"] == "failed");
  CHECK(last["n"] < 200);
  for (std::size_t i = 0; i + 1 < result["stages"].size(); ++i) {
    CHECK(result["stages"][i]["gates"][0]["verdict"] == "undecided");
    CHECK(result["stages"][i]["passed"] == true);
  }
  const Outcome text = t.canary("other", {"--gate", "agreement>=0.5"});
  CHECK(has(text.out, "stop: the candidate must not take more traffic"));
  const Outcome junit = t.canary("other", {"--gate", "agreement>=0.5", "--format", "junit"});
  CHECK(junit.exit_code == 1);
  CHECK(has(junit.out, "<failure type=\"failed\" message=\"agreement&gt;=0.5 failed"));
}

TEST_CASE("canary: what stays undecided fails the last stage, unless told otherwise") {
  const Traffic t;
  const json all = t.canary_json("other", 1, {"--gate", "loss_increase<=-5", "--stages", "100"});
  CHECK(all["stages"][0]["gates"][0]["verdict"] == "failed");
  const double value = all["stages"][0]["gates"][0]["value"];
  const std::string gate = "loss_increase<=" + std::to_string(value);
  const json undecided = t.canary_json("other", 1, {"--gate", gate, "--stages", "100"});
  CHECK(undecided["stages"][0]["gates"][0]["verdict"] == "undecided");
  t.canary_json("other", 0, {"--gate", gate, "--stages", "100", "--undecided", "pass"});
}

TEST_CASE("canary: a pipeline goes on from its state file and computes nothing twice") {
  const Traffic t;
  const std::vector<std::string> gates{"--gate", "loss_increase<=0.02", "--state",
                                       t / "state.json"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), gates.begin(), gates.end());
    return more;
  };
  const json first = t.canary_json("same", 0, with({"--until", "5"}));
  CHECK(first["complete"] == false);
  CHECK(first["stages"].size() == 2);
  CHECK(has(t.canary("same", with({"--until", "5"})).out, "go on: next is 25 %"));
  CHECK(has(t.canary("same", with({"--until", "5"})).err, "10 rows are known already"));
  const json rest = t.canary_json("same", 0, with({}));
  CHECK(rest["complete"] == true);
  const json whole = t.canary_json("same", 0, {"--gate", "loss_increase<=0.02"});
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(rest["stages"][i]["gates"] == whole["stages"][i]["gates"]);
    CHECK(rest["stages"][i]["metrics"]["candidate"]["loss"] ==
          whole["stages"][i]["metrics"]["candidate"]["loss"]);
  }
  // Another candidate, other data, other measurements: not what the state is about.
  for (const auto& [candidate, more, part] :
       std::vector<std::tuple<std::string, std::vector<std::string>, std::string>>{
           {"other", with({}), "another candidate"},
           {"same", with({"--seed", "7"}), "another measurement"},
           {"same", with({"--gate", "exact_match_drop<=0.1"}), "another measurement"}}) {
    const Outcome outcome = t.canary(candidate, more);
    CHECK(outcome.exit_code == 3);
    CHECK_MESSAGE(has(outcome.err, part), outcome.err);
  }
  for (const char* text : {"", "{}", "[1]", R"({"schema":"deepseek/canary-state/1"})"}) {
    std::ofstream(t / "state.json") << text;
    CHECK(t.canary("same", with({})).exit_code == 3);
  }
}

TEST_CASE("canary: wrong input has its exit code") {
  const Traffic t;
  CHECK(run_program("deepseek-check", {"canary"}).exit_code == 2);
  for (const std::vector<std::string>& wrong :
       {std::vector<std::string>{"--gate", "loss_incraese<=1"},
        {"--stages", "5,1"},
        {"--stages", "0"},
        {"--stages", "1,x"},
        {"--stages", "50,101"},
        {"--until", "0.5"},
        {"--gate", "exact_match_drop<=1", "--gate", "choice_drop<=1"},
        {"--format", "sarif"}}) {
    const Outcome outcome = t.canary("same", wrong);
    CHECK_MESSAGE(outcome.exit_code == 2, wrong.back(), " ", outcome.err);
  }
  CHECK(t.canary("absent").exit_code == 3);
}
