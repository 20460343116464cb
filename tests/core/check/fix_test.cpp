// Repairs: what they write, what they leave alone, and that the second check is clean.
#include "libcore/check/fix.h"

#include <set>

#include "libcore/base/error.h"
#include "libcore/check/dataset_check.h"
#include "tests/core/check/model_fixture.h"

using namespace ds::test;
using namespace ds::check;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr const char* kIndex = "model.safetensors.index.json";
const std::string kBos = "<\uff5cbegin\u2581of\u2581sentence\uff5c>";
const std::string kEos = "<\uff5cend\u2581of\u2581sentence\uff5c>";

// Rules whose repair a test below has seen.
std::set<std::string>& repaired() {
  static std::set<std::string> names;
  return names;
}

FixPlan plan_folder(const fs::path& folder) {
  return plan_fixes(TargetKind::kCheckpoint, folder, check_folder(folder));
}

// Repairs a folder in place, expects the rule among what was found, and nothing afterwards.
void repair_folder(const fs::path& folder, const std::string& rule) {
  CAPTURE(rule);
  const auto before = check_folder(folder);
  REQUIRE_MESSAGE(find(before, rule) != nullptr, describe(before));
  const FixPlan plan = plan_folder(folder);
  bool said = false;
  for (const Repair& repair : plan.repairs) said = said || repair.rule->name == rule;
  CHECK(said);
  CHECK(plan.left.empty());
  fix_in_place(plan);
  const auto after = check_folder(folder);
  CHECK_MESSAGE(after.empty(), describe(after));
  CHECK(plan_folder(folder).files.empty());
  repaired().insert(rule);
}

std::vector<Finding> check_rows(const fs::path& path) {
  Findings findings;
  SeenRows seen;
  check_dataset(path, {}, seen, findings);
  return findings.sorted();
}

FixPlan plan_rows(const fs::path& path, std::vector<Finding> findings) {
  return plan_fixes(TargetKind::kDataset, path, findings);
}

}  // namespace

TEST_CASE("the index is rebuilt from the headers, and equals the one of a sound checkpoint") {
  const TempFolder folder("fix-index");
  sound_model().write(folder.root() / "sound");
  const std::string sound = json::parse(read_text(folder.root() / "sound" / kIndex)).dump(2) + "\n";
  int number = 0;
  const auto spoilt = [&](auto&& spoil, const std::string& rule) {
    const fs::path path = folder.root() / std::to_string(number++);
    Model model = sound_model();
    spoil(model, path);
    const bool had = fs::exists(path / kIndex);
    const std::string old = had ? read_text(path / kIndex) : "";
    repair_folder(path, rule);
    CHECK(read_text(path / kIndex) == sound);
    CHECK(fs::exists(path / (std::string(kIndex) + ".orig")) == had);
    if (had) CHECK(read_text(path / (std::string(kIndex) + ".orig")) == old);
  };
  spoilt(
      [](Model& model, const fs::path& path) {
        for (const auto& [name, tensor] : model.tensors) model.map[name] = "old.safetensors";
        model.write(path);
      },
      "stale-index");
  spoilt(
      [](Model& model, const fs::path& path) {
        model.index = false;
        model.write(path);
      },
      "no-checkpoint");
  spoilt(
      [](Model& model, const fs::path& path) {
        model.write(path);
        write_text(path / kIndex, "{\"weight_map\": {");
      },
      "index-syntax");
  spoilt(
      [](Model& model, const fs::path& path) {
        model.write(path);
        write_text(path / kIndex, "{\"metadata\": {}}");
      },
      "index-without-map");
  spoilt(
      [](Model& model, const fs::path& path) {
        model.write(path);
        write_text(path / kIndex, std::string(R"({"weight_map": {"a": ")") + kShard1 +
                                      R"(", "a": ")" + kShard2 + "\"}}");
      },
      "index-duplicate");
  spoilt(
      [](Model& model, const fs::path& path) {
        model.map["lm_head.weight"] = kShard2;
        model.write(path);
      },
      "tensor-not-in-shard");
  spoilt(
      [](Model& model, const fs::path& path) {
        model.map["lm_head.weight"] = "";
        model.write(path);
      },
      "tensor-not-in-index");
  spoilt(
      [](Model& model, const fs::path& path) {
        model.index_metadata = {{"total_size", 7}};
        model.write(path);
      },
      "wrong-total-size");
  spoilt(
      [](Model& model, const fs::path& path) {
        model.index_metadata = json::object();
        model.write(path);
      },
      "no-total-size");
}

TEST_CASE("other metadata of the index stays") {
  const TempFolder folder("fix-index-metadata");
  Model model = sound_model();
  model.index_metadata = {{"total_size", 7}, {"total_parameters", 123}};
  model.write(folder.root());
  repair_folder(folder.root(), "wrong-total-size");
  CHECK(json::parse(read_text(folder.root() / kIndex))["metadata"]["total_parameters"] == 123);
}

TEST_CASE("an index is not guessed") {
  const TempFolder folder("fix-refuse");
  int number = 0;
  const auto refused = [&](auto&& spoil, const std::string& word) {
    CAPTURE(word);
    const fs::path path = folder.root() / std::to_string(number++);
    Model model = sound_model();
    spoil(model, path);
    const FixPlan plan = plan_folder(path);
    CHECK(plan.files.empty());
    CHECK(plan.repairs.empty());
    REQUIRE(!plan.left.empty());
    CHECK_MESSAGE(plan.left[0].reason.find(word) != std::string::npos, plan.left[0].reason);
  };
  // The index is gone and so is a shard.
  refused(
      [](Model& model, const fs::path& path) {
        model.index = false;
        model.write(path);
        fs::remove(path / kShard2);
      },
      "shards 2 to 2 are missing");
  refused(
      [](Model& model, const fs::path& path) {
        model.index = false;
        model.write(path);
        fs::remove(path / kShard1);
      },
      "shard 1 of 2 is missing");
  // Files of two sets.
  refused(
      [](Model& model, const fs::path& path) {
        model.write(path);
        write_text(path / kIndex, "{");
        fs::copy_file(path / kShard1, path / "model-00001-of-00009.safetensors");
      },
      "more than one set");
  // A tensor twice.
  refused(
      [](Model& model, const fs::path& path) {
        model.index = false;
        model.write(path);
        fs::remove(path / kShard2);
        fs::copy_file(path / kShard1, path / kShard2);
      },
      "nothing says which counts");
  // A shard cannot be read.
  refused(
      [](Model& model, const fs::path& path) {
        model.index = false;
        model.write(path);
        fs::resize_file(path / kShard2, fs::file_size(path / kShard2) - 1);
      },
      "cannot be read");
  // A tensor of the index is nowhere: it is lost, not misplaced.
  refused(
      [](Model& model, const fs::path& path) {
        model.map["model.gone.weight"] = kShard1;
        model.write(path);
      },
      "in none of the files");
}

TEST_CASE("metadata: format pt is added, everything else stays where it is") {
  const TempFolder folder("fix-metadata");
  int number = 0;
  for (const json& metadata : {json(nullptr), json::object(), json{{"format", "np"}},
                               json{{"who", "me \"and\" \u00e4"}, {"format", "tf"}}}) {
    const fs::path path = folder.root() / std::to_string(number++);
    Model model = sound_model();
    model.metadata = metadata;
    model.write(path);
    const std::string old = read_text(path / kShard1);
    repair_folder(path, "metadata-format");
    CHECK(read_text(path / (std::string(kShard1) + ".orig")) == old);
    const auto before = ds::SafetensorsFile::open(path / (std::string(kShard1) + ".orig"));
    const auto after = ds::SafetensorsFile::open(path / kShard1);
    CHECK(after.metadata().at("format") == "pt");
    if (metadata.contains("who")) CHECK(after.metadata().at("who") == metadata["who"]);
    REQUIRE(before.tensors().size() == after.tensors().size());
    for (std::size_t i = 0; i < before.tensors().size(); ++i) {
      const auto &a = before.tensors()[i], &b = after.tensors()[i];
      CHECK(a.name == b.name);
      CHECK(a.shape == b.shape);
      CHECK(a.dtype == b.dtype);
      REQUIRE(a.bytes() == b.bytes());
      CHECK(std::memcmp(before.data(a), after.data(b), a.bytes()) == 0);
    }
    CHECK(after.tensors().front().begin % 8 == 0);
  }
}

TEST_CASE("a backup that is there is not lost; one of a killed run is no obstacle") {
  const TempFolder folder("fix-backup");
  Model model = sound_model();
  model.index_metadata = {{"total_size", 7}};
  model.metadata = nullptr;
  model.write(folder.root());
  const fs::path index = folder.root() / kIndex;
  const fs::path backup = index.string() + ".orig";
  const std::string old = read_text(index);
  write_text(backup, "mine");
  CHECK_THROWS_AS(fix_in_place(plan_folder(folder.root())), ds::Error);
  CHECK(read_text(index) == old);
  CHECK(read_text(backup) == "mine");
  // Refused before the shards were touched.
  CHECK(!fs::exists(folder.root() / (std::string(kShard1) + ".orig")));
  // The state between the two steps.
  fs::remove(backup);
  fs::create_hard_link(index, backup);
  fix_in_place(plan_folder(folder.root()));
  CHECK(read_text(backup) == old);
  CHECK(check_folder(folder.root()).empty());
}

TEST_CASE("a cache that a link leads into is not touched") {
  const TempFolder folder("fix-link");
  Model model = sound_model();
  model.metadata = nullptr;
  model.write(folder.root() / "model");
  fs::create_directory(folder.root() / "blobs");
  const fs::path shard = folder.root() / "model" / kShard1, blob = folder.root() / "blobs" / "b";
  fs::rename(shard, blob);
  fs::create_symlink("../blobs/b", shard);
  const std::string old = read_text(blob);
  fix_in_place(plan_folder(folder.root() / "model"));
  CHECK(read_text(blob) == old);
  CHECK(!fs::is_symlink(shard));
  CHECK(read_text(shard.string() + ".orig") == old);
  CHECK(check_folder(folder.root() / "model").empty());
}

TEST_CASE("into another folder: whole, the old one as it was") {
  const TempFolder folder("fix-into");
  Model model = sound_model();
  model.index_metadata = {{"total_size", 7}};
  model.write(folder.root() / "old");
  fs::create_directory(folder.root() / "old" / "extra");
  write_text(folder.root() / "old" / "extra" / "note.txt", "note");
  const std::string index = read_text(folder.root() / "old" / kIndex);
  const FixPlan plan = plan_folder(folder.root() / "old");
  fix_into(plan, folder.root() / "old", folder.root() / "new");
  CHECK(check_folder(folder.root() / "new").empty());
  CHECK(read_text(folder.root() / "old" / kIndex) == index);
  CHECK(!fs::exists(folder.root() / "old" / (std::string(kIndex) + ".orig")));
  CHECK(read_text(folder.root() / "new" / "extra" / "note.txt") == "note");
  CHECK(read_text(folder.root() / "new" / kShard1) == read_text(folder.root() / "old" / kShard1));
  CHECK_THROWS_AS(fix_into(plan, folder.root() / "old", folder.root() / "new"), ds::Error);
  // Only the two folders: nothing half made is left.
  CHECK(std::distance(fs::directory_iterator(folder.root()), fs::directory_iterator()) == 2);
  CHECK_THROWS_AS(fix_into(plan, folder.root() / "old", folder.root() / "no" / "new"), ds::Error);
  CHECK(std::distance(fs::directory_iterator(folder.root()), fs::directory_iterator()) == 2);
}

TEST_CASE("rows: tokens are repaired, every other byte stays") {
  const TempFolder folder("fix-rows");
  const fs::path path = folder.root() / "data.jsonl";
  const std::string keep1 =
      R"({ "messages" : [{"role":"user","content":"a < b"},{"role":"assistant","content":"\u00e9"}] })";
  const std::string keep2 =
      R"({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]})";
  const std::string bos =
      R"({"messages": [{"role": "user", "content": ")" + kBos + kBos +
      R"(hi"}, {"role": "assistant", "content": "y1"}], "id": 1.20e4, "id": 12345678901234567890123})";
  const std::string miss =
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant",)"
      R"( "content": "see <|tool_sep|> and < think >a</think> b<|end_of_sentence|>"}]})";
  write_text(path, "\xef\xbb\xbf" + keep1 + "\r\n" + bos + "\n\n" + miss + "\n" + keep2);
  const auto before = check_rows(path);
  REQUIRE_MESSAGE(find(before, "bos-in-text") != nullptr, describe(before));
  REQUIRE(find(before, "near-miss-in-text") != nullptr);
  const FixPlan plan = plan_rows(path, before);
  CHECK(plan.left.empty());
  REQUIRE(plan.repairs.size() == 5);
  CHECK(plan.repairs[0].line == 2);
  CHECK(plan.repairs[0].key == "messages[0].content");
  CHECK(plan.repairs[0].before == kBos + kBos);
  CHECK(plan.repairs[1].before == "<|tool_sep|>");
  CHECK(plan.repairs[1].after == "<\uff5ctool\u2581sep\uff5c>");
  CHECK(plan.repairs[4].rule->name == "eos-in-text");
  fix_in_place(plan);
  const std::string text = read_text(path);
  CHECK(text.starts_with("\xef\xbb\xbf" + keep1 + "\r\n"));
  CHECK(text.ends_with("\n" + keep2));
  CHECK(
      text.find(
          R"({"messages": [{"role": "user", "content": "hi"}, )"
          R"({"role": "assistant", "content": "y1"}], "id": 1.20e4, "id": 12345678901234567890123})") !=
      std::string::npos);
  CHECK(text.find("see <\uff5ctool\u2581sep\uff5c> and <think>a</think> b\"") != std::string::npos);
  const auto after = check_rows(path);
  REQUIRE_MESSAGE(after.size() == 1, describe(after));
  CHECK(after[0].rule->name == "duplicate-key");  // "id": which one is meant is not ours to say
  CHECK(plan_rows(path, after).files.empty());
  repaired().insert({"bos-in-text", "near-miss-in-text"});
}

TEST_CASE("rows: begin and end tokens that were misspelt do not become tokens too many") {
  const TempFolder folder("fix-bos");
  const fs::path path = folder.root() / "data.json";
  write_text(path, R"([{"text": "<|begin_of_sentence|>once"},
  {"prompt": "p", "completion": "c<|end_of_sentence|>"}, {"text": "a<|User|>b"}])");
  fix_in_place(plan_rows(path, check_rows(path)));
  const json rows = json::parse(read_text(path));
  CHECK(rows[0]["text"] == "once");
  CHECK(rows[1]["completion"] == "c");
  CHECK(rows[2]["text"] == "a<\uff5cUser\uff5c>b");
  CHECK(find(check_rows(path), "near-miss-in-text") == nullptr);
  CHECK(find(check_rows(path), "bos-in-text") == nullptr);
}

TEST_CASE("rows: an end token is removed where the check says so") {
  const TempFolder folder("fix-eos");
  const fs::path path = folder.root() / "data.jsonl";
  write_text(path, R"({"prompt": "p", "completion": "c)" + kEos + "\"}\n");
  const FixPlan plan = plan_rows(path, {Finding{.rule = &rule_named("eos-in-text")}});
  fix_in_place(plan);
  CHECK(read_text(path) == "{\"prompt\": \"p\", \"completion\": \"c\"}\n");
  repaired().insert("eos-in-text");
}

TEST_CASE("rows: what would speak in another role, or may be another model's, is left and said") {
  const TempFolder folder("fix-left");
  const fs::path path = folder.root() / "data.jsonl";
  const std::string text =
      R"({"messages": [{"role": "user", "content": "<|User|> hi"}, {"role": "assistant", "content": "ok <|user|>"}]})"
      "\nno json <|User|>\n";
  write_text(path, text);
  const FixPlan plan = plan_rows(path, check_rows(path));
  CHECK(plan.files.empty());
  REQUIRE(plan.left.size() == 2);
  CHECK(plan.left[0].reason.find("another role") != std::string::npos);
  CHECK(plan.left[1].reason.find("another model") != std::string::npos);
  const fs::path table = folder.root() / "data.csv";
  write_text(table, "text,label\n<|User|>,1\n");
  const auto found = check_rows(table);
  REQUIRE_MESSAGE(find(found, "near-miss-in-text") != nullptr, describe(found));
  const FixPlan csv = plan_rows(table, found);
  CHECK(csv.files.empty());
  REQUIRE(csv.left.size() == 1);
  CHECK(csv.left[0].reason.find("JSON") != std::string::npos);
}

TEST_CASE("every rule that says it is fixable was repaired above") {
  if (repaired().empty()) {
    MESSAGE("skipped: the cases above were not run");
    return;
  }
  for (const Rule& rule : rules()) {
    CHECK_MESSAGE(rule.fixable == (repaired().count(std::string(rule.name)) > 0), rule.name);
  }
}
