// Migration to V3.1, stacks and this machine: each rule, and the cases of
// reference/field-reports.md that are theirs.
#include "libcore/check/compatibility.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <functional>
#include <set>

#include "libcore/check/machine.h"
#include "tests/core/check/adapter_fixture.h"
#include "tests/core/check/tokenizer_fixture.h"

namespace {

using namespace ds;
using namespace ds::test;
using check::CompatibilityRow;
using check::CompatibilityRows;
using check::Generation;
using check::InputFacts;
using check::RuleGroup;
using check::Stack;
using check::TargetKind;
using check::Verdict;
namespace fs = std::filesystem;
using nlohmann::json;

const std::string kMatrix = "model.layers.0.self_attn.o_proj.weight";

// ---- inputs

using Spoil = std::function<void(Model&)>;
using SpoilFiles = std::function<void(TokenizerFiles&)>;

// The tiny FP8 model with the small shipped tokenizer (V3.1's template and think tokens).
TokenizerFiles tiny_tokenizer() {
  TokenizerFiles files = nano_tokenizer();
  files.config = nullptr;
  files.generation = nullptr;
  return files;
}

InputFacts facts(const Spoil& spoil = {}, bool fp8 = true, const SpoilFiles& files = {},
                 const std::function<void(const fs::path&)>& folder = {}) {
  TempFolder temp("compatibility");
  Model model = sound_model({.mtp = true}, fp8);
  model.config["vocab_size"] = 4096;
  model.config["bos_token_id"] = 0;
  model.config["eos_token_id"] = 1;
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
    model.set(name, "BF16", {4096, 64});
  }
  if (spoil) spoil(model);
  model.write(temp.root());
  TokenizerFiles tokenizer = tiny_tokenizer();
  if (files) files(tokenizer);
  tokenizer.write(temp.root());
  if (folder) folder(temp.root());
  return check::examine({TargetKind::kCheckpoint, temp.root()}, nullptr);
}
InputFacts tokenizer_facts(const TokenizerFiles& files) {
  TempFolder temp("compatibility");
  TokenizerFiles alone = files;
  alone.config = nullptr;
  alone.write(temp.root());
  return check::examine({TargetKind::kTokenizer, temp.root()}, nullptr);
}
InputFacts adapter_facts(const std::function<void(Adapter&)>& spoil = {}) {
  TempFolder temp("compatibility");
  Adapter adapter = sound_adapter();
  if (spoil) spoil(adapter);
  adapter.write(temp.root());
  const ModelConfig base = parse_model_config(json::parse(tiny_config({})), "config.json");
  return check::examine({TargetKind::kAdapter, temp.root()}, &base);
}
CompatibilityRows data(const std::string& rows, Generation from = Generation::kV3) {
  TempFolder temp("compatibility");
  write_text(temp.root() / "rows.jsonl", rows);
  return check::check_dataset_migration(temp.root() / "rows.jsonl", from);
}
CompatibilityRows migrate(const InputFacts& input) {
  return check::check_migration(input, Generation::kV3);
}

std::function<void(Adapter&)> setting(const char* key, const json& value) {
  return [=](Adapter& adapter) { adapter.config[key] = value; };
}
void adapt_kv_b(Adapter& adapter) {
  for (const char* layer : {"0", "1", "2"}) {
    adapter.pair(std::string(layer) + ".self_attn.kv_b_proj", 16, 128);
  }
  adapter.config["target_modules"].push_back("kv_b_proj");
}
// A template that renders as V3's does.
void v3_template(TokenizerFiles& files) {
  files.settings["chat_template"] =
      "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content "
      "}}{% else %}{{ '<｜Assistant｜>' + m.content }}{% endif %}{% endfor %}";
}
void ue8m0(Model& model) { model.config["quantization_config"]["scale_fmt"] = "ue8m0"; }
void power_scales(Model& model) {
  for (auto& [name, tensor] : model.tensors) {
    if (!name.ends_with("_scale_inv")) continue;
    const float scale = 0.0009765625f;
    for (std::size_t at = 0; at < tensor.data.size(); at += 4) {
      std::memcpy(tensor.data.data() + at, &scale, 4);
    }
  }
}
// A weight of one and a half blocks.
void ragged(Model& model) {
  model.set(kMatrix, "F8_E4M3", {64, 192});
  model.set(kMatrix + "_scale_inv", "F32", {1, 2});
  model.config["v_head_dim"] = 48;
}

// ---- answers

const CompatibilityRow* row(const CompatibilityRows& rows, std::string_view requirement) {
  for (const CompatibilityRow& one : rows) {
    if (one.requirement == requirement) return &one;
  }
  return nullptr;
}
bool open(const CompatibilityRows& rows, std::string_view rule) {
  for (const CompatibilityRow& one : rows) {
    if (one.rule == rule && one.verdict != Verdict::kOk) return true;
  }
  return false;
}
std::string describe_rows(const CompatibilityRows& rows) {
  std::string text;
  for (const CompatibilityRow& one : rows) {
    text += fmt::format("{} {} {} [{}]: {}\n", one.subject, verdict_name(one.verdict),
                        one.requirement, one.rule, one.detail);
  }
  return text;
}

// ---- one failing and one passing case a rule

struct Case {
  const char* rule;
  std::function<CompatibilityRows()> bad;
  std::function<CompatibilityRows()> good;
};

std::function<CompatibilityRows()> on(Stack stack, const Spoil& spoil = {}, bool fp8 = true,
                                      const SpoilFiles& files = {},
                                      const std::function<void(const fs::path&)>& folder = {}) {
  return [=] { return check_stack(facts(spoil, fp8, files, folder), stack); };
}
std::function<CompatibilityRows()> adapter_on(Stack stack,
                                              const std::function<void(Adapter&)>& spoil = {}) {
  return [=] { return check_stack(adapter_facts(spoil), stack); };
}
std::function<CompatibilityRows()> moved(const Spoil& spoil = {}, bool fp8 = true,
                                         const SpoilFiles& files = {}) {
  return [=] { return migrate(facts(spoil, fp8, files)); };
}
std::function<CompatibilityRows()> moved_tokenizer(const SpoilFiles& spoil) {
  return [=] {
    TokenizerFiles files = v3_like_tokenizer();
    spoil(files);
    return migrate(tokenizer_facts(files));
  };
}
std::function<CompatibilityRows()> rows_of(const std::string& text) {
  return [=] { return data(text); };
}
check::MachineInfo machine() {
  check::MachineInfo info;
  info.avx2 = true;
  info.memory = {std::uint64_t{1} << 40, std::uint64_t{1} << 39};
  return info;
}
std::function<CompatibilityRows()> machine_of(const std::function<void(check::MachineInfo&)>& f) {
  return [=] {
    check::MachineInfo info = machine();
    f(info);
    return machine_rows(info, true);
  };
}
std::function<CompatibilityRows()> work(std::uint64_t memory, std::uint64_t disk) {
  return [=] {
    check::MachineInfo info = machine();
    info.memory.available = memory;
    return machine_work_rows(facts(), info, disk);
  };
}
void search_tokens(TokenizerFiles& files) {
  files.respell("<｜place▁holder▁no▁796｜>", "<｜search▁begin｜>");
  files.respell("<｜place▁holder▁no▁797｜>", "<｜search▁end｜>");
}

const std::string kPlain =
    R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]})"
    "\n";
const std::string kV3Call =
    R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":)"
    R"("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"}]})"
    "\n";

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases{
      {"migration-architecture", moved([](Model& m) { m.config["model_type"] = "deepseek_v32"; }),
       moved()},
      {"migration-template", moved({}, true, v3_template), moved()},
      {"migration-tool-calls", moved({}, true, v3_template), moved()},
      {"migration-think-tokens",
       moved({}, true,
             [](TokenizerFiles& f) {
               f.respell("<think>", "<｜one｜>");
               f.respell("</think>", "<｜two｜>");
             }),
       moved()},
      {"migration-search-tokens", moved_tokenizer([](TokenizerFiles&) {}),
       moved_tokenizer(search_tokens)},
      {"migration-scale-format", moved(), moved({}, false)},
      {"migration-scale-format", moved(power_scales), moved([](Model& m) {
         power_scales(m);
         ue8m0(m);
       })},
      {"migration-scale-mantissa", moved(ue8m0), moved([](Model& m) {
         power_scales(m);
         ue8m0(m);
       })},
      {"migration-config-key", moved([](Model& m) {
         for (auto at = m.tensors.begin(); at != m.tensors.end();) {
           at = at->first.find("layers.3.") != std::string::npos ? m.tensors.erase(at)
                                                                 : std::next(at);
         }
       }),
       moved()},
      {"migration-config-key",
       moved_tokenizer([](TokenizerFiles& f) { f.settings["model_max_length"] = 16384; }),
       moved_tokenizer([](TokenizerFiles& f) { f.settings["model_max_length"] = 131072; })},
      {"migration-adapter-base",
       [] {
         return migrate(
             adapter_facts(setting("base_model_name_or_path", "deepseek-ai/DeepSeek-V3")));
       },
       [] {
         return migrate(
             adapter_facts(setting("base_model_name_or_path", "deepseek-ai/DeepSeek-V3.1")));
       }},
      {"migration-adapter-vocabulary",
       [] {
         return migrate(adapter_facts([](Adapter& a) {
           a.model.set("base_model.model.lm_head.weight", "F32", {300, 64}, kAdapterFile);
         }));
       },
       [] { return migrate(adapter_facts()); }},
      {"migration-data-calls", rows_of(kV3Call), rows_of(kPlain)},
      {"migration-data-calls",
       rows_of(
           R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"},)"
           R"({"role":"user","content":"<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>1<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"},)"
           R"({"role":"assistant","content":"b"}]})"),
       rows_of(kPlain)},
      {"migration-data-text", rows_of(R"({"text":"<｜User｜>q<｜Assistant｜>a"})"),
       rows_of(R"({"text":"<｜User｜>q<｜Assistant｜></think>a"})")},
      {"migration-data-text",
       rows_of(R"({"prompt":"<｜User｜>q<｜Assistant｜>","completion":"a"})"),
       rows_of(R"({"prompt":"<｜User｜>q<｜Assistant｜></think>","completion":"a"})")},
      {"migration-data-tokens",
       rows_of(R"({"input_ids":[0,128803,5,128804,6],"labels":[0,0,5,0,6]})"),
       rows_of(R"({"input_ids":[0,128803,5,128804,128799],"labels":[0,0,5,0,6]})")},
      {"migration-data-history",
       rows_of(
           R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"<think>x</think>a"},)"
           R"({"role":"user","content":"q"},{"role":"assistant","content":"b"}]})"),
       rows_of(
           R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"<think>x</think>a"}]})")},
      {"migration-data-think",
       rows_of(
           R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"<think>\nx\n</think>\n\na"}]})"),
       rows_of(
           R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"<think>x</think>a"}]})")},
      {"migration-data-thinking",
       rows_of(
           R"({"thinking":true,"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"messages":)"
           R"([{"role":"user","content":"q"},{"role":"assistant","content":"a"}]})"),
       rows_of(
           R"({"thinking":true,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]})")},
      {"migration-data-forms",
       rows_of(
           R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a","tool_calls":[]}]})"),
       rows_of(kPlain)},
      {"target-layout", on(Stack::kLlamaCpp), on(Stack::kVllm)},
      {"target-layout", on(Stack::kInference), on(Stack::kSglang)},
      {"target-files", on(Stack::kTransformers, [](Model& m) { m.metadata = nullptr; }),
       on(Stack::kTransformers)},
      {"target-files",
       on(Stack::kVllm, {}, true, {}, [](const fs::path& f) { fs::remove(f / kShard2); }),
       on(Stack::kVllm)},
      {"target-config",
       on(Stack::kVllm,
          [](Model& m) {
            m.config["architectures"] = {"Qwen2ForCausalLM"};
            m.config["model_type"] = "qwen2";
          }),
       on(Stack::kVllm)},
      {"target-dtype",
       on(Stack::kTransformers, [](Model& m) { m.config.erase("quantization_config"); }),
       on(Stack::kTransformers)},
      {"target-dtype",
       on(Stack::kSglang,
          [](Model& m) {
            const std::string gate = "model.layers.0.mlp.gate_proj.weight";
            m.set(gate, "BF16", m.at(gate).shape);
            m.tensors.erase(gate + "_scale_inv");
          }),
       on(Stack::kSglang)},
      {"target-scales",
       on(Stack::kTransformers,
          [](Model& m) {
            ue8m0(m);
            for (auto& [name, tensor] : m.tensors) {
              if (name.ends_with("_scale_inv")) m.set(name, "F8_E8M0", tensor.shape);
            }
          }),
       on(Stack::kTransformers)},
      {"target-scales", on(Stack::kVllm, ue8m0),
       on(Stack::kVllm,
          [](Model& m) {
            ue8m0(m);
            power_scales(m);
          })},
      {"target-block-edges", on(Stack::kTransformers, ragged), on(Stack::kVllm, ragged)},
      {"target-block-edges", on(Stack::kTransformers, ragged),
       [] { return check_stack(facts(ragged), Stack::kTransformers, true); }},
      {"target-tokenizer",
       on(Stack::kVllm, {}, true,
          [](TokenizerFiles& f) { f.settings["eos_token"] = "<｜no▁such｜>"; }),
       on(Stack::kVllm)},
      {"target-template",
       on(Stack::kVllm, {}, true,
          [](TokenizerFiles& f) {
            f.settings["chat_template"] =
                f.settings["chat_template"].get<std::string>() + "{% set x = y | tojson}";
          }),
       on(Stack::kVllm)},
      {"target-adapter-keys",
       adapter_on(Stack::kVllm,
                  [](Adapter& a) {
                    a.rename([](const std::string& name) {
                      return "base_model.model.language_model." + name.substr(17);
                    });
                  }),
       adapter_on(Stack::kVllm)},
      {"target-adapter-feature", adapter_on(Stack::kVllm, setting("use_dora", true)),
       adapter_on(Stack::kVllm)},
      {"target-adapter-feature",
       adapter_on(Stack::kSglang, setting("modules_to_save", {"lm_head"})),
       adapter_on(Stack::kSglang)},
      {"target-adapter-feature",
       adapter_on(Stack::kVllm,
                  [](Adapter& a) {
                    for (const char* layer : {"0", "1", "2"}) {
                      a.pair(std::string(layer) + ".self_attn.o_proj", 64, 64, 1024);
                    }
                    a.config["rank_pattern"] = {{"o_proj", 1024}};
                  }),
       adapter_on(Stack::kVllm)},
      {"target-adapter-modules", adapter_on(Stack::kVllm, adapt_kv_b), adapter_on(Stack::kVllm)},
      {"target-adapter-modules", adapter_on(Stack::kSglang, adapt_kv_b),
       adapter_on(Stack::kSglang)},
      {"target-adapter-modules", adapter_on(Stack::kLlamaCpp, adapt_kv_b),
       adapter_on(Stack::kLlamaCpp)},
      {"target-adapter-version", adapter_on(Stack::kPeft, setting("use_rslora", true)),
       adapter_on(Stack::kPeft)},
      {"target-adapter-version",
       adapter_on(Stack::kPeft, [](Adapter& a) { a.pair("1.mlp.shared_experts.up_proj", 64, 32); }),
       adapter_on(Stack::kPeft)},
      {"target-adapter-version",
       adapter_on(Stack::kPeft, [](Adapter& a) { a.pair("1.mlp.experts", 32, 64, 32); }),
       adapter_on(Stack::kPeft)},
      {"machine-isa", machine_of([](check::MachineInfo& m) { m.avx2 = false; }),
       machine_of([](check::MachineInfo&) {})},
      {"machine-driver", machine_of([](check::MachineInfo& m) {
         m.driver = "470.1";
         m.cublas = "libcublasLt.so.12";
       }),
       machine_of([](check::MachineInfo& m) {
         m.driver = "580.65.06";
         m.cublas = "libcublasLt.so.13";
       })},
      {"machine-driver", machine_of([](check::MachineInfo& m) { m.driver = "580.65.06"; }),
       machine_of([](check::MachineInfo&) {})},
      {"machine-memory", work(1000, std::uint64_t{1} << 40),
       work(std::uint64_t{1} << 30, std::uint64_t{1} << 40)},
      {"machine-disk", work(std::uint64_t{1} << 30, 1000),
       work(std::uint64_t{1} << 30, std::uint64_t{1} << 40)},
  };
  return kCases;
}

}  // namespace

TEST_CASE(
    "each rule: a case that fails and one that passes; docs/compatibility.md names the rows") {
  const std::string page = read_text(source_dir() / "docs" / "compatibility.md");
  const auto named = [&](const CompatibilityRows& rows) {
    for (const CompatibilityRow& one : rows) {
      CHECK_MESSAGE(page.find(one.requirement) != std::string::npos, one.requirement);
      // The tables of stacks have no ids.
      if (one.rule.empty() || one.section == "target") continue;
      CHECK_MESSAGE(page.find(check::rule_named(one.rule).id) != std::string::npos, one.rule);
    }
  };
  for (const Case& one : cases()) {
    INFO(std::string(one.rule));
    const CompatibilityRows bad = one.bad();
    CHECK_MESSAGE(open(bad, one.rule), describe_rows(bad));
    const CompatibilityRows good = one.good();
    CHECK(!good.empty());
    CHECK_MESSAGE(!open(good, one.rule), describe_rows(good));
    check::Findings findings;
    add_findings(bad, true, "", findings);
    named(bad);
    named(good);
    const auto found = findings.sorted();
    const check::Finding* finding = find(found, one.rule);
    CHECK(finding != nullptr);
    if (finding == nullptr) continue;
    CHECK(!finding->fix.empty());
    CHECK(!finding->file.empty());
  }
}

TEST_CASE("every rule on compatibility has a case") {
  // Notes that sum up, see the test below; and two of forms_compatibility_test.cpp.
  std::set<std::string> covered{"migration-open", "target-not-ready", "target-shape",
                                "target-adapter-graph"};
  for (const Case& one : cases()) covered.insert(one.rule);
  for (const check::Rule& rule : check::rules()) {
    if (rule.group != RuleGroup::kCompatibility) continue;
    CHECK_MESSAGE(covered.count(std::string(rule.name)) == 1, rule.name);
  }
}

TEST_CASE("not asked: one note a subject, none where nothing is refused") {
  check::Findings open_steps;
  add_findings(migrate(facts({}, true, v3_template)), false, "migration-open", open_steps);
  REQUIRE(open_steps.sorted().size() == 1);
  CHECK(open_steps.sorted()[0].rule->name == "migration-open");
  CHECK(open_steps.sorted()[0].found.find("chat template") != std::string::npos);
  check::Findings none;
  add_findings(migrate(facts({}, false)), false, "migration-open", none);
  CHECK_MESSAGE(none.sorted().empty(), describe(none.sorted()));

  CompatibilityRows all;
  for (int i = 0; i < check::kStacks; ++i) {
    for (CompatibilityRow& one : check_stack(facts(), static_cast<Stack>(i))) all.push_back(one);
  }
  check::Findings stacks;
  add_findings(all, false, "target-not-ready", stacks);
  CHECK(stacks.sorted().size() == 2);  // llama.cpp and the demo, which read other layouts
  for (const check::Finding& finding : stacks.sorted()) {
    CHECK(finding.rule->severity == check::Severity::kNote);
  }
}

TEST_CASE("a sound model of 16 bits is refused by none that reads its layout") {
  for (const Stack stack : {Stack::kTransformers, Stack::kPeft, Stack::kVllm, Stack::kSglang}) {
    const CompatibilityRows rows = check_stack(facts({}, false), stack);
    REQUIRE(rows.size() >= 2);
    for (const CompatibilityRow& one : rows) {
      CHECK_MESSAGE(one.verdict != Verdict::kRefuses, describe_rows({one}));
      CHECK(one.action.empty() == (one.verdict == Verdict::kOk));
      CHECK(!one.source.empty());
    }
  }
}

TEST_CASE("FP8: the device decides") {
  for (const Stack stack :
       {Stack::kTransformers, Stack::kVllm, Stack::kSglang, Stack::kInference}) {
    INFO(stack_name(stack));
    CHECK(row(check_stack(facts(), stack), "dtype")->verdict == Verdict::kNeeds);
    CHECK(row(check_stack(facts(), stack, true), "dtype")->verdict == Verdict::kOk);
    CHECK(row(check_stack(facts(), stack, false), "dtype")->verdict == Verdict::kNeeds);
    CHECK(row(check_stack(facts({}, false), stack), "dtype")->verdict == Verdict::kOk);
  }
}

TEST_CASE("ids of V3.1's think tokens, in a vocabulary of V3's size") {
  const auto think = [](const SpoilFiles& spoil) {
    TokenizerFiles files = v3_like_tokenizer();
    spoil(files);
    return *row(migrate(tokenizer_facts(files)), "think tokens");
  };
  CHECK(think([](TokenizerFiles&) {}).verdict == Verdict::kOk);
  const CompatibilityRow v3 = think([](TokenizerFiles& files) {
    files.respell("<think>", "<｜place▁holder▁no▁798｜>");
    files.respell("</think>", "<｜place▁holder▁no▁799｜>");
  });
  CHECK(v3.verdict == Verdict::kNeeds);
  CHECK(v3.detail.find("holder▁no▁798") != std::string::npos);
  const CompatibilityRow swapped = think([](TokenizerFiles& files) {
    files.added("<think>")["id"] = 128799;
    files.added("</think>")["id"] = 128798;
    // The file lists tokens by id.
    std::swap(files.added("<think>"), files.added("</think>"));
  });
  CHECK(swapped.verdict == Verdict::kNeeds);
  CHECK(swapped.detail.find("128799 and 128798") != std::string::npos);
}

TEST_CASE("rows of data: numbers, first line, one row a kind") {
  const CompatibilityRows rows = data(kPlain + kV3Call + kPlain + kV3Call);
  const CompatibilityRow* calls = row(rows, "tool calls");
  REQUIRE(calls != nullptr);
  CHECK(calls->line == 2);
  CHECK(calls->detail.find("2 of 4 rows") != std::string::npos);
  CHECK(calls->action.find("deepseek-convert data") != std::string::npos);
  CHECK(row(rows, "tokens") == nullptr);
  CHECK(row(rows, "rendered text") == nullptr);
  // A file that cannot be read is the plain check's business.
  CHECK(data("\xff\xfe").empty());
  // R1 is read as V3 is.
  CHECK(row(data(kV3Call, Generation::kR1), "tool calls")->subject == "r1 to v3.1");
}

TEST_CASE("names of stacks and generations") {
  for (int i = 0; i < check::kStacks; ++i) {
    const auto stack = static_cast<Stack>(i);
    CHECK(check::parse_stack(stack_name(stack)) == stack);
  }
  CHECK(check::parse_stack("LLAMA_CPP") == Stack::kLlamaCpp);
  CHECK(!check::parse_stack("ollama"));
  CHECK(check::parse_generation("V3.1") == Generation::kV31);
  CHECK(!check::parse_generation("v4"));
}

TEST_CASE("the machine, out of files of the system") {
  TempFolder temp("machine");
  const fs::path proc = temp.root() / "proc";
  fs::create_directories(proc / "driver" / "nvidia" / "gpus" / "0000:01:00.0");
  write_text(proc / "cpuinfo",
             "processor\t: 0\nmodel name\t: A Processor\nflags\t\t: fpu avx2 fma f16c avx512f "
             "avx512bw avx512dq avx512vl amx_tile amx_bf16\n");
  write_text(proc / "meminfo", "MemTotal: 1000 kB\nMemAvailable: 500 kB\n");
  write_text(proc / "driver" / "nvidia" / "version",
             "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\nGCC\n");
  write_text(proc / "driver" / "nvidia" / "gpus" / "0000:01:00.0" / "information",
             "Model: \t\t NVIDIA H200\nIRQ: 1\n");
  const SystemPaths paths{.proc = proc, .cgroup = temp.root() / "none"};
  std::vector<std::string> asked;
  const auto info = check::examine_machine(paths, [&](const std::string& name) {
    asked.push_back(name);
    return name == "libcublasLt.so.12";
  });
  CHECK(info.processor == "A Processor");
  CHECK(info.avx2);
  CHECK(info.avx512);
  CHECK(info.amx);
  CHECK(info.driver == "580.65.06");
  CHECK(info.gpus == std::vector<std::string>{"NVIDIA H200"});
  CHECK(info.cublas == "libcublasLt.so.12");
  CHECK(row(machine_rows(info, true), "GPU")->verdict == Verdict::kOk);
  CHECK(row(machine_rows(info, false), "GPU")->verdict == Verdict::kNeeds);

  // A machine that says nothing; "avx2" is no part of another word.
  write_text(proc / "cpuinfo", "flags : avx2x fma f16c\n");
  fs::remove_all(proc / "driver");
  const auto bare = check::examine_machine(paths, [](const std::string&) { return true; });
  CHECK(!bare.avx2);
  CHECK(bare.driver.empty());
  CHECK(bare.cublas.empty());
  CHECK(row(machine_rows(bare, true), "GPU")->verdict == Verdict::kOk);
}

TEST_CASE("a base that does not fit is streamed") {
  const std::uint64_t disk = std::uint64_t{1} << 40;
  CHECK(row(work(std::uint64_t{1} << 40, disk)(), "train LoRA")->detail.find("fits") !=
        std::string::npos);
  InputFacts large = facts();
  large.tensors.bytes = std::uint64_t{1} << 40;
  check::MachineInfo info = machine();
  info.memory.available = std::uint64_t{1} << 30;
  const CompatibilityRows rows = machine_work_rows(large, info, disk);
  CHECK(row(rows, "train LoRA")->verdict == Verdict::kOk);
  CHECK(row(rows, "train LoRA")->detail.find("--weight_streaming") != std::string::npos);
}

// The reports of reference/field-reports.md that these checks are for: id, what a user has, and
// what must be said of it. Those that are not here belong to rules of the plain checks or to other
// programs.
TEST_CASE("field reports") {
  struct Report {
    const char* id;
    const char* requirement;
    std::function<CompatibilityRows()> rows;
  };
  const auto fused = [](Adapter& a) { a.pair("1.mlp.experts", 32, 64, 32); };
  const auto negative = [](Model& m) {
    m.config["n_group"] = 2;
    for (auto& [name, tensor] : m.tensors) {
      if (!name.ends_with("e_score_correction_bias")) continue;
      const float bias = -5.0f;
      std::memcpy(tensor.data.data(), &bias, 4);
    }
  };
  const std::vector<Report> reports{
      {"FR-003 004", "experts", adapter_on(Stack::kVllm, fused)},
      {"FR-004", "PEFT 0.18", adapter_on(Stack::kPeft, fused)},
      {"FR-006", "routing and scale", on(Stack::kTransformers, negative)},
      {"FR-008", "routing and scale",
       [] {
         InputFacts v2 = facts();
         v2.config->model_class = ModelClass::kV2;
         return check_stack(v2, Stack::kTransformers);
       }},
      {"FR-010", "dtype", on(Stack::kPeft)},
      {"FR-012", "prediction layer", on(Stack::kTransformers)},
      {"FR-012", "prediction layer", on(Stack::kLlamaCpp)},
      {"FR-013", "keys",
       adapter_on(Stack::kVllm,
                  [](Adapter& a) {
                    a.rename([](const std::string& name) {
                      return "base_model.model." + name.substr(23);
                    });
                  })},
      {"FR-015", "rsLoRA", adapter_on(Stack::kVllm, setting("use_rslora", true))},
      {"FR-015", "rsLoRA", adapter_on(Stack::kSglang, setting("use_rslora", true))},
      {"FR-016", "kv_b_proj", adapter_on(Stack::kVllm, adapt_kv_b)},
      {"FR-016", "kv_b_proj", adapter_on(Stack::kSglang, adapt_kv_b)},
      {"FR-017", "keys",
       adapter_on(Stack::kVllm, [](Adapter& a) { a.pair("1.self_attn.o_proj", 64, 64, 8); })},
      {"FR-018", "whole weights",
       adapter_on(Stack::kLlamaCpp,
                  [](Adapter& a) {
                    a.model.set("base_model.model.lm_head.weight", "F32", {300, 64}, kAdapterFile);
                  })},
      {"FR-022", "rendered text",
       rows_of(R"({"text":"<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜>a"})")},
      {"FR-039", "metadata", on(Stack::kTransformers, [](Model& m) { m.metadata = nullptr; })},
      {"FR-040", "dtype",
       on(
           Stack::kTransformers,
           [](Model& m) {
             m.config["quantization_config"] = {{"quant_method", "fp8"},
                                                {"fmt", "e4m3"},
                                                {"activation_scheme", "dynamic"},
                                                {"weight_block_size", {128, 128}}};
           },
           false)},
      {"FR-041", "dtype",
       on(Stack::kVllm, [](Model& m) { m.tensors.erase(kMatrix + "_scale_inv"); })},
      {"FR-043", "block edges", on(Stack::kTransformers, ragged)},
      {"FR-045", "scale format",
       on(Stack::kVllm,
          [](Model& m) {
            ue8m0(m);
            for (auto& [name, tensor] : m.tensors) {
              if (name.ends_with("_scale_inv")) m.set(name, "F8_E8M0", tensor.shape);
            }
          })},
      {"FR-046", "architecture",
       on(Stack::kInference,
          [](Model& m) {
            m.config["architectures"] = {"Qwen2ForCausalLM"};
            m.config["model_type"] = "qwen2";
          })},
      {"FR-047", "architecture",
       on(Stack::kVllm, [](Model& m) { m.config["model_type"] = "deepseek_v32"; })},
      {"FR-048", "layout", on(Stack::kLlamaCpp)},
      {"FR-052 059", "files",
       on(Stack::kSglang, {}, true, {}, [](const fs::path& f) { fs::remove(f / kShard2); })},
      {"FR-053", "files",
       on(Stack::kVllm, {}, true, {},
          [](const fs::path& f) { fs::resize_file(f / kShard2, fs::file_size(f / kShard2) - 2); })},
      {"FR-060", "files",
       on(Stack::kVllm, {}, true, {},
          [](const fs::path& f) {
            fs::rename(f / kShard2, f / "model-00003-of-00003.safetensors");
          })},
      {"FR-061", "tokenizer",
       on(Stack::kVllm,
          [](Model& m) {
            m.config["vocab_size"] = 129280;
            for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
              m.set(name, "BF16", {129280, 64});
            }
          })},
      {"FR-062", "form of messages",
       rows_of(R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":null,)"
               R"("tool_calls":[{"type":"function","function":{"name":"f","arguments":{"a":1}}}]},)"
               R"({"role":"tool","content":"1"},{"role":"assistant","content":"a"}]})")},
      {"FR-063", "chat template", on(Stack::kLlamaCpp)},
      {"FR-065", "chat template",
       on(Stack::kVllm, {}, true,
          [](TokenizerFiles& f) {
            f.settings["chat_template"] =
                f.settings["chat_template"].get<std::string>() + "{% set x = y | tojson}";
          })},
      {"FR-066", "chat template",
       on(Stack::kVllm, {}, true,
          [](TokenizerFiles& f) {
            f.settings["chat_template"] =
                f.settings["chat_template"].get<std::string>() + "{{ '<|User|>' }}";
          })},
      {"FR-068", "reasoning in history",
       rows_of(
           R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"<think>x</think>a"},)"
           R"({"role":"user","content":"q"},{"role":"assistant","content":"<think>y</think>b"}]})")},
      {"FR-034", "processor", machine_of([](check::MachineInfo& m) { m.avx2 = false; })},
      {"FR-035", "train LoRA", work(1000, std::uint64_t{1} << 40)},
      {"FR-069", "FP8",
       [] { return check_hardware(facts(), parse_hardware("8xA100-80G"), {}).rows; }},
      {"FR-070", "memory",
       [] {
         InputFacts large = facts();
         large.tensors.bytes = 688'574'839'360;
         return check_hardware(large, parse_hardware("8xA6000-48G"), {}).rows;
       }},
  };
  for (const Report& report : reports) {
    const CompatibilityRows rows = report.rows();
    const CompatibilityRow* found = row(rows, report.requirement);
    INFO(std::string(report.id));
    CHECK_MESSAGE(found != nullptr, describe_rows(rows));
    if (found == nullptr) continue;
    CHECK_MESSAGE(found->verdict != Verdict::kOk, describe_rows(rows));
    CHECK(!found->action.empty());
  }
  // FR-078, 080, 082: bytes by dtype of all experts, and one latent entry a token.
  const InputFacts small = facts();
  const auto fit = check_hardware(small, parse_hardware("H100"), {.context = 10, .batch = 2});
  CHECK(fit.weights == small.tensors.bytes);
  CHECK(fit.cache == 20 * 2 * (16 + 8) * 3);
}
