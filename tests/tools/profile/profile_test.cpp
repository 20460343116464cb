// The program as a user runs it.
#include <doctest/doctest.h>

#include <set>

#include "libcore/config/model_config.h"
#include "tests/support/man_page.h"
#include "tests/support/schema.h"
#include "tests/support/tiny_model.h"
#include "tests/support/variants.h"
#include "tests/tools/profile/program.h"
#include "tools/profile/cost_model.h"
#include "tools/profile/op_profile.h"

using namespace ds::test;
using nlohmann::json;

TEST_CASE("usage, help, version, and the man page has every flag") {
  CHECK(profile({}).exit_code == 2);
  CHECK(profile({"memory"}).exit_code == 2);
  const Outcome help = profile({"--help"});
  CHECK(help.exit_code == 0);
  CHECK(has(help.out, "bench"));
  CHECK(profile({"--version_only"}).exit_code == 0);

  for (const std::string& problem : man_page_problems("deepseek-profile", {"layers", "bench"})) {
    FAIL_CHECK(problem);
  }
}

TEST_CASE("wrong input has its exit code") {
  const Folder f;
  write_tiny_model(f.root() / "model", {});
  const std::string model = f.path("model");
  CHECK(profile({"layers"}).exit_code == 2);  // --model is required
  CHECK(profile({"layers", "--model", f.path("nowhere")}).exit_code == 3);
  CHECK(profile({"layers", "--model", model, "--mode", "trian"}).exit_code == 2);
  CHECK(profile({"layers", "--model", model, "--convention", "7n"}).exit_code == 2);
  CHECK(profile({"layers", "--model", model, "--steps", "0"}).exit_code == 2);
  CHECK(profile({"layers", "--model", model, "--seq_len", "1"}).exit_code == 2);
  CHECK(profile({"layers", "--model", model, "--mtp"}).exit_code == 2);
  CHECK(profile({"layers", "--model", model, "--analytical", "--mtp"}).exit_code == 2);
  CHECK(profile({"layers", "--model", model, "--input", "x", "--seq_len", "8"}).exit_code == 2);
  CHECK(profile({"layers", "--model", model, "--analytical", "--input", "x"}).exit_code == 2);
  CHECK(profile({"layers", "--model", model, "--lora_target", "attentoin"}).exit_code == 2);
  CHECK(profile({"layers", "--model", model, "--input", "no tokenizer here"}).exit_code == 3);
  CHECK(profile({"layers", "--model", model, "--batch", "65536", "--seq_len", "16777216"})
            .exit_code == 5);
  CHECK(profile({"bench", "--suite", "full"}).exit_code == 2);
  CHECK(profile({"bench", "--compare", f.path("absent.json")}).exit_code >= 3);
  f.write("other.json", R"({"findings": []})");
  const Outcome other = profile({"bench", "--compare", f.path("other.json")});
  CHECK(other.exit_code == 3);
  CHECK(has(other.err, "results"));
  f.write("config/config.json", v3_json().dump());
  CHECK(profile({"layers", "--model", f.path("config")}).exit_code == 3);  // no weights
}

TEST_CASE("--analytical needs a config only, and its rows sum to the totals") {
  const Folder f;
  f.write("v3/config.json", v3_json().dump());
  const json full =
      profile_json({"layers", "--model", f.path("v3"), "--analytical", "--seq_len", "4096"});
  CHECK(full["totals"]["parameters"] == 671026419200);
  CHECK(full["totals"]["activated_parameters"] == 37552297472);
  CHECK(full["totals"]["kv_cache_bytes_per_token"] == 70272);
  std::int64_t parameters = 0;
  std::int64_t forward = 0;
  std::int64_t train = 0;
  for (const json& row : full["layers"]) {
    for (const char* key : {"name", "kind", "parameters", "forward_flops", "input_gradient_flops",
                            "weight_gradient_flops", "bytes", "seconds", "share", "bound"}) {
      CHECK_MESSAGE(row.contains(key), key);
    }
    parameters += row["parameters"].get<std::int64_t>();
    forward += row["forward_flops"].get<std::int64_t>();
    train += row["forward_flops"].get<std::int64_t>() +
             row["input_gradient_flops"].get<std::int64_t>() +
             row["weight_gradient_flops"].get<std::int64_t>();
  }
  CHECK(full["totals"]["parameters"] == parameters);
  CHECK(full["totals"]["forward_flops_per_token"] == forward);
  CHECK(full["totals"]["train_flops_per_token"] == train);
  CHECK(sum(full["layers"], "share") == doctest::Approx(1.0).epsilon(1e-12));

  const json lora =
      profile_json({"layers", "--model", f.path("v3"), "--analytical", "--seq_len", "4096",
                    "--lora_r", "16", "--lora_target", "attention", "--kv_dtype", "fp8"});
  CHECK(lora["totals"]["adapter_parameters"] == 97006592);
  CHECK(lora["totals"]["train_flops_per_token"].get<double>() / 1e9 ==
        doctest::Approx(177.78).epsilon(0.005 / 177.78));
  CHECK(lora["totals"]["kv_cache_bytes_per_token"] == 40016);

  const Outcome text = profile({"layers", "--model", f.path("v3"), "--analytical", "--mtp"});
  CHECK(text.exit_code == 0);
  CHECK(has(text.out, "684,489,845,504"));
  CHECK(has(text.out, "mtp.0.head"));
}

TEST_CASE("a measured training step: every op once, rows sum to the step") {
  const Folder f;
  write_tiny_model(f.root() / "model", {});
  const std::vector<std::string> base{
      "layers",  "--model", f.path("model"), "--seq_len",           "24", "--batch", "2",
      "--steps", "2",       "--report",      f.path("report.jsonl")};
  const json d = profile_json(base);
  CHECK(validate_report(f.root() / "report.jsonl") == std::vector<std::string>{});
  const json& layers = d["layers"];
  const json& step = d["step"];
  CHECK(layers.size() == 1 + 3 * 2 + 1 + 2);
  CHECK(sum(layers, "share") == doctest::Approx(1.0).epsilon(1e-9));
  CHECK(sum(layers, "seconds") == doctest::Approx(step["seconds"].get<double>()).epsilon(1e-9));
  for (const char* key : {"flops", "bytes"}) {
    CHECK(sum(d["ops"], key) == doctest::Approx(step[key].get<double>()).epsilon(1e-12));
  }
  CHECK(sum(layers, "bytes") == doctest::Approx(step["bytes"].get<double>()).epsilon(1e-12));
  const double flops = sum(layers, "forward_flops") + sum(layers, "input_gradient_flops") +
                       sum(layers, "weight_gradient_flops") + sum(layers, "recompute_flops");
  CHECK(flops == doctest::Approx(step["flops"].get<double>()).epsilon(1e-12));
  CHECK(sum(d["ops"], "calls") == doctest::Approx(step["op_calls"].get<double>()).epsilon(1e-12));
  // Nothing that belongs to a part is left outside.
  CHECK(row_named(layers, "other")["forward_flops"] == 0.0);
  CHECK(row_named(layers, "optimizer")["forward_flops"] > 0.0);
  CHECK(row_named(d["ops"], "attention_forward")["calls"] == 3.0);
  CHECK(row_named(d["ops"], "attention_backward")["calls"] == 3.0);
  for (const char* name : {"layers.0.attention", "layers.0.mlp", "layers.2.mlp"}) {
    const json& row = row_named(layers, name);
    CHECK(row["forward_flops"] > 0.0);
    CHECK(row["input_gradient_flops"] > 0.0);
    CHECK(row["weight_gradient_flops"] > 0.0);
    CHECK(row["recompute_flops"] == 0.0);
    CHECK(row["recompute_seconds"] == 0.0);
  }
  CHECK(row_named(layers, "layers.0.mlp")["kind"] == "dense");
  CHECK(row_named(layers, "layers.1.mlp")["kind"] == "moe");
  CHECK(row_named(layers, "head")["weight_gradient_flops"] == 0.0);  // frozen
  CHECK(row_named(layers, "optimizer")["parameters"] == d["totals"]["adapter_parameters"]);
  CHECK(step["tokens"] == 48);
  const json& memory = d["memory"];
  const auto adapters = memory["parts"]["adapters"].get<std::int64_t>();
  CHECK(adapters == 4 * d["totals"]["adapter_parameters"].get<std::int64_t>());
  CHECK(memory["parts"]["gradients"] == adapters);
  double named = 0.0;
  for (const auto& [name, bytes] : memory["activations"].items()) named += bytes.get<double>();
  CHECK(named == memory["parts"]["activations"].get<double>());
  CHECK(d["steady"]["busy_share"] > 0.0);
  CHECK(d["peaks"]["matrix_flops_per_second"] > 1e8);

  // Recomputation is counted apart, and changes nothing else.
  auto arguments = base;
  arguments.insert(arguments.end(), {"--activation_checkpointing", "full"});
  const json full = profile_json(arguments);
  for (const char* name : {"layers.1.attention", "layers.1.mlp"}) {
    const json& row = row_named(full["layers"], name);
    CHECK(row["recompute_flops"] == row["forward_flops"]);
    CHECK(row["recompute_seconds"] > 0.0);
    CHECK(row["recompute_seconds"] < row["seconds"]);
    CHECK(row["input_gradient_flops"] == row_named(layers, name)["input_gradient_flops"]);
    CHECK(row["weight_gradient_flops"] == row_named(layers, name)["weight_gradient_flops"]);
  }
  CHECK(full["memory"]["parts"]["activations"] < d["memory"]["parts"]["activations"]);
}

TEST_CASE("inference and full training") {
  const Folder f;
  write_tiny_model(f.root() / "model", {});
  const std::vector<std::string> base{"layers",  "--model", f.path("model"), "--seq_len", "16",
                                      "--batch", "1",       "--steps",       "1"};
  auto arguments = base;
  arguments.insert(arguments.end(), {"--mode", "infer", "--dtype", "bf16"});
  arguments.insert(arguments.end(), {"--convention", "6n"});
  const json infer = profile_json(arguments);
  // What ran is what the formula says: 2 N a token. The 16th token predicts nothing: it is spared
  // the head and, in the last layer, all but keys and values.
  const auto c = ds::load_model_config(f.root() / "model");
  const auto costs = ds::profile::count_costs(
      c, {.convention = ds::profile::Convention::k6n, .train = false, .lora = {{}}});
  CHECK(infer["totals"]["forward_flops_per_token"] == costs.total.forward_flops);
  std::int64_t spared =
      -2 * (c.hidden_size * (c.kv_lora_rank + c.qk_rope_head_dim) +
            c.kv_lora_rank * c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim));
  for (const auto& row : costs.rows) {
    if (row.name == "head" || row.name.rfind("layers.2.", 0) == 0) spared += row.forward_flops;
  }
  CHECK(row_named(infer["ops"], "gemm")["flops"] ==
        static_cast<double>(16 * costs.total.forward_flops - spared));
  CHECK(sum(infer["layers"], "input_gradient_flops") == 0.0);
  CHECK(sum(infer["layers"], "weight_gradient_flops") == 0.0);
  CHECK(infer["memory"]["parts"]["adapters"] == 0);
  CHECK(row_named(infer["layers"], "optimizer")["seconds"] == 0.0);
  arguments = base;
  arguments.insert(arguments.end(), {"--peft_method", "full"});
  const json full = profile_json(arguments);
  CHECK(row_named(full["layers"], "head")["weight_gradient_flops"] > 0.0);
  CHECK(row_named(full["layers"], "optimizer")["parameters"] == full["totals"]["parameters"]);
}

TEST_CASE("bench: keys, and the ratio to an earlier run") {
  const Folder f;
  write_tiny_model(f.root() / "model", {});
  const std::vector<std::string> base{"bench",   "--model", f.path("model"), "--seq_len", "16",
                                      "--batch", "1",       "--repeats",     "3"};
  const json first = profile_json(base);
  CHECK(first["peaks"]["memory_bytes_per_second"] > 1e7);
  std::set<std::string> names;
  for (const json& result : first["results"]) {
    for (const char* key : {"name", "unit", "median", "spread", "share_of_peak", "cold"}) {
      CHECK_MESSAGE(result.contains(key), key);
    }
    CHECK(names.insert(result["name"]).second);
    if (!result["share_of_peak"].is_null()) CHECK(result["share_of_peak"] <= 1.0);
    CHECK(result["median"].is_null() == result["above_peak"].get<bool>());
  }
  for (const char* name : {"rms_norm_forward", "rope", "attention_forward", "attention_backward",
                           "router_forward", "swiglu_forward", "cross_entropy_forward", "adamw",
                           "cast f8_e4m3 to f32", "training step"}) {
    CHECK_MESSAGE(names.count(name) == 1, name);
  }
  json earlier = first;
  for (json& result : earlier["results"]) result["median"] = 1e-9;
  f.write("before.json", earlier.dump());
  auto arguments = base;
  arguments.insert(arguments.end(), {"--compare", f.path("before.json")});
  const json second = profile_json(arguments);
  int compared = 0;
  for (const json& result : second["results"]) {
    // Other work on the machine may lower the measured peak below a case, which then has no figure.
    if (result["above_peak"].get<bool>()) {
      CHECK(result["ratio"].is_null());
      continue;
    }
    ++compared;
    CHECK(result["ratio"].get<double>() ==
          doctest::Approx(result["median"].get<double>() / 1e-9).epsilon(1e-12));
  }
  CHECK(compared > 0);
}

TEST_CASE("scopes: the innermost part and phase win") {
  ds::profile::OpProfile profile;
  const auto op = [&](double flops) {
    profile.before("gemm", {.cost = {flops, 1.0}, .weight_gradient_flops = 0.0});
    profile.after("gemm");
  };
  op(1);
  profile.enter("head", -1);
  op(2);
  profile.enter("layer", 3);
  profile.enter("backward", -1);
  profile.enter("mlp", -1);
  op(4);
  profile.leave();
  profile.leave();
  profile.leave();
  profile.enter("recompute", -1);
  profile.enter("layer", 3);
  profile.enter("mlp", -1);
  op(8);
  for (int i = 0; i < 4; ++i) profile.leave();
  const auto& parts = profile.parts();
  CHECK(parts.at("other").phases.at("forward").flops == 1);
  CHECK(parts.at("head").phases.at("forward").flops == 2);
  CHECK(parts.at("layers.3.mlp").phases.at("backward").flops == 4);
  CHECK(parts.at("layers.3.mlp").phases.at("recompute").flops == 8);
  CHECK(profile.total().calls == 4);
  CHECK(profile.ops().at("gemm").flops == 15);
}
