// Corruptions by the thousand, each of them found by the rules that should, at the right place.
#include "tests/core/check/mutation.h"

#include <fmt/format.h>

#include <iterator>
#include <sstream>

#include "libcore/check/dataset_check.h"

namespace {

using namespace ds;
using namespace ds::test;
using check::Finding;
namespace fs = std::filesystem;

std::set<std::string> words(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::string>(in), {}};
}

std::vector<std::string> rules_of(const std::vector<Finding>& findings) {
  std::set<std::string> names;
  for (const Finding& finding : findings) names.insert(std::string(finding.rule->name));
  return {names.begin(), names.end()};
}

// What of `findings` the sound thing has not.
std::vector<Finding> beyond(const std::vector<Finding>& findings,
                            const std::vector<Finding>& sound) {
  std::vector<Finding> more;
  for (const Finding& finding : findings) {
    const auto same = [&](const Finding& other) {
      return finding.rule == other.rule && finding.tensor == other.tensor &&
             finding.key == other.key && finding.line == other.line &&
             finding.found == other.found &&
             fs::path(finding.file).filename() == fs::path(other.file).filename();
    };
    if (std::none_of(sound.begin(), sound.end(), same)) more.push_back(finding);
  }
  return more;
}

bool at_place(const Finding& finding, const Place& place) {
  const auto same = [](const std::string& wanted, const std::string& found) {
    return wanted.empty() || wanted == "*" || wanted == found;
  };
  const fs::path file(finding.file);
  const bool folder = place.file == "." && !file.has_extension();
  return (folder || same(place.file, file.filename().string())) &&
         same(place.tensor, finding.tensor) && same(place.key, finding.key) &&
         (place.line == 0 || place.line == finding.line);
}

Place overridden(Place place, const Place& by) {
  if (!by.file.empty()) place.file = by.file;
  if (!by.tensor.empty()) place.tensor = by.tensor;
  if (!by.key.empty()) place.key = by.key;
  if (by.line != 0) place.line = by.line;
  return place;
}

std::string shown(const Place& place) {
  return fmt::format("file {} tensor {} key {} line {}", place.file, place.tensor, place.key,
                     place.line);
}

struct Tally {
  int caught = 0, harmless = 0, unseen = 0;
  int all() const { return caught + harmless + unseen; }
};

// Why `findings` are not what `row` says; empty when they are.
std::string complaint(const Mutation& mutation, const Caught& row,
                      const std::vector<Finding>& findings) {
  const std::set<std::string> wanted = words(row.rules);
  const auto fired = rules_of(findings);
  if (std::set<std::string>(fired.begin(), fired.end()) != wanted) return "other rules";
  const std::string first = std::string(row.rules).substr(0, std::string(row.rules).find(' '));
  const Place place = overridden(mutation.place, row.at);
  for (const Finding& finding : findings) {
    if (finding.rule->name == first && at_place(finding, place)) return "";
  }
  return "not at " + shown(place);
}

Tally run(const MutationGroup& group, std::vector<bool>& used_uncaught, std::string& problems) {
  Tally tally;
  for (const Finding& finding : group.sound) {
    const bool tolerated = std::find(group.tolerated.begin(), group.tolerated.end(),
                                     finding.rule->name) != group.tolerated.end();
    if (!tolerated) problems += "sound " + group.name + ": " + finding.message + "\n";
  }
  std::vector<bool> used(group.caught.size());
  const auto& table = uncaught_mutations();
  for (const Mutation& mutation : group.mutations) {
    std::vector<Finding> findings;
    try {
      findings = beyond(mutation.check(), group.sound);
    } catch (const std::exception& error) {
      problems += fmt::format("{} | {} | {}: threw {}\n", group.name, mutation.subject,
                              mutation.change, error.what());
      continue;
    }
    const auto report = [&](const std::string& what) {
      problems += fmt::format("{} | {} | {} | {}: {}\n", group.name, mutation.subject,
                              mutation.change, fmt::join(rules_of(findings), " "), what);
      for (const Finding& finding : findings) {
        problems += fmt::format("      {}: {} [{}|{}|{}]\n", finding.rule->name, finding.message,
                                finding.tensor, finding.key, finding.line);
      }
    };
    const auto fits = [&](const auto& row) {
      return matches(row.subject, mutation.subject) && matches(row.change, mutation.change);
    };
    const auto row = std::find_if(group.caught.begin(), group.caught.end(), fits);
    if (row != group.caught.end()) {
      used[static_cast<std::size_t>(row - group.caught.begin())] = true;
      const std::string wrong = complaint(mutation, *row, findings);
      if (!wrong.empty()) report(wrong);
      ++tally.caught;
      continue;
    }
    const auto out = std::find_if(table.begin(), table.end(), [&](const Uncaught& one) {
      return group.name == one.group && fits(one);
    });
    if (out == table.end()) {
      report("in no table");
      continue;
    }
    used_uncaught[static_cast<std::size_t>(out - table.begin())] = true;
    if (!findings.empty()) report("listed as not caught");
    ++(out->harmless ? tally.harmless : tally.unseen);
  }
  for (std::size_t i = 0; i < used.size(); ++i) {
    if (used[i]) continue;
    problems += fmt::format("{}: row {} | {} matches nothing\n", group.name,
                            group.caught[i].subject, group.caught[i].change);
  }
  return tally;
}

std::string cell(const std::string& patterns) {
  std::string text;
  for (const char c : patterns) text += c == '|' ? ", " : std::string(1, c);
  return "`" + text + "`";
}

// docs/check-mutations.md.
std::string page(const std::vector<std::pair<MutationGroup, Tally>>& groups) {
  std::string text =
      "# What deepseek-check does and does not catch\n\n"
      "Made by the test over corruptions (`tests/core/check/mutation_test.cpp`), which compares "
      "this page with what it\nsaw. From sound files every field is changed in turn, by rules; "
      "each "
      "change must set off the rules that it should,\nat the file, tensor, line or key that was "
      "changed, or stand in one of the lists below and set off none.\n\n"
      "| group | what is changed | changes | caught | harmless | not visible |\n"
      "|---|---|---:|---:|---:|---:|\n";
  Tally sum;
  for (const auto& [group, tally] : groups) {
    text += fmt::format("| {} | {} | {} | {} | {} | {} |\n", group.name, group.about, tally.all(),
                        tally.caught, tally.harmless, tally.unseen);
    sum.caught += tally.caught;
    sum.harmless += tally.harmless;
    sum.unseen += tally.unseen;
  }
  text += fmt::format("| all | | {} | {} | {} | {} |\n", sum.all(), sum.caught, sum.harmless,
                      sum.unseen);
  for (const bool harmless : {true, false}) {
    text += harmless ? "\n## Harmless\n\nNothing that loads or trains the files sees a difference, "
                       "or the change is one that people make on purpose.\n"
                     : "\n## Not visible\n\nNo file says what is right, and other right files "
                       "look the same: only running the model tells.\n";
    for (const auto& [group, tally] : groups) {
      bool any = false;
      for (const Uncaught& one : uncaught_mutations()) {
        if (group.name != one.group || one.harmless != harmless) continue;
        if (!any) {
          text +=
              fmt::format("\n### {}\n\n| part | change | reason |\n|---|---|---|\n", group.name);
        }
        any = true;
        text += fmt::format("| {} | {} | {} |\n", cell(one.subject), cell(one.change), one.reason);
      }
    }
  }
  return text;
}

}  // namespace

TEST_CASE("corruptions of sound files: each is caught at its place, or listed") {
  std::vector<bool> used(uncaught_mutations().size());
  std::string problems;
  std::vector<std::pair<MutationGroup, Tally>> groups;
  for (const auto& make :
       {file_mutations, header_mutations, index_mutations, tensor_mutations, plain_tensor_mutations,
        data_mutations, config_mutations, token_id_mutations, generation_mutations,
        tokenizer_config_mutations, tokenizer_mutations, adapter_config_mutations,
        adapter_tensor_mutations, dataset_mutations}) {
    MutationGroup group = make();
    const Tally tally = run(group, used, problems);
    MESSAGE(fmt::format("{:24} {:5} caught {:5} harmless {:5} not visible", group.name,
                        tally.caught, tally.harmless, tally.unseen));
    CHECK_MESSAGE(tally.all() == static_cast<int>(group.mutations.size()), group.name);
    groups.emplace_back(std::move(group), tally);
  }
  for (std::size_t i = 0; i < used.size(); ++i) {
    const Uncaught& one = uncaught_mutations()[i];
    if (used[i]) continue;
    problems +=
        fmt::format("{}: listed {} | {} matches nothing\n", one.group, one.subject, one.change);
  }
  CHECK_MESSAGE(problems.empty(), problems);
  const std::string written = page(groups);
  const fs::path copy = build_dir() / "check-mutations.md";
  if (read_text(source_dir() / "docs" / "check-mutations.md") != written) {
    write_text(copy, written);
    FAIL_CHECK("docs/check-mutations.md is not what was seen; copy " << copy.string());
  }
}

TEST_CASE("no rule fires on the models and data that are shipped, but what published files have") {
  const std::set<std::string_view> published{"tokenizer-class", "bos-added-twice", "pad-is-eos"};
  std::vector<fs::path> models{source_dir() / "examples" / "nano-v3"};
  if (shared_dir().empty()) {
    MESSAGE("the shared models are not there");
  } else {
    for (const auto& entry : fs::directory_iterator(shared_dir() / "models")) {
      if (fs::exists(entry.path() / "config.json")) models.push_back(entry.path());
    }
  }
  for (const fs::path& folder : models) {
    check::Findings findings;
    const check::CheckpointTarget target(folder, findings);
    const check::DeepOptions options{.threads = 1, .progress = {}};
    check::check_checkpoint(target, findings, &options);
    check::check_tokenizer(folder, target.json() ? &*target.json() : nullptr,
                           target.config() ? &*target.config() : nullptr, findings);
    for (const Finding& finding : findings.sorted()) {
      CHECK_MESSAGE(published.count(finding.rule->name) == 1, finding.message);
    }
  }
  const Tokenizer tokenizer = Tokenizer::load(models.front());
  for (const auto& entry : fs::directory_iterator(source_dir() / "examples" / "intent")) {
    if (entry.path().extension() != ".jsonl") continue;
    check::Findings findings;
    check::SeenRows seen;
    const check::DatasetCheckOptions options{.tokenizer = &tokenizer, .vocab_size = 4096};
    check::check_dataset(entry.path(), options, seen, findings);
    CHECK_MESSAGE(findings.sorted().empty(), describe(findings.sorted()));
  }
}
