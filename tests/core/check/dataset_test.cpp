// Every rule on datasets, row by row.
#include <doctest/doctest.h>

#include <map>
#include <set>

#include "libcore/check/dataset_check.h"
#include "libcore/check/detect.h"
#include "libcore/check/near_miss.h"
#include "libcore/check/text_trouble.h"
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
      {"duplicate-key",
       R"({"messages":[{"role":"user","content":"q","content":"u"},{"role":"assistant","content":"a"}]})"},
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
      {"control-token-in-text", chat("u", "a<｜User｜>and so on")},
      {"unknown-tool",
       R"({"tools":[{"type":"function","function":{"name":"g"}}],"messages":[{"role":"user",)"
       R"("content":"u"},{"role":"assistant","content":"","tool_calls":[{"type":"function",)"
       R"("function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"r"},)"
       R"({"role":"assistant","content":"a"}]})"},
      {"duplicate-row", kGood},
      {"replacement-character", chat("u", "caf\ufffd")},
      {"mojibake", chat("u", "caf\u00c3\u00a9")},
      {"over-cutoff", chat("u", std::string(2000, 'x') + " end"), true, 64},
      {"mojibake", chat("u", "\u00e4\u00bd\u00a0\u00e5\u00a5\u00bd")},
      {"mojibake", chat("u", "\u951f\u65a4\u62f7")},
      {"mixed-script-word", chat("u", "p\u0430yp\u0430l")},
      {"byte-order-mark", chat("u", "a \ufeffb")},
      {"control-character", chat("u", "a \u0001b")},
      {"control-character", chat("u", "a \u0085b")},
      {"invisible-character", chat("u", "zero\u200bwidth")},
      {"invisible-character", chat("u", "soft\u00adhyphen")},
      {"invisible-character", chat("u", "a\u200db")},
      {"bidi-control", chat("u", "abc \u202etxt.exe\u202c")},
      {"bidi-control", chat("u", "\u05e9\u05dc\u05d5\u05dd \u202eabc")},
      {"invisible-character", chat("u", "abc\u200f")},
      {"not-normalised", chat("u", "cafe\u0301")},
      {"not-normalised", chat("u", "5 \u212b")},
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
      {"label-differs", R"({"input_ids":[1,2,3],"labels":[-100,2,4]})"},
      {"no-usable-row", R"({"messages":[]})"},
      {"invalid-csv", "prompt,completion\nq,a\nq,\"open\n"},
      {"invalid-csv", "prompt,completion\nq,a\nq,a,b\n"},
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
  CHECK(run(R"({"input_ids":[1,2,4095],"labels":[1,2,4095]})", true).empty());
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

TEST_CASE("rows that two files share but for case, white space and punctuation") {
  TempFolder folder("dataset");
  const auto check_two = [&](const std::string& first, const std::string& second) {
    write_text(folder.root() / "train.jsonl", kGood + "\n" + first + "\n");
    write_text(folder.root() / "eval.jsonl", chat("other", "row") + "\n" + second + "\n");
    check::Findings findings;
    check::SeenRows seen;
    const check::DatasetCheckOptions options{.several_files = true};
    check::check_dataset(folder.root() / "train.jsonl", options, seen, findings);
    check::check_dataset(folder.root() / "eval.jsonl", options, seen, findings);
    return findings.sorted();
  };
  const std::string row = chat("Is it warm, in R\u00e9union?", "Yes: 25.5 degrees");
  for (const std::string& alike :
       {chat("is it warm in R\u00c9UNION", "yes 25.5 degrees."),
        chat(" Is it  warm\nin R\u00e9union\uff1f", "\u201cYes\u201d 25.5 degrees!")}) {
    const auto findings = check_two(row, alike);
    REQUIRE_MESSAGE(findings.size() == 1, describe(findings));
    CHECK(findings[0].rule->name == "nearly-shared-row");
    CHECK(findings[0].line == 2);
    CHECK(findings[0].found == "2");
    CHECK(findings[0].message.find("line 2 of " + (folder.root() / "train.jsonl").string()) !=
          std::string::npos);
  }
  const auto same = check_two(row, row);
  REQUIRE(same.size() == 1);
  CHECK(same[0].rule->name == "shared-row");
  // Numbers, signs, brackets and other words are no such difference.
  for (const auto& [a, b] :
       std::vector<std::pair<std::string, std::string>>{{"1 + 2", "1 - 2"},
                                                        {"1.5", "15"},
                                                        {"(1 + 2) * 3", "1 + 2 * 3"},
                                                        {"-3", "3"},
                                                        {"5!", "5"},
                                                        {"a_b", "ab"},
                                                        {"x = [1]", "x = 1"},
                                                        {"?", "!"},
                                                        {"\u3002", "\uff1f"},
                                                        {"yes", "yes yes"},
                                                        {"10:30", "1030"},
                                                        {"a/b", "ab"}}) {
    const auto findings = check_two(chat("q", a), chat("q", b));
    CHECK_MESSAGE(findings.empty(), describe(findings));
  }
  CHECK(check_two(chat("q", "\u4f60\u597d\u3002"), chat("q", "\u4f60\u597d")).size() == 1);
}

TEST_CASE("characters that languages and emoji need are no trouble") {
  for (const char* text :
       {"plain\ttext\r\n", "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
        "\u00c4pfel, caf\u00e9, \u0153uvre",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",  // joiners in emoji
        "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",   // Persian
        "\u05e9\u05dc\u05d5\u05dd \u200fabc \u2067x\u2069",         // a direction mark
        "TNF\u03b1 and \u03b2-carotene, 5 \u03bcm",                 // Greek in words
        "SMS\u043a\u0430, IT-\u043e\u0442\u0434\u0435\u043b, \u0432\u0435\u0431-API",  // Russian
        "10\u00a0000\u202f\u20ac \u2013 \u00ab\u00e0\u00bb \u00b0C",
        "\u0928\u092e\u0938\u094d\u0924\u0947", "\u00e9\u00ab", "\uac00\ub098\ub2e4",
        "\u304c\u30d1"}) {
    const auto troubles = check::text_troubles(text);
    CHECK_MESSAGE(troubles.empty(), (troubles.empty() ? "" : troubles[0].rule));
  }
  const auto troubles = check::text_troubles("ab \u200bc \u200b \u202a");
  REQUIRE(troubles.size() == 2);
  CHECK(troubles[0].offset == 3);
  CHECK(troubles[0].what == "U+200B (zero width space)");
}

TEST_CASE("rows in another script than the rest") {
  const auto rows = [](int latin, int han) {
    std::string text;
    for (int i = 0; i < latin; ++i) {
      text += chat("A question of some length, number " + std::to_string(i), "An answer") + "\n";
    }
    for (int i = 0; i < han; ++i) {
      std::string question;
      for (int k = 0; k < 30; ++k) question += "\u4f60";
      text += chat(question + std::to_string(i), "\u597d") + "\n";
    }
    return text;
  };
  const auto found = run(rows(200, 2));
  REQUIRE(found.size() == 2);
  CHECK(found[0].rule->name == "script-unlike-rest");
  CHECK(found[0].line == 201);
  CHECK(found[0].message.find("in Han letters, 200 of 202 rows are in Latin ones") !=
        std::string::npos);
  CHECK(run(rows(200, 20)).empty());  // too many to be an accident
  CHECK(run(rows(50, 1)).empty());    // too few rows to say
}

TEST_CASE("lengths: percentiles and buckets") {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 1; i <= 100; ++i) lengths.push_back(101 - i);
  const check::Lengths all = check::summarise_lengths(lengths, "tokens");
  CHECK(all.rows == 100);
  CHECK(all.p50 == 50);
  CHECK(all.p90 == 90);
  CHECK(all.p99 == 99);
  CHECK(all.max == 100);
  REQUIRE(all.buckets.size() == 7);
  CHECK(all.buckets[0].from == 1);
  CHECK(all.buckets[1].rows == 2);
  CHECK(all.buckets[6].from == 64);
  CHECK(all.buckets[6].to == 127);
  CHECK(all.buckets[6].rows == 37);
  const check::Lengths edge = check::summarise_lengths({0, 3}, "tokens");
  REQUIRE(edge.buckets.size() == 3);
  CHECK(edge.buckets[0].to == 0);
  CHECK(edge.buckets[1].rows == 0);
  CHECK(edge.p50 == 0);
  CHECK(check::summarise_lengths({}, "tokens").rows == 0);

  // Characters without a tokenizer, tokens before truncation with one.
  TempFolder folder("dataset");
  write_text(folder.root() / "rows.jsonl",
             chat("\u4f60\u597d", "abc") + "\n" + chat("u", std::string(500, 'x') + " y z") + "\n");
  for (const bool tokenise : {false, true}) {
    check::Findings findings;
    check::SeenRows seen;
    check::DatasetCheckOptions options{.cutoff_len = 16};
    if (tokenise) options.tokenizer = &tokenizer();
    const auto size = check::check_dataset(folder.root() / "rows.jsonl", options, seen, findings);
    CHECK(size.lengths.rows == 2);
    CHECK(size.lengths.unit == (tokenise ? "tokens" : "characters"));
    if (!tokenise) {
      CHECK(size.lengths.p50 == 5);
      CHECK(size.lengths.max == 505);
    } else {
      CHECK(size.longest <= 16);
      CHECK(size.lengths.max > 16);
      const auto sorted = findings.sorted();
      const Finding* cut = find(sorted, "over-cutoff");
      REQUIRE(cut != nullptr);
      CHECK(cut->found == std::to_string(size.lengths.max));
    }
  }
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

TEST_CASE("rows in any container are told from their file") {
  const TempFolder folder("containers");
  const std::map<std::string, std::string> texts{{"rows.jsonl", "{\"text\": \"a\"}\n"},
                                                 {"rows.json", "[{\"text\": \"a\"}]"},
                                                 {"rows", " [{\"text\": \"a\"}]"},
                                                 {"rows.csv", "text,category\na,b\n"}};
  for (const auto& [name, text] : texts) {
    write_text(folder.root() / name, text);
    CHECK_MESSAGE(check::detect(folder.root() / name).kind == check::TargetKind::kDataset, name);
  }
}

TEST_CASE("every rule on datasets has a case") {
  std::set<std::string> covered{"shared-row", "bad-conversation", "nearly-shared-row",
                                "script-unlike-rest"};
  for (const Case& spoilt : cases()) covered.insert(spoilt.rule);
  for (const auto& [rule, text] : files()) covered.insert(rule);
  for (const check::Rule& rule : check::rules()) {
    if (rule.group != RuleGroup::kDataset) continue;
    CHECK_MESSAGE(covered.count(std::string(rule.name)) == 1, rule.name);
  }
}
