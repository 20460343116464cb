// Exact counts: reference/cost-model.md sections 1 to 4, tests E1 to E5 of section 12.
#include "tools/profile/cost_model.h"

#include <doctest/doctest.h>

#include <cmath>

#include "libcore/base/error.h"
#include "tests/support/variants.h"

using namespace ds;
using namespace ds::profile;
using namespace ds::test;

namespace {

ModelConfig config_of(const nlohmann::json& json) { return parse_model_config(json, "test"); }

std::vector<LoraTarget> targets_of(const ModelConfig& config, const std::string& target,
                                   std::int64_t r) {
  LoraConfig lora;
  lora.r = r;
  set_targets(lora, target, config);
  return match_targets(lora, config);
}

// GF per token, rounded to two decimals as the reference prints them.
double giga(std::int64_t flops) { return std::round(static_cast<double>(flops) / 1e7) / 100.0; }

void check_sums(const CostTable& table) {
  CostRow sum;
  for (const CostRow& row : table.rows) {
    sum.parameters += row.parameters;
    sum.activated += row.activated;
    sum.adapter_parameters += row.adapter_parameters;
    sum.forward_flops += row.forward_flops;
    sum.input_gradient_flops += row.input_gradient_flops;
    sum.weight_gradient_flops += row.weight_gradient_flops;
  }
  CHECK(sum.parameters == table.total.parameters);
  CHECK(sum.activated == table.total.activated);
  CHECK(sum.adapter_parameters == table.total.adapter_parameters);
  CHECK(sum.train_flops() == table.total.train_flops());
  CHECK(sum.forward_flops == table.total.forward_flops);
}

}  // namespace

TEST_CASE("E1, E2: parameters of DeepSeek-V3, row by row") {
  const ModelConfig v3 = config_of(v3_json());
  const CostTable table = count_costs(v3, {});
  check_sums(table);
  CHECK(table.total.parameters == 671026419200);
  CHECK(table.total.activated == 37552297472);
  CHECK(table.rows.size() == 1 + 2 * 61 + 1);
  const auto layer = [&](std::size_t i) {
    return table.rows[1 + 2 * i].parameters + table.rows[2 + 2 * i].parameters;
  };
  CHECK(layer(0) == 583483392);
  CHECK(layer(3) == 11507286272);
  CHECK(table.rows[7].name == "layers.3.attention");
  CHECK(table.rows[8].kind == "moe");
  CHECK(table.rows[7].activated + table.rows[8].activated == 585318656);

  const CostTable shipped = count_costs(v3, {.mtp = true});
  check_sums(shipped);
  CHECK(shipped.total.parameters == 684489845504);
  CHECK(shipped.total.activated - table.total.activated == 2541458688);
}

TEST_CASE("parameters agree with count_parameters for every variant") {
  for (const auto& json :
       {v2_json(), v2_lite_json(), v3_json(), moonlight_json(), kimi_k2_json(), tiny_v3_json()}) {
    const ModelConfig config = config_of(json);
    const CostTable table = count_costs(config, {});
    check_sums(table);
    CHECK(table.total.parameters == count_parameters(config).total());
    CHECK(table.total.activated == activated_parameters(config));
  }
}

TEST_CASE("E3: operations of training DeepSeek-V3, by convention") {
  const ModelConfig v3 = config_of(v3_json());
  const auto train = [&](Convention convention, std::int64_t s, bool mtp) {
    const CostTable table = count_costs(v3, {.convention = convention, .seq_len = s, .mtp = mtp});
    check_sums(table);
    return giga(table.total.train_flops());
  };
  CHECK(train(Convention::kCausal, 4096, false) == 250.45);
  CHECK(train(Convention::kCausal, 4096, true) == 260.64);
  CHECK(train(Convention::kNoncausal, 4096, false) == 281.15);
  CHECK(train(Convention::kMegatron, 4096, false) == 249.81);
  CHECK(train(Convention::kMegatron, 4096, true) == 259.99);
  CHECK(train(Convention::k6n, 4096, false) == 219.75);
  CHECK(train(Convention::kCausal, 32768, false) == 465.37);
  CHECK(train(Convention::kNoncausal, 131072, false) == 2184.70);

  const CostTable forward = count_costs(v3, {.train = false});
  CHECK(giga(forward.total.forward_flops) == 83.48);
  CHECK(forward.total.train_flops() == forward.total.forward_flops);
  CHECK(count_costs(v3, {}).total.train_flops() == 3 * forward.total.forward_flops);
  // 2 N without attention.
  CHECK(count_costs(v3, {.convention = Convention::k6n, .train = false}).total.forward_flops ==
        2 * 36624596992);
}

TEST_CASE("E3: the other variants at 4,096 and 32,768 tokens") {
  const auto train = [](const nlohmann::json& json, std::int64_t s) {
    return giga(count_costs(config_of(json), {.seq_len = s}).total.train_flops());
  };
  CHECK(train(v2_json(), 4096) == 155.30);
  CHECK(train(v2_json(), 32768) == 366.70);
  CHECK(train(v2_lite_json(), 4096) == 16.41);
  CHECK(train(moonlight_json(), 4096) == 17.17);
  CHECK(train(kimi_k2_json(), 32768) == 312.93);
}

TEST_CASE("E4: LoRA counts 6 for its own weights, 4 for frozen ones") {
  const ModelConfig v3 = config_of(v3_json());
  const CostTable attention = count_costs(v3, {.lora = targets_of(v3, "attention", 16)});
  check_sums(attention);
  CHECK(attention.total.adapter_parameters == 97006592);
  CHECK(giga(attention.total.train_flops()) == 177.78);
  CHECK(attention.total.weight_gradient_flops == 2 * 97006592);

  const CostTable experts =
      count_costs(v3, {.lora = targets_of(v3, "attention,shared_experts,experts", 16)});
  check_sums(experts);
  CHECK(experts.total.adapter_parameters == 97006592 + 6593937408);
  CHECK(giga(experts.total.train_flops()) == 179.17);
}

TEST_CASE("below the lowest adapter only the forward pass counts") {
  const ModelConfig v3 = config_of(v3_json());
  LoraConfig lora;
  set_targets(lora, "attention", v3);
  lora.layers_to_transform = {60};
  const CostTable table = count_costs(v3, {.lora = match_targets(lora, v3)});
  check_sums(table);
  for (const CostRow& row : table.rows) {
    const bool reached = row.name == "head" || row.name.rfind("layers.60.", 0) == 0;
    CHECK_MESSAGE((row.input_gradient_flops > 0) == reached, row.name);
    CHECK((row.weight_gradient_flops > 0) == (row.name == "layers.60.attention"));
  }
}

TEST_CASE("E5: latent cache of a token") {
  const ModelConfig v3 = config_of(v3_json());
  CHECK(kv_cache_bytes_per_token(v3, "bf16", false) == 70272);
  CHECK(kv_cache_bytes_per_token(v3, "bf16", true) == 71424);
  CHECK(kv_cache_bytes_per_token(v3, "fp8", false) == 40016);
  CHECK(kv_cache_bytes_per_token(v3, "f32", false) == 2 * 70272);
}

TEST_CASE("a config without MTP layers refuses --mtp") {
  CHECK_THROWS_AS(count_costs(config_of(moonlight_json()), {.mtp = true}), const Error&);
}
