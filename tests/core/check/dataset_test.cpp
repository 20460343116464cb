// Every rule on datasets, row by row.
#include <doctest/doctest.h>

#include <set>

#include "libcore/check/dataset_check.h"
#include "libcore/check/near_miss.h"
#include "tests/core/check/model_fixture.h"

namespace {

using namespace ds;
using namespace ds::test;
using check::Finding;
using check::RuleGroup;

const Tokenizer& tokenizer() {
  static const Tokenizer kTokenizer = Tokenizer::load(source_dir() / "examples" / "nano-v3");
  return kTokenizer;
}

std::vector<Finding> run(const std::string& text, bool tokenise = false,
                         std::int64_t cutoff = 2048) {
  TempFolder folder("dataset");
  write_text(folder.root() / "rows.jsonl", text);
  check::Findings findings;
  check::SeenRows seen;
  check::DatasetCheckOptions options;
  options.cutoff_len = cutoff;
  if (tokenise) {
    options.tokenizer = &tokenizer();
    options.vocab_size = 4096;
  }
  check::check_dataset(folder.root() / "rows.jsonl", options, seen, findings);
  return findings.sorted();
}

std::string chat(const std::string& user, const std::string& assistant) {
  return nlohmann::json{
      {"messages",
       {{{"role", "user"}, {"content", user}}, {{"role", "assistant"}, {"content", assistant}}}}}
      .dump();
}

const std::string kGood = chat("What is 1 + 1?", "2");

struct Case {
  const char* rule;
  std::string row;  // put on line 2, behind a sound one
  bool tokenise = false;
  std::int64_t cutoff = 2048;
};

std::string calls(const std::string& arguments) {
  return R"({"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"","tool_calls":[)"
         R"({"type":"function","function":{"name":"f")" +
         arguments + R"(}}]},{"role":"tool","content":"r"},{"role":"assistant","content":"a"}]})";
}

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases{
      {"invalid-utf8", "{\"text\":\"\xff\"}"},
      {"lone-surrogate", R"({"messages":[{"role":"user","content":"\ud83d"}]})"},
      {"invalid-json", R"({"messages":[})"},
      {"other-format", R"({"text":"only text"})"},
      {"missing-field", R"({"messages":[{"content":"u"},{"role":"assistant","content":"a"}]})"},
      {"bad-type",
       R"({"messages":[{"role":"user","content":5},{"role":"assistant","content":"a"}]})"},
      {"null-content",
       R"({"messages":[{"role":"user","content":null},{"role":"assistant","content":"a"}]})"},
      {"content-not-text",
       R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":"x"}]},{"role":"assistant","content":"a"}]})"},
      {"unknown-role",
       R"({"messages":[{"role":"critic","content":"u"},{"role":"assistant","content":"a"}]})"},
      {"roles-not-alternating",
       R"({"messages":[{"role":"user","content":"u"},{"role":"user","content":"v"},{"role":"assistant","content":"a"}]})"},
      {"no-answer", R"({"messages":[{"role":"user","content":"u"}]})"},
      {"empty-answer", chat("u", "")},
      {"empty-row", R"({"messages":[]})"},
      {"bad-tool-call",
       R"({"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"","tool_calls":[5]}]})"},
      {"bad-tools",
       R"({"tools":"{","messages":[{"role":"user","content":"u"},{"role":"assistant","content":"a"}]})"},
      {"no-target", chat(std::string(400, 'x') + " and so on", "2"), true, 2},
      {"joined-parts",
       R"({"messages":[{"role":"user","content":[{"type":"text","text":"u"}]},{"role":"assistant","content":"a"}]})"},
      {"role-renamed",
       R"({"messages":[{"role":"human","content":"u"},{"role":"assistant","content":"a"}]})"},
      {"empty-tool-calls",
       R"({"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"a","tool_calls":[]}]})"},
      {"arguments-object", calls(R"(,"arguments":{"x":1})")},
      {"arguments-missing", calls("")},
      {"arguments-encoded-twice", calls(R"(,"arguments":"\"{\\\"x\\\":1}\"")")},
      {"arguments-not-json", calls(R"(,"arguments":"x = 1")")},
      {"function-call",
       R"({"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"a","function_call":{"name":"f","arguments":"{}"}}]})"},
      {"content-object",
       R"({"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":{"x":1}},{"role":"assistant","content":"a"}]})"},
      {"unanswered-turn",
       R"({"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"a"},{"role":"user","content":"v"}]})"},
      {"tool-without-call",
       R"({"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"a"},{"role":"tool","content":"r"},{"role":"assistant","content":"b"}]})"},
      {"enable-thinking",
       R"({"enable_thinking":true,"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"a"}]})"},
      {"bos-in-text", chat("<｜begin▁of▁sentence｜>u", "a")},
      {"bos-in-text", chat("<｜begin▁of▁sentence｜>u", "a"), true},
      {"eos-in-text", chat("u", "a<｜end▁of▁sentence｜>"), true},
      {"near-miss-in-text", chat("<|User|>u", "a")},
      {"near-miss-in-text", chat("u", "<｜tool_calls_begin｜>")},
      {"control-token-in-text", chat("say <｜Assistant｜> please", "a")},
      {"unclosed-think", chat("u", "<think>hm, 2")},
      {"v3-calls", chat("u", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```")},
      {"duplicate-row", kGood},
      {"replacement-character", chat("u", "caf\ufffd")},
      {"mojibake", chat("u", "caf\u00c3\u00a9")},
      {"over-cutoff", chat("u", std::string(2000, 'x') + " end"), true, 64},
  };
  return kCases;
}

// Rules that need a file of their own.
const std::vector<std::pair<const char*, std::string>>& files() {
  static const std::vector<std::pair<const char*, std::string>> kFiles{
      {"dataset-unreadable", ""},
      {"unknown-format", R"({"chosen":"a","rejected":"b"})"},
      {"empty-prompt", R"({"prompt":"","completion":"a"})"},
      {"length-mismatch", R"({"input_ids":[1,2,3],"labels":[1,2]})"},
      {"bad-id", R"({"input_ids":[1,2,-3],"labels":[1,2,3]})"},
      {"no-usable-row", R"({"messages":[]})"},
  };
  return kFiles;
}

}  // namespace

TEST_CASE("sound rows have no findings") {
  for (const bool tokenise : {false, true}) {
    const auto findings = run(kGood + "\n" + chat("And 2 + 2?", "<think>two twos</think>4") + "\n" +
                                  calls(R"(,"arguments":"{\"x\":1}")") + "\n",
                              tokenise);
    // The shipped template is V3.1's: calls and results have their form.
    CHECK_MESSAGE(findings.empty(), describe(findings));
  }
}

TEST_CASE("each rule on datasets finds its row, and names its line") {
  for (const Case& spoilt : cases()) {
    INFO(spoilt.rule);
    const auto findings = run(kGood + "\n" + spoilt.row + "\n", spoilt.tokenise, spoilt.cutoff);
    const Finding* found = nullptr;
    for (const Finding& finding : findings) {
      if (finding.rule->name == spoilt.rule && finding.line == 2) found = &finding;
    }
    CHECK_MESSAGE(found != nullptr, describe(findings));
  }
  for (const auto& [rule, text] : files()) {
    const auto findings = run(text);
    INFO(rule);
    CHECK_MESSAGE(find(findings, rule) != nullptr, describe(findings));
  }
}

TEST_CASE("a conversation that the model's template has no form for") {
  TempFolder folder("dataset");
  write_text(folder.root() / "rows.jsonl",
             R"({"tools":[{"type":"function","function":{"name":"f","description":"d",)"
             R"("parameters":{}}}],"messages":[{"role":"user","content":"u"},)"
             R"({"role":"assistant","content":"a"}]})");
  for (const ChatTemplate kind : {ChatTemplate::kV2, ChatTemplate::kV31}) {
    check::Findings findings;
    check::SeenRows seen;
    check::check_dataset(folder.root() / "rows.jsonl",
                         {.tokenizer = &tokenizer(), .chat_template = kind}, seen, findings);
    CHECK(findings.has("bad-conversation") == (kind == ChatTemplate::kV2));
  }
}

TEST_CASE("ids against the model's vocabulary") {
  CHECK(find(run(R"({"input_ids":[1,2,4096],"labels":[1,2,3]})", true), "bad-id") != nullptr);
  CHECK(run(R"({"input_ids":[1,2,4095],"labels":[1,2,3]})", true).empty());
}

TEST_CASE("rows that two files share") {
  TempFolder folder("dataset");
  write_text(folder.root() / "a.jsonl", kGood + "\n" + chat("u", "v") + "\n");
  write_text(folder.root() / "b.jsonl", chat("w", "x") + "\n" + kGood + "\n");
  check::Findings findings;
  check::SeenRows seen;
  check::check_dataset(folder.root() / "a.jsonl", {}, seen, findings);
  check::check_dataset(folder.root() / "b.jsonl", {}, seen, findings);
  const auto sorted = findings.sorted();
  REQUIRE(sorted.size() == 1);
  CHECK(sorted[0].rule->name == "shared-row");
  CHECK(sorted[0].line == 2);
  CHECK(sorted[0].found == "1");
}

TEST_CASE("near misses: bars, low lines, case; other tags are left alone") {
  for (const char* wrong :
       {"<|User|>", "<｜user｜>", "<| Assistant |>", "<｜tool_calls_begin｜>",
        "<|begin_of_sentence|>", "<｜end of sentence｜>", "<Think>", "< think >", "<|eot|>"}) {
    CHECK_MESSAGE(check::near_misses(std::string("text ") + wrong + " text", 4).size() == 1, wrong);
  }
  for (const char* right : {"<｜User｜>", "<|EOT|>", "<think>", "</think>", "<user>", "<b>",
                            "a < b > c", "<|im_start|>", "<｜place▁holder▁no▁7｜>", "<", "<|"}) {
    CHECK_MESSAGE(check::near_misses(std::string("text ") + right + " text", 4).empty(), right);
  }
}

TEST_CASE("every rule on datasets has a case") {
  std::set<std::string> covered{"shared-row", "bad-conversation"};
  for (const Case& spoilt : cases()) covered.insert(spoilt.rule);
  for (const auto& [rule, text] : files()) covered.insert(rule);
  for (const check::Rule& rule : check::rules()) {
    if (rule.group != RuleGroup::kDataset) continue;
    CHECK_MESSAGE(covered.count(std::string(rule.name)) == 1, rule.name);
  }
}
