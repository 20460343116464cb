// The table of rules.
#include "libcore/check/rules.h"

#include <doctest/doctest.h>

#include <regex>
#include <set>

#include "libcore/base/error.h"
#include "libcore/check/finding.h"

using namespace ds::check;

TEST_CASE("ids and names are unique, every field is filled") {
  std::set<std::string_view> ids;
  std::set<std::string_view> names;
  for (const Rule& rule : rules()) {
    CHECK_MESSAGE(ids.insert(rule.id).second, rule.id);
    CHECK_MESSAGE(names.insert(rule.name).second, rule.name);
    CHECK(std::regex_match(std::string(rule.id), std::regex("DS[0-9]{3}")));
    CHECK(std::regex_match(std::string(rule.name), std::regex("[a-z0-9.]+(-[a-z0-9.]+)*")));
    CHECK_MESSAGE(rule.summary.ends_with("."), rule.id);
    for (const std::string_view text : {rule.why, rule.fix, rule.source}) {
      CHECK_MESSAGE(text.size() > 5, rule.id);
      CHECK_MESSAGE(!text.ends_with("."), rule.id);
    }
    CHECK(find_rule(rule.id) == &rule);
    CHECK(find_rule(rule.name) == &rule);
    CHECK(rules_markdown().find(rule.id) != std::string::npos);
  }
  CHECK(find_rule("DS998") == nullptr);
  CHECK_THROWS_AS(rule_named("no-such-rule"), ds::Error);
}

TEST_CASE("groups") {
  for (int i = 0; i < kRuleGroups; ++i) {
    const auto group = static_cast<RuleGroup>(i);
    CHECK(parse_group(group_name(group)) == group);
  }
  CHECK(parse_group("Quantization") == RuleGroup::kQuantisation);
  CHECK(!parse_group("compatible"));
}

TEST_CASE("findings: filter, order, limit") {
  Findings all;
  all.begin_section();
  all.add("missing-shard", {.file = "b", .message = "m"});
  all.add("missing-shard", {.file = "a", .message = "m"});
  all.add("truncated-file", {.file = "z", .message = "m"});
  all.begin_section();
  all.add("no-checkpoint", {.file = "a", .message = "m"});
  const auto sorted = all.sorted();
  REQUIRE(sorted.size() == 4);
  CHECK(sorted[0].rule->name == "truncated-file");
  CHECK(sorted[1].file == "a");
  CHECK(sorted[2].file == "b");
  CHECK(sorted[3].section == 2);
  CHECK(!sorted[3].fix.empty());
  CHECK(fingerprint(sorted[1], "x") != fingerprint(sorted[2], "x"));

  Findings few([](const Rule& rule) { return rule.id != "DS021"; });
  few.add("missing-shard", {.message = "m"});
  few.add("stray-file", {.message = "m"});
  CHECK(few.sorted().size() == 1);
  CHECK_THROWS_AS(few.add("no-such-rule", {}), ds::Error);

  Findings many;
  for (int i = 0; i < kKeptPerRule + 5; ++i) many.add("stray-file", {.message = "m"});
  CHECK(many.sorted().size() == static_cast<std::size_t>(kKeptPerRule));
  CHECK(many.dropped().at("DS027") == 5);
}
