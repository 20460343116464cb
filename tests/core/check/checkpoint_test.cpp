// Every rule on checkpoints has a model that it finds, in the right place, and one that it leaves
// alone.
#include <doctest/doctest.h>

#include <functional>
#include <set>

#include "tests/core/check/checkpoint_cases.h"

namespace {

using namespace ds;
using namespace ds::test;
using check::Finding;
using check::RuleGroup;
using check::Severity;
namespace fs = std::filesystem;
using nlohmann::json;

struct Base {
  const char* name;
  Model model;
  const std::vector<Case>* cases;
  bool deep = false;
};

std::vector<Base> bases() {
  return {{"fp8", sound_model(), &container_cases()},
          {"fp8", sound_model(), &architecture_cases()},
          {"fp8", sound_model(), &quantisation_cases()},
          {"fp8", sound_model(), &deep_cases(), true},
          {"bf16", sound_model({.mtp = true}, false), &plain_cases()},
          {"v2", sound_model({.v2 = true, .q_lora = false}, false), &softmax_cases()}};
}

}  // namespace

TEST_CASE("sound models have no findings at all") {
  for (const TinyModel& tiny :
       {TinyModel{}, TinyModel{.v2 = true}, TinyModel{.v2 = true, .q_lora = false},
        TinyModel{.attention_bias = true}, TinyModel{.tied = true}, TinyModel{.mtp = true},
        TinyModel{.shared_experts = 2, .groups = 1}}) {
    for (const bool fp8 : {false, true}) {
      TempFolder folder("check");
      sound_model(tiny, fp8).write(folder.root());
      const auto findings = check_folder(folder.root(), true);
      CHECK_MESSAGE(findings.empty(), describe(findings));
    }
  }
}

TEST_CASE("each rule finds its spoilt models, in the right place") {
  for (const Base& base : bases()) {
    for (const Case& spoilt : *base.cases) {
      INFO(spoilt.rule);
      TempFolder folder("check");
      Model model = base.model;
      if (spoilt.model) spoilt.model(model);
      model.write(folder.root());
      if (spoilt.files) spoilt.files(folder.root());
      const auto findings = check_folder(folder.root(), base.deep);
      bool placed = false;
      bool found = false;
      for (const Finding& finding : findings) {
        if (finding.rule->name != spoilt.rule) continue;
        found = true;
        const std::string at = finding.file + " " + finding.tensor + " " + finding.key;
        placed = placed || at.find(spoilt.place) != std::string::npos;
        CHECK(!finding.message.empty());
        CHECK(!finding.fix.empty());
      }
      CHECK_MESSAGE(found, describe(findings));
      if (found) CHECK_MESSAGE(placed, describe(findings));
    }
  }
}

TEST_CASE("every rule on checkpoints has a case") {
  std::set<std::string> covered;
  for (const auto* cases : {&container_cases(), &architecture_cases(), &quantisation_cases(),
                            &deep_cases(), &plain_cases(), &softmax_cases()}) {
    for (const Case& spoilt : *cases) covered.insert(spoilt.rule);
  }
  for (const check::Rule& rule : check::rules()) {
    if (of_other_form(rule)) continue;
    if (rule.group != RuleGroup::kContainer && rule.group != RuleGroup::kArchitecture &&
        rule.group != RuleGroup::kQuantisation) {
      continue;
    }
    CHECK_MESSAGE(covered.count(std::string(rule.name)) == 1, rule.name);
  }
}

TEST_CASE("one mistake in a large model is one finding, not thousands") {
  TempFolder folder("check");
  Model model = sound_model();
  for (auto& [name, tensor] : model.tensors) {
    if (name.ends_with("experts.0.up_proj.weight_scale_inv") ||
        name.find("mlp.experts") != std::string::npos) {
      if (name.ends_with("_scale_inv")) model.set(name, "BF16", tensor.shape);
    }
  }
  model.write(folder.root());
  const auto findings = check_folder(folder.root());
  CHECK(findings.size() == 1);
  CHECK_MESSAGE(find(findings, "narrow-scale") != nullptr, describe(findings));
  CHECK(findings.front().message.find("more alike") != std::string::npos);
}
