// GPUs by name, and whether a model runs on them.
#include "libcore/config/hardware.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <set>

#include "libcore/base/error.h"
#include "libcore/check/compatibility.h"
#include "tests/core/check/model_fixture.h"

namespace {

using namespace ds;
using namespace ds::test;
using check::HardwareFit;
using check::InputFacts;
using check::Verdict;
using check::Workload;

// DeepSeek-V3's settings (reference/model.md section 1), of a folder whose headers say these bytes.
InputFacts deepseek_v3() {
  InputFacts facts;
  facts.config = parse_model_config(nlohmann::json::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 129280,
    "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "num_hidden_layers": 61, "first_k_dense_replace": 3, "num_attention_heads": 128,
    "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
    "n_group": 8, "topk_group": 4, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
    "norm_topk_prob": true, "routed_scaling_factor": 2.5, "rms_norm_eps": 1e-6,
    "rope_theta": 10000, "max_position_embeddings": 163840, "bos_token_id": 0, "eos_token_id": 1,
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096,
      "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}})"),
                                    "config.json");
  facts.fp8_declared = true;
  // reference/model.md section 8.
  facts.tensors.count = 91'991;
  facts.tensors.fp8 = 45'808;
  facts.tensors.bytes = 688'574'839'360;
  facts.tensors.bytes_bf16 = 1'368'979'721'216;
  return facts;
}

InputFacts bf16(InputFacts facts) {
  facts.fp8_declared = false;
  facts.tensors.fp8 = 0;
  facts.tensors.bytes = facts.tensors.bytes_bf16;
  return facts;
}

HardwareFit fit(const InputFacts& facts, const char* hardware, Workload workload = {}) {
  return check::check_hardware(facts, parse_hardware(hardware), workload);
}

const check::CompatibilityRow* row(const HardwareFit& fit, const std::string& requirement) {
  for (const check::CompatibilityRow& row : fit.rows) {
    if (row.requirement == requirement) return &row;
  }
  return nullptr;
}
bool open(const HardwareFit& fit, const std::string& rule) {
  for (const check::CompatibilityRow& row : fit.rows) {
    if (row.rule == rule && row.verdict != Verdict::kOk) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("names: with and without a number, spelt as people spell them") {
  for (const char* text : {"8xH100-80G", "8 x h100_80gb", "8*H100", "8 H100-80GiB", "8Xh100"}) {
    INFO(std::string(text));
    const Hardware hardware = parse_hardware(text);
    CHECK(hardware.count == 8);
    CHECK(hardware.gpu->name == "H100-80G");
    CHECK(hardware.text() == "8xH100-80G");
  }
  CHECK(parse_hardware("H200").count == 1);
  CHECK(parse_hardware("4xA6000").gpu->name == "A6000-48G");
  CHECK(parse_hardware("16xH100-PCIe").gpu->name == "H100-PCIe-80G");
  CHECK(capability_name(*parse_hardware("H100").gpu) == "sm_90");
}

TEST_CASE("names that are none say which are known") {
  for (const char* text : {"", "8x", "8xH1000", "0xH100", "-2xH100", "99999999999999999999xH100",
                           "H100x8", "A100", "x", "8xH100-40G"}) {
    INFO(std::string(text));
    try {
      parse_hardware(text);
      FAIL_CHECK("accepted");
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::kUsage);
      CHECK(error.hint().find("H800-80G") != std::string::npos);
    }
  }
  try {
    parse_hardware("A100");
  } catch (const Error& error) {
    CHECK(error.hint().find("A100-40G or A100-80G") != std::string::npos);
  }
}

TEST_CASE("the table: every name finds itself, figures are plausible, the page has them all") {
  const std::string page = read_text(source_dir() / "docs" / "compatibility.md");
  std::set<std::string_view> names;
  for (const Gpu& gpu : known_gpus()) {
    INFO(std::string(gpu.name));
    CHECK(names.insert(gpu.name).second);
    CHECK(parse_hardware(gpu.name).gpu == &gpu);
    CHECK(page.find(fmt::format("| {} | {} | {:.1f} |", gpu.label, gpu.name,
                                static_cast<double>(gpu.memory) / (1 << 30))) != std::string::npos);
    CHECK(gpu.memory >= std::uint64_t{15} << 30);
    CHECK(gpu.bandwidth > 2e11);
    CHECK(gpu.bandwidth < 1e13);
    // FP8 is twice BF16, from sm_89 on, within a data sheet's rounding.
    CHECK((gpu.fp8 > 0) == (gpu.capability >= 89 || gpu.fp8_form == "E4M3FNUZ"));
    CHECK((gpu.bf16 > 0) == (gpu.capability >= 80 || gpu.capability == 0));
    if (gpu.fp8 > 0) CHECK(gpu.fp8 / gpu.bf16 == doctest::Approx(2.0).epsilon(0.03));
    CHECK((gpu.fp8 > 0) == !gpu.fp8_form.empty());
  }
}

TEST_CASE("DeepSeek-V3 in FP8: where it fits") {
  const InputFacts v3 = deepseek_v3();
  CHECK(check::latent_cache_bytes(*v3.config) == 70'272);
  CHECK(fit(v3, "8xH200").rows.size() >= 5);
  CHECK(!open(fit(v3, "8xH200"), "hardware-memory"));
  CHECK(!open(fit(v3, "16xH100"), "hardware-memory"));
  CHECK(!open(fit(v3, "8xB200"), "hardware-memory"));
  for (const char* small : {"8xH100", "8xH800", "8xA6000-48G"}) {
    CHECK_MESSAGE(open(fit(v3, small), "hardware-memory"), small);
  }
  // The smallest number is the smallest: with it the model fits, with one less it does not.
  for (const char* name : {"H100", "A6000", "B200"}) {
    const std::int64_t count = fit(v3, name).smallest_count;
    INFO(name << " " << count);
    REQUIRE(count > 1);
    CHECK(!open(fit(v3, fmt::format("{}x{}", count, name).c_str()), "hardware-memory"));
    CHECK(open(fit(v3, fmt::format("{}x{}", count - 1, name).c_str()), "hardware-memory"));
  }
  const HardwareFit eight = fit(v3, "8xH200", {.context = 1000, .batch = 3});
  CHECK(eight.cache == 3000 * 70'272);
  CHECK(eight.needed == 688'574'839'360 / 8 + eight.cache);
  // The cache is held by every GPU: more of them do not help.
  CHECK(open(fit(v3, "1024xH200", {.context = 163'840, .batch = 64}), "hardware-memory"));
  CHECK(fit(v3, "8xH200", {.context = 163'840, .batch = 64}).smallest_count == 0);
}

TEST_CASE("FP8 and BF16 against the GPU") {
  const InputFacts v3 = deepseek_v3();
  for (const char* old : {"8xA100-80G", "8xA800", "8xRTX3090", "8xA6000"}) {
    CHECK_MESSAGE(open(fit(v3, old), "hardware-fp8"), old);
    CHECK_MESSAGE(!open(fit(bf16(v3), old), "hardware-fp8"), old);
  }
  const std::string detail = row(fit(v3, "8xA100-80G"), "FP8")->detail;
  CHECK_MESSAGE(detail.find("sm_80") != std::string::npos, detail);
  CHECK_MESSAGE(detail.find("1,369 GB") != std::string::npos, detail);
  CHECK_MESSAGE(detail.find("does not fit") != std::string::npos, detail);
  CHECK(!open(fit(v3, "8xL20"), "hardware-fp8"));
  CHECK(!open(fit(v3, "8xH100"), "hardware-fp8"));
  CHECK(row(fit(v3, "8xMI300X"), "FP8")->verdict == Verdict::kNeeds);
  CHECK(open(fit(bf16(v3), "8xV100-32G"), "hardware-bf16"));
  CHECK(!open(fit(bf16(v3), "8xA100-80G"), "hardware-bf16"));
  InputFacts half = bf16(v3);
  half.config->dtype = "float16";
  CHECK(!open(fit(half, "8xV100-32G"), "hardware-bf16"));
}

TEST_CASE("scales that are no powers of two, on sm_100") {
  InputFacts v3 = deepseek_v3();
  CHECK(open(fit(v3, "8xB200"), "hardware-scale-format"));
  CHECK(open(fit(v3, "8xGB300"), "hardware-scale-format"));
  CHECK(!open(fit(v3, "8xH200"), "hardware-scale-format"));
  CHECK(!open(fit(v3, "8xRTX5090"), "hardware-scale-format"));
  v3.ue8m0 = true;
  CHECK(!open(fit(v3, "8xB200"), "hardware-scale-format"));
}

TEST_CASE("tensor parallelism: heads, widths, blocks of 128") {
  const InputFacts v3 = deepseek_v3();
  for (const auto& degree : check::tensor_parallel_degrees(*v3.config, true, 64)) {
    INFO(degree.degree);
    CHECK(degree.fits == (degree.degree <= 16));
    if (degree.degree == 32) {
      CHECK(degree.tensor == "mlp.gate_proj.weight");
      CHECK(degree.reason.find("4.5 blocks") != std::string::npos);
    }
  }
  // In BF16 nothing is cut but heads: 128 of them.
  for (const auto& degree : check::tensor_parallel_degrees(*v3.config, false, 256)) {
    INFO(degree.degree);
    CHECK(degree.fits == (degree.degree <= 128));
  }
  CHECK(check::tensor_parallel_degree(*v3.config, true, 3).reason.find("128 heads") !=
        std::string::npos);
  CHECK(open(fit(v3, "32xH100"), "hardware-tensor-parallel"));
  CHECK(open(fit(v3, "6xH200"), "hardware-tensor-parallel"));
  CHECK(!open(fit(v3, "16xH100"), "hardware-tensor-parallel"));
  CHECK(row(fit(v3, "32xH100"), "tensor parallel")->action.find("16") != std::string::npos);
  // Nobody cuts every tensor over thousands of GPUs.
  CHECK(!open(fit(v3, "2048xH800"), "hardware-tensor-parallel"));
  CHECK(row(fit(v3, "6xH200"), "expert parallel")->verdict == Verdict::kNeeds);
  CHECK(row(fit(v3, "8xH200"), "expert parallel")->verdict == Verdict::kOk);

  // Experts alone may be kept whole.
  InputFacts narrow = v3;
  narrow.config->moe_intermediate_size = 512;
  narrow.config->n_shared_experts = 4;
  const auto eight = check::tensor_parallel_degree(*narrow.config, true, 8);
  CHECK(eight.fits);
  CHECK(!eight.experts_whole);
  CHECK(eight.tensor.find("experts.0") != std::string::npos);
  CHECK(row(fit(narrow, "8xH200"), "tensor parallel")->verdict == Verdict::kNeeds);
}

TEST_CASE("context") {
  const InputFacts v3 = deepseek_v3();
  CHECK(fit(v3, "8xH200").workload.context == check::kDefaultContext);
  CHECK(!open(fit(v3, "8xH200", {.context = 163'840}), "hardware-context"));
  CHECK(open(fit(v3, "8xH200", {.context = 163'841}), "hardware-context"));
  InputFacts brief = v3;
  brief.config->max_position_embeddings = 512;
  CHECK(fit(brief, "8xH200").workload.context == 512);
  CHECK(!open(fit(brief, "8xH200"), "hardware-context"));
}

TEST_CASE("a config alone: sizes come from it") {
  InputFacts v3 = deepseek_v3();
  v3.tensors = {};
  const HardwareFit eight = fit(v3, "8xH200");
  CHECK(eight.fp8);
  CHECK(eight.weights == 671'026'419'200);
  CHECK(eight.weights_bf16 == 2 * eight.weights);
}

TEST_CASE("each rule on hardware: a case that fails and one that passes") {
  struct Case {
    const char* rule;
    bool fp8;
    const char* bad;
    const char* good;
    std::int64_t bad_context = 0;
    std::int64_t ranks = 0;  // of inference shards
  };
  const Case cases[] = {{"hardware-fp8", true, "8xA100-80G", "8xH200"},
                        {"hardware-bf16", false, "8xV100-32G", "8xA100-80G"},
                        {"hardware-memory", true, "8xH100", "16xH100"},
                        {"hardware-tensor-parallel", true, "32xH100", "16xH100"},
                        {"hardware-scale-format", true, "8xB200", "8xH200"},
                        {"hardware-context", true, "8xH200", "8xH200", 200'000},
                        {"hardware-ranks", true, "8xH200", "16xH200", 0, 16}};
  std::set<std::string> covered;
  for (const Case& one : cases) {
    INFO(std::string(one.rule));
    covered.insert(one.rule);
    InputFacts facts = one.fp8 ? deepseek_v3() : bf16(deepseek_v3());
    if (one.ranks > 0) {
      facts.input.kind = check::TargetKind::kInference;
      facts.inference.ranks = one.ranks;
      facts.inference.largest_shard = facts.tensors.bytes / 10;
    }
    const HardwareFit bad = fit(facts, one.bad, {.context = one.bad_context});
    CHECK(open(bad, one.rule));
    CHECK(!open(fit(facts, one.good), one.rule));
    check::Findings findings;
    check::add_findings(bad.rows, true, "", findings);
    CHECK(find(findings.sorted(), one.rule) != nullptr);
  }
  for (const check::Rule& rule : check::rules()) {
    if (rule.group != check::RuleGroup::kHardware) continue;
    CHECK_MESSAGE(covered.count(std::string(rule.name)) == 1, rule.name);
  }
}
