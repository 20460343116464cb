// layers --mode decode, and --trace.
#include <doctest/doctest.h>

#include "libcore/base/atomic_write.h"
#include "libcore/config/model_config.h"
#include "tests/support/tiny_model.h"
#include "tests/support/variants.h"
#include "tests/tools/profile/program.h"
#include "tests/tools/profile/trace_rules.h"
#include "tools/profile/cost_model.h"

using namespace ds::test;
using nlohmann::json;

TEST_CASE("decoding by formula: the absorbed counts of the reference") {
  const auto config = ds::parse_model_config(v3_json(), "v3");
  // reference/cost-model.md section 4, GF a token.
  for (const auto& [context, expected] :
       {std::pair{4096, 142.84}, {4989, 158.01}, {32768, 629.98}, {131072, 2300.19}}) {
    const auto costs = ds::profile::count_costs(
        config, {.seq_len = context, .train = false, .decode = true, .lora = {{}}});
    CHECK(static_cast<double>(costs.total.forward_flops) / 1e9 ==
          doctest::Approx(expected).epsilon(0.005 / expected));
    CHECK(costs.total.train_flops() == costs.total.forward_flops);
  }
}

TEST_CASE("bytes of a decode step: weights once, the experts that a batch reaches, the cache") {
  const auto config = ds::parse_model_config(v3_json(), "v3");
  const auto costs = ds::profile::count_costs(
      config, {.seq_len = 4096, .train = false, .decode = true, .lora = {{}}});
  const auto total = [&](std::int64_t batch, std::int64_t context, double width) {
    double bytes = 0.0;
    for (const auto& row : costs.rows) {
      bytes += ds::profile::decode_bytes(
          config, row, {.batch = batch, .seq_len = context, .cache_bytes = 1152}, width);
    }
    return bytes;
  };
  // One sequence touches what one token activates, but one row of the embedding.
  const double activated = 37552297472.0 - 129279.0 * 7168.0;
  CHECK(total(1, 0, 2.0) == doctest::Approx(2.0 * activated).epsilon(1e-12));
  // 70,272 bytes a token of context, section 4.
  CHECK(total(3, 1000, 0.0) == doctest::Approx(3.0 * 1000.0 * 70272.0).epsilon(1e-12));
  // Two sequences reach 256 (1 - (248/256)^2) = 15.75 experts, not 16.
  const double expert = 3.0 * 7168.0 * 2048.0;
  CHECK(total(2, 0, 1.0) - total(1, 0, 1.0) ==
        doctest::Approx(58.0 * 7.75 * expert + 7168.0).epsilon(1e-9));
  // Many reach all.
  CHECK(total(100000, 0, 1.0) ==
        doctest::Approx(671026419200.0 - 129280.0 * 7168.0 + 100000.0 * 7168.0).epsilon(1e-9));
}

TEST_CASE("decoding by formula from a config alone") {
  const Folder f;
  f.write("v3/config.json", v3_json().dump());
  const json d = profile_json({"layers", "--model", f.path("v3"), "--analytical", "--mode",
                               "decode", "--seq_len", "4096", "--batch", "8", "--dtype", "bf16"});
  CHECK(d["mode"] == "decode");
  CHECK(d["per"] == "token");
  CHECK(sum(d["layers"], "forward_flops") == d["totals"]["forward_flops_per_token"]);
  CHECK(sum(d["layers"], "input_gradient_flops") == 0.0);
  CHECK(d["step"]["tokens"] == 8);
  CHECK(d["step"]["flops"] == 8.0 * d["totals"]["forward_flops_per_token"].get<double>());
  CHECK(8.0 * sum(d["layers"], "bytes") ==
        doctest::Approx(d["step"]["bytes"].get<double>()).epsilon(1e-12));
  const Outcome text = profile(
      {"layers", "--model", f.path("v3"), "--analytical", "--mode", "decode", "--seq_len", "4096"});
  CHECK(text.exit_code == 0);
  CHECK(has(text.out, "context of 4096 tokens): 142.8"));
  CHECK(has(text.out, "FLOP/B"));
}

TEST_CASE("a measured decode step does what the formula says") {
  const Folder f;
  write_tiny_model(f.root() / "model", {});
  const std::vector<std::string> base{"layers",  "--model", f.path("model"), "--mode", "decode",
                                      "--steps", "2",       "--seq_len",     "24",     "--batch",
                                      "3"};
  const json d = profile_json(base);
  const json& layers = d["layers"];
  CHECK(d["mode"] == "decode");
  CHECK(d["step"]["tokens"] == 3);
  CHECK(row_named(d["ops"], "attention_decode")["calls"] == 3.0);
  // Every product and the core of attention: the formula's operations, exactly, in every step.
  double products = 0.0;
  for (const json& op : d["ops"]) {
    if (op["name"] == "gemm" || op["name"] == "attention_decode") {
      products += op["flops"].get<double>();
    }
  }
  CHECK(products == 3.0 * d["totals"]["forward_flops_per_token"].get<double>());
  CHECK(sum(layers, "formula_flops") == products);
  // Nothing that belongs to a part is left outside.
  CHECK(row_named(layers, "other")["bytes"] == 0.0);
  for (const char* name : {"embedding", "layers.0.attention", "layers.1.mlp", "head"}) {
    const json& row = row_named(layers, name);
    CHECK_MESSAGE(row["seconds"] > 0.0, name);
    CHECK_MESSAGE(row["formula_bytes"] > 0.0, name);
  }
  // Weights and cache are among the bytes that were moved.
  for (const char* name : {"layers.0.attention", "layers.0.mlp", "head"}) {
    const json& row = row_named(layers, name);
    CHECK_MESSAGE(row["bytes"] >= row["formula_bytes"], name);
  }
  const auto config = ds::load_model_config(f.root() / "model");
  const std::int64_t cache = ds::profile::kv_cache_bytes_per_token(config, "f32", false);
  CHECK(d["memory"]["parts"]["kv_cache"] == 3 * 24 * cache);
  CHECK(d["memory_timeline"]["peak"]["parts"]["kv_cache"] == 3 * 24 * cache);
  CHECK(d["memory_timeline"]["spans"].size() == 1 + 3 + 1);

  auto arguments = base;
  arguments.insert(arguments.end(), {"--dtype", "bf16", "--lora_r", "4"});
  const json lora = profile_json(arguments);
  CHECK(lora["totals"]["adapter_parameters"] > 0);
  CHECK(lora["memory"]["parts"]["kv_cache"] == 3 * 24 * cache / 2);
  const Outcome text = profile(base);
  CHECK(has(text.out, "by formula"));
  CHECK(has(text.out, "latent cache"));
}

TEST_CASE("flags that say nothing are refused") {
  const Folder f;
  write_tiny_model(f.root() / "model", {});
  const auto refused = [&](std::vector<std::string> flags, const std::string& word) {
    flags.insert(flags.begin(), {"layers", "--model", f.path("model")});
    const Outcome outcome = profile(flags);
    CHECK_MESSAGE(outcome.exit_code == 2, word);
    CHECK_MESSAGE(has(outcome.err, word), outcome.err);
    CHECK(outcome.out.empty());
  };
  refused({"--analytical", "--trace", f.path("t.json")}, "--trace");
  refused({"--mode", "decode", "--activation_checkpointing", "full"}, "no backward");
  refused({"--mode", "decode", "--peft_method", "full"}, "nothing is trained");
  CHECK_FALSE(std::filesystem::exists(f.root() / "t.json"));
  CHECK(profile({"layers", "--model", f.path("model"), "--trace", f.path("nowhere/t.json")})
            .exit_code == 4);
  CHECK(profile({"bench", "--trace", f.path("t.json")}).exit_code == 2);
}

TEST_CASE("--trace: a slice for every op, within its step, and counters that agree") {
  const Folder f;
  write_tiny_model(f.root() / "model", {});
  const std::string path = f.path("trace.json");
  for (const std::string recompute : {"none", "selective", "full"}) {
    CAPTURE(recompute);
    const json d =
        profile_json({"layers", "--model", f.path("model"), "--seq_len", "24", "--batch", "2",
                      "--steps", "2", "--trace", path, "--activation_checkpointing", recompute});
    const json trace = json::parse(ds::read_file(path));
    CHECK(trace_problems(trace) == std::vector<std::string>{});
    double ops = 0.0;
    double flops = 0.0;
    double seconds = 0.0;
    double activations = 0.0;
    double workspace = 0.0;
    std::map<std::string, int> phases;
    double step_end = 0.0;
    for (const json& event : trace["traceEvents"]) {
      if (event["ph"] == "C" && event["name"] == "memory") {
        activations = std::max(activations, event["args"]["activations"].get<double>());
        workspace = std::max(workspace, event["args"]["workspace"].get<double>());
      }
      if (event["ph"] != "X") continue;
      const double end = event["ts"].get<double>() + event["dur"].get<double>();
      if (event["cat"] == "step") step_end = end;
      CHECK(end <= step_end + 1e-6);
      if (event["cat"] == "phase") ++phases[event["name"]];
      if (event["cat"] != "op") continue;
      ops += 1.0;
      CHECK((event["args"].contains("above_peak") || event["args"]["flops"] == 0.0) !=
            event["args"].contains("gflops_per_second"));
      flops += event["args"]["flops"].get<double>();
      seconds += event["dur"].get<double>() * 1e-6;
    }
    CHECK(phases == std::map<std::string, int>{
                        {"forward", 2}, {"head", 2}, {"backward", 2}, {"optimizer", 2}});
    CHECK(ops == 2.0 * d["step"]["op_calls"].get<double>());
    CHECK(flops == doctest::Approx(2.0 * d["step"]["flops"].get<double>()).epsilon(1e-6));
    // Nanoseconds are cut off, one an op.
    CHECK(seconds == doctest::Approx(2.0 * sum(d["ops"], "seconds")).epsilon(1e-3));
    CHECK(activations == d["memory"]["parts"]["activations"].get<double>());
    CHECK(workspace == d["memory"]["parts"]["workspace"].get<double>());
  }
}

TEST_CASE("the memory of a training step over time") {
  const Folder f;
  write_tiny_model(f.root() / "model", {});
  const json d = profile_json(
      {"layers", "--model", f.path("model"), "--seq_len", "24", "--batch", "2", "--steps", "1"});
  const json& timeline = d["memory_timeline"];
  std::vector<std::string> spans;
  std::int64_t highest = 0;
  for (const json& span : timeline["spans"]) {
    spans.push_back(span["phase"].get<std::string>() + " " + span["name"].get<std::string>());
    highest = std::max(highest, span["peak_bytes"].get<std::int64_t>());
    for (const char* border : {"begin", "end"}) {
      std::int64_t bytes = -span[border]["parts"]["base"].get<std::int64_t>();
      for (const auto& [name, part] : span[border]["parts"].items()) {
        bytes += part.get<std::int64_t>();
      }
      CHECK(bytes == span[border]["bytes"].get<std::int64_t>());
      CHECK(bytes <= span["peak_bytes"].get<std::int64_t>());
    }
  }
  CHECK(spans == std::vector<std::string>{"forward embedding", "forward layers.0",
                                          "forward layers.1", "forward layers.2", "head head",
                                          "backward layers.2", "backward layers.1",
                                          "backward layers.0", "optimizer optimizer"});
  const json& peak = timeline["peak"];
  CHECK(peak["bytes"] == highest);
  CHECK(peak["parts"]["gradients"] == d["memory"]["parts"]["gradients"]);
  CHECK(peak["parts"]["base"] == d["memory"]["parts"]["base"]);
  // A layer's activations are kept until its backward is through: the head sees those of all.
  CHECK(timeline["spans"][4]["begin"]["parts"]["activations"] ==
        d["memory"]["parts"]["activations"]);
  const auto kept_before = [&](std::size_t span) {
    return timeline["spans"][span]["begin"]["parts"]["activations"].get<std::int64_t>();
  };
  for (const std::size_t layer : {0, 1, 2}) {
    const std::size_t forward = 1 + layer;
    const std::size_t backward = 7 - layer;
    // The input of the layer above comes before its scope.
    CHECK(kept_before(backward) <= kept_before(forward + 1));
    CHECK(kept_before(backward) > kept_before(forward));
  }
  CHECK(timeline["spans"].back()["end"]["parts"]["activations"] == 0);
}
