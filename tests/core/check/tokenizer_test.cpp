// Every rule on tokenizers and templates, on the shipped small model's files and on a made-up
// vocabulary of DeepSeek-V3's size.
#include <doctest/doctest.h>

#include <functional>
#include <set>

#include "tests/core/check/tokenizer_fixture.h"

namespace {

using namespace ds;
using namespace ds::test;
using check::Finding;
using check::RuleGroup;
namespace fs = std::filesystem;
using nlohmann::json;

using Files = TokenizerFiles;
Files nano() { return nano_tokenizer(); }
Files v3_like() { return v3_like_tokenizer(); }

std::vector<Finding> run(const Files& files,
                         const std::function<void(const fs::path&)>& spoil = {}) {
  TempFolder folder("tokenizer");
  files.write(folder.root());
  if (spoil) spoil(folder.root());
  check::Findings findings;
  std::optional<ModelConfig> model;
  if (files.config.is_object()) {
    check::Findings unused;
    model = check::read_model_config(files.config, "config.json", unused);
  }
  check::check_tokenizer(folder.root(), files.config.is_object() ? &files.config : nullptr,
                         model ? &*model : nullptr, findings);
  return findings.sorted();
}

struct Case {
  const char* rule;
  const char* place;
  std::function<void(Files&)> files;
  std::function<void(const fs::path&)> folder;
};

std::string v2_template() {
  return "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ 'User: ' + "
         "m['content'] }}{% else %}{{ 'Assistant:' + m['content'] }}{% endif %}{% endfor %}";
}

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases{
      {"tokenizer-missing", "tokenizer.json", [](Files& f) { f.tokenizer = nullptr; }, {}},
      {"tokenizer-syntax",
       "tokenizer.json",
       {},
       [](const fs::path& f) { fs::resize_file(f / "tokenizer.json", 1000); }},
      {"tokenizer-syntax",
       "tokenizer.json",
       [](Files& f) { f.tokenizer["model"]["merges"][0] = "nothing known"; },
       {}},
      {"tokenizer-kind",
       "tokenizer.json",
       [](Files& f) { f.tokenizer["model"]["type"] = "Unigram"; },
       {}},
      {"tokenizer-kind", "tiktoken.model", [](Files& f) { f.tokenizer = nullptr; },
       [](const fs::path& f) { write_text(f / "tiktoken.model", "IQ== 0\n"); }},
      {"tokenizer-config-missing",
       "tokenizer_config.json",
       [](Files& f) { f.settings = nullptr; },
       {}},
      {"tokenizer-config-syntax",
       "tokenizer_config.json",
       {},
       [](const fs::path& f) { write_text(f / "tokenizer_config.json", "{"); }},
      {"tokenizer-config-syntax",
       "tokenizer_config.json",
       [](Files& f) { f.settings["bos_token"] = 7; },
       {}},
      {"special-token-missing",
       "tokenizer_config.json",
       [](Files& f) { f.settings["eos_token"] = "<|im_end|>"; },
       {}},
      {"added-tokens-disagree",
       "added_tokens_decoder",
       [](Files& f) {
         f.settings["added_tokens_decoder"] = {{"7", {{"content", "<｜User｜>"}}}};
       },
       {}},
      {"token-beyond-embedding",
       "tokenizer.json",
       [](Files& f) { f.config["vocab_size"] = 4000; },
       {}},
      {"other-tokenizer", "tokenizer.json", [](Files& f) { f.config["vocab_size"] = 129280; }, {}},
      {"bos-id", "bos_token_id", [](Files& f) { f.config["bos_token_id"] = 5; }, {}},
      {"eos-id",
       "eos_token_id",
       [](Files& f) {
         f.config["eos_token_id"] = {7, 8};
       },
       {}},
      {"pad-id", "pad_token_id", [](Files& f) { f.config["pad_token_id"] = 2; }, {}},
      {"think-tokens", "<think>", [](Files& f) { f.respell("<think>", "<thought>"); }, {}},
      {"tokenizer-class", "tokenizer_class", {}, {}},
      {"bos-added-twice", "add_bos_token", {}, {}},
      {"control-flag",
       "tokenizer.json",
       [](Files& f) { f.added("<｜User｜>")["special"] = true; },
       {}},
      {"near-miss-token",
       "tokenizer.json",
       [](Files& f) { f.respell("<｜fim▁hole｜>", "<|fim_hole|>"); },
       {}},
      {"generation-syntax",
       "generation_config.json",
       [](Files& f) {
         f.generation = {1, 2};
       },
       {}},
      {"generation-ids", "eos_token_id", [](Files& f) { f.generation["eos_token_id"] = 9; }, {}},
      {"generation-values", "top_p", [](Files& f) { f.generation["top_p"] = 1.5; }, {}},
      {"generation-values",
       "temperature",
       [](Files& f) { f.generation["temperature"] = "hot"; },
       {}},
      {"model-max-length",
       "model_max_length",
       [](Files& f) { f.settings["model_max_length"] = 131072; },
       {}},
      {"special-tokens-map",
       "special_tokens_map.json",
       [](Files& f) {
         f.map = {{"eos_token", "<|EOT|>"}};
       },
       {}},
      {"pad-is-eos", "pad_token", {}, {}},
      {"adds-eos", "add_eos_token", [](Files& f) { f.settings["add_eos_token"] = true; }, {}},
      {"special-token-unnamed", "pad_token", [](Files& f) { f.settings.erase("pad_token"); }, {}},
      {"ordinary-special-token", "pad_token", [](Files& f) { f.settings["pad_token"] = "a"; }, {}},
      {"cleans-up-spaces",
       "clean_up_tokenization_spaces",
       [](Files& f) { f.settings["clean_up_tokenization_spaces"] = true; },
       {}},
      {"tokenizer-class-unknown",
       "tokenizer_class",
       [](Files& f) { f.settings["tokenizer_class"] = "LamaTokenizerFast"; },
       {}},
      {"misspelt-setting",
       "eos_tokn",
       [](Files& f) {
         f.settings["eos_tokn"] = "x";
         f.settings.erase("eos_token");
       },
       {}},
      {"misspelt-setting", "top_pp", [](Files& f) { f.generation["top_pp"] = 0.9; }, {}},
      {"tokenizer-truncates",
       "truncation",
       [](Files& f) {
         f.tokenizer["truncation"] = {{"max_length", 512}};
       },
       {}},
      {"control-flag",
       "eos_token.lstrip",
       [](Files& f) { f.settings["eos_token"]["lstrip"] = true; },
       {}},
      {"control-flag",
       "added_tokens",
       [](Files& f) { f.added("<｜User｜>")["rstrip"] = true; },
       {}},
      {"generation-values",
       "pad_token_id",
       [](Files& f) { f.generation["pad_token_id"] = "x"; },
       {}},
      {"model-max-length",
       "model_max_length",
       [](Files& f) { f.settings["model_max_length"] = -1; },
       {}},
      {"template-missing",
       "chat_template",
       [](Files& f) { f.settings.erase("chat_template"); },
       {}},
      {"template-delimiters",
       "chat_template.jinja",
       [](Files& f) {
         f.jinja = f.settings["chat_template"].get<std::string>() + "{% set x = tool | tojson}";
       },
       {}},
      {"template-foreign",
       "chat_template",
       [](Files& f) { f.settings["chat_template"] = "<|im_start|>{{ messages }}"; },
       {}},
      {"template-changed",
       "chat_template",
       [](Files& f) {
         f.settings["chat_template"] =
             f.settings["chat_template"].get<std::string>() + "{# mine #}";
       },
       {}},
      {"template-writes-otherwise",
       "chat_template",
       [](Files& f) { f.replace("'<｜Assistant｜></think>'", "'<｜Assistant｜>'"); },
       {}},
      {"template-syntax", "chat_template", [](Files& f) { f.replace("{%- endfor -%}", ""); }, {}},
      {"template-fails",
       "chat_template",
       [](Files& f) { f.replace("{{ bos_token }}", "{{ bos_token + tools.x.y }}"); },
       {}},
      {"template-not-judged",
       "chat_template",
       [](Files& f) { f.replace("{{ bos_token }}", "{{ bos_token }}{% include 'x' %}"); },
       {}},
      {"template-other-release",
       "chat_template",
       [](Files& f) { f.settings["chat_template"] = v2_template(); },
       {}},
      {"two-templates", "chat_template.jinja", [](Files& f) { f.jinja = v2_template(); }, {}},
      {"template-token-missing",
       "chat_template",
       [](Files& f) {
         f.settings["chat_template"] =
             f.settings["chat_template"].get<std::string>() + "<｜search▁begin｜>";
       },
       {}},
      {"template-near-miss",
       "chat_template",
       [](Files& f) {
         f.settings["chat_template"] = f.settings["chat_template"].get<std::string>() + "<|User|>";
       },
       {}},
      {"template-of-other-model",
       "chat_template",
       [](Files& f) { f.settings["chat_template"] = v2_template(); },
       {}},
      {"template-without-think",
       "chat_template",
       [](Files& f) {
         f.settings["chat_template"] =
             "{{ bos_token }}{% for m in messages %}<｜User｜>{{ m['content'] }}<｜Assistant｜>"
             "{% endfor %}";
       },
       {}},
  };
  return kCases;
}

void expect(const std::vector<Finding>& findings, const char* rule, const char* place) {
  const Finding* found = find(findings, rule);
  REQUIRE_MESSAGE(found != nullptr, describe(findings));
  bool placed = false;
  for (const Finding& finding : findings) {
    if (finding.rule->name != rule) continue;
    const std::string at = finding.file + " " + finding.key;
    placed = placed || at.find(place) != std::string::npos;
  }
  CHECK_MESSAGE(placed, describe(findings));
}

}  // namespace

TEST_CASE("the shipped tokenizer has only the notes that the published files have") {
  for (const Finding& finding : run(nano())) {
    CHECK_MESSAGE((finding.rule->name == "tokenizer-class" ||
                   finding.rule->name == "bos-added-twice" || finding.rule->name == "pad-is-eos"),
                  finding.message);
  }
  // A rule that has a note there is silent when the reason is gone.
  Files plain = nano();
  plain.settings["tokenizer_class"] = "PreTrainedTokenizerFast";
  plain.settings["add_bos_token"] = false;
  plain.settings["pad_token"] = "<｜▁pad▁｜>";
  CHECK_MESSAGE(run(plain).empty(), describe(run(plain)));
}

TEST_CASE("each rule on tokenizers and templates finds its spoilt files") {
  for (const Case& spoilt : cases()) {
    INFO(spoilt.rule);
    Files files = nano();
    if (spoilt.files) spoilt.files(files);
    expect(run(files, spoilt.folder), spoilt.rule, spoilt.place);
  }
}

TEST_CASE("chat templates are judged by what they write") {
  const Finding* found = nullptr;
  std::vector<Finding> findings;
  const auto check = [&](const std::function<void(Files&)>& spoil, const char* rule) {
    Files files = nano();
    spoil(files);
    findings = run(files);
    found = find(findings, rule);
  };
  // Another text that writes the same: a note that says so, and nothing else about templates.
  const auto rewritten = [](Files& f) {
    auto text = f.settings["chat_template"].get<std::string>();
    for (std::size_t at = text.find("message['"); at != std::string::npos;
         at = text.find("message['", at)) {
      text.replace(at, 9, "m['");
    }
    for (std::size_t at = text.find("for message in"); at != std::string::npos;
         at = text.find("for message in", at)) {
      text.replace(at, 14, "for m in");
    }
    f.settings["chat_template"] = "{#- rewritten -#}\n" + text;
  };
  check(rewritten, "template-changed");
  REQUIRE_MESSAGE(found != nullptr, describe(findings));
  CHECK(found->message.find("the same text in all 24 probes") != std::string::npos);
  for (const Finding& finding : findings) {
    CHECK_MESSAGE((finding.rule->group != RuleGroup::kTemplate || &finding == found),
                  finding.message);
  }
  // The probe, the first byte that differs, and both texts.
  check([](Files& f) { f.replace("'<｜tool▁calls▁end｜>", "'"); }, "template-writes-otherwise");
  REQUIRE_MESSAGE(found != nullptr, describe(findings));
  CHECK(find(findings, "template-changed") == nullptr);
  CHECK(found->message.find("the probe \"one tool call\" at byte") != std::string::npos);
  CHECK(found->expected.find("<｜tool▁calls▁end｜>") != std::string::npos);
  CHECK(found->found.find("<｜tool▁calls▁end｜>") == std::string::npos);
  // Only one kind of conversation is hit, by a text of the same length.
  check([](Files& f) { f.replace("'\n\n' + m", "'  ' + m"); }, "template-writes-otherwise");
  REQUIRE_MESSAGE(found != nullptr, describe(findings));
  CHECK(found->message.find("system texts in two places") != std::string::npos);
  CHECK(found->message.find("the other probes agree") != std::string::npos);
  // Tools may be ignored or written as on the model card; any other way is told.
  const auto lists_tools = [](const std::string& what) {
    return [what](Files& f) {
      f.replace("{{ ns.system_prompt }}",
                "{{ ns.system_prompt }}{% if tools is defined %}{{ " + what + " }}{% endif %}");
    };
  };
  check(lists_tools("tools | tojson"), "template-writes-otherwise");
  REQUIRE_MESSAGE(found != nullptr, describe(findings));
  CHECK(found->message.find("tools given to the template") != std::string::npos);
  // Where it raises, and why; what is not known, and where.
  check([](Files& f) { f.replace("{{ bos_token }}", "\n{{ raise_exception('no') }}"); },
        "template-fails");
  REQUIRE_MESSAGE(found != nullptr, describe(findings));
  CHECK(found->message.find("in line 4: \"no\"") != std::string::npos);
  check([](Files& f) { f.replace("{{ bos_token }}", "\n\n{{ bos_token | urlize }}"); },
        "template-not-judged");
  REQUIRE_MESSAGE(found != nullptr, describe(findings));
  CHECK(found->message.find("cannot judge this chat template: line 5 uses the filter 'urlize'") !=
        std::string::npos);
  check(
      [](Files& f) {
        f.replace("{{ bos_token }}",
                  "{{ bos_token }}{% for i in range(99999) %}{% for j in range(99999) %}"
                  "{% endfor %}{% endfor %}");
      },
      "template-not-judged");
  REQUIRE_MESSAGE(found != nullptr, describe(findings));
  CHECK(found->message.find("needs more than") != std::string::npos);
  // A template that is told by its delimiters is not told again.
  check([](Files& f) { f.replace("{{ bos_token }}", "{{ bos_token }}{% set x = 1}"); },
        "template-delimiters");
  CHECK(found != nullptr);
  CHECK(find(findings, "template-syntax") == nullptr);
}

TEST_CASE("every template of a list is judged, and one beside a file") {
  Files files = nano();
  const auto good = files.settings["chat_template"].get<std::string>();
  Files bad = nano();
  bad.replace("'<｜Assistant｜></think>'", "'<｜Assistant｜>'");
  const auto spoilt = bad.settings["chat_template"].get<std::string>();
  files.settings["chat_template"] = {{{"name", "default"}, {"template", good}},
                                     {{"name", "tool_use"}, {"template", spoilt}},
                                     {{"name", "copy"}, {"template", good}}};
  const auto listed = run(files);
  const Finding* found = find(listed, "template-writes-otherwise");
  REQUIRE_MESSAGE(found != nullptr, describe(listed));
  CHECK(found->key == "chat_template[tool_use]");
  CHECK(find(listed, "template-changed") == nullptr);

  files.settings["chat_template"] = spoilt;
  files.jinja = good;
  const auto beside = run(files);
  found = find(beside, "template-writes-otherwise");
  REQUIRE_MESSAGE(found != nullptr, describe(beside));
  CHECK(found->key == "chat_template");
  CHECK(find(beside, "two-templates") != nullptr);
}

TEST_CASE("a vocabulary of V3's size: control tokens at their ids, known texts, V4") {
  const Files sound = v3_like();
  const auto findings = run(sound);
  CHECK_MESSAGE(find(findings, "special-ids") == nullptr, describe(findings));
  CHECK(find(findings, "v4-tokenizer") == nullptr);
  // Its merges are none, so known texts do become other ids.
  expect(findings, "encodes-otherwise", "tokenizer.json");

  Files swapped = sound;
  std::swap(swapped.added("<｜User｜>")["id"], swapped.added("<｜Assistant｜>")["id"]);
  expect(run(swapped), "special-ids", "<｜User｜>");
  Files lost = sound;
  lost.added("<｜tool▁sep｜>")["content"] = "<｜other｜>";
  expect(run(lost), "special-ids", "<｜tool▁sep｜>");
  Files v4 = sound;
  v4.added("<think>")["id"] = 128821;
  expect(run(v4), "v4-tokenizer", "<think>");
}

TEST_CASE("the real tokenizer of DeepSeek-V3 has no errors and no warnings") {
  if (shared_dir().empty()) {
    MESSAGE("skipped: the shared tokenizer is not there");
    return;
  }
  check::Findings findings;
  check::check_tokenizer(shared_dir() / "data" / "deepseek-v3-tokenizer", nullptr, nullptr,
                         findings);
  for (const Finding& finding : findings.sorted()) {
    CHECK_MESSAGE(finding.rule->severity == check::Severity::kNote, finding.message);
  }
  CHECK(!findings.has("encodes-otherwise"));
}

TEST_CASE("every rule on tokenizers and templates has a case") {
  std::set<std::string> covered{"special-ids", "encodes-otherwise", "v4-tokenizer"};
  for (const Case& spoilt : cases()) covered.insert(spoilt.rule);
  for (const check::Rule& rule : check::rules()) {
    if (of_other_form(rule)) continue;
    if (rule.group != RuleGroup::kTokenizer && rule.group != RuleGroup::kTemplate) continue;
    CHECK_MESSAGE(covered.count(std::string(rule.name)) == 1, rule.name);
  }
}
