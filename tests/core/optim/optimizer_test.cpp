#include "libcore/optim/optimizer.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/optim/schedule.h"
#include "tests/support/paths.h"

namespace {

using ds::DType;
using ds::LrGroup;
using ds::Optimizer;
using ds::OptimizerConfig;
using ds::Parameter;
using ds::ParameterRole;
using ds::Tensor;

// Parameters with stable addresses.
struct Model {
  std::deque<Parameter> storage;
  std::vector<Parameter*> pointers;

  Parameter& add(const std::string& name, ParameterRole role, std::vector<std::int64_t> shape) {
    Parameter& parameter = storage.emplace_back();
    parameter.name = name;
    parameter.role = role;
    parameter.value = Tensor(DType::kF32, shape);
    parameter.grad = Tensor(DType::kF32, shape);
    pointers.push_back(&parameter);
    return parameter;
  }
};

void fill(Tensor& tensor, const std::vector<float>& values) {
  REQUIRE(static_cast<std::int64_t>(values.size()) == tensor.size());
  std::copy(values.begin(), values.end(), tensor.as<float>());
}

std::vector<float> values(const Tensor& tensor) {
  return {tensor.as<float>(), tensor.as<float>() + tensor.size()};
}

void set_grad(Parameter& parameter, const std::vector<float>& gradient) {
  fill(parameter.grad, gradient);
  parameter.touched = true;
}

nlohmann::json golden(const char* file) {
  const auto shared = ds::test::shared_dir();
  if (shared.empty()) return {};
  return ds::parse_json_file(shared / "goldens" / "optim" / file);
}

// Distance in units in the last place of two floats of equal sign.
std::int64_t ulps(float a, float b) {
  return std::abs(static_cast<std::int64_t>(std::bit_cast<std::int32_t>(a)) -
                  static_cast<std::int64_t>(std::bit_cast<std::int32_t>(b)));
}

TEST_CASE("AdamW follows torch step by step") {
  const auto json = golden("adamw.json");
  if (json.is_null()) {
    MESSAGE("skipped: no shared folder");
    return;
  }
  using ds::kernels::Isa;
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    CAPTURE(static_cast<int>(isa));
    Model model;
    Parameter& p = model.add("w", ParameterRole::kWeight, {5});
    fill(p.value, json.at("start").get<std::vector<float>>());
    OptimizerConfig config;
    config.learning_rate = json.at("lr").get<double>();
    config.weight_decay = json.at("weight_decay").get<double>();
    config.max_grad_norm = 0.0;
    Optimizer optimizer(config, model.pointers);
    ds::Device device = ds::Device::cpu(1, isa);
    std::int64_t worst = 0;
    std::vector<float> previous(5, 0.0f);
    for (const auto& step : json.at("steps")) {
      set_grad(p, step.at("grad").get<std::vector<float>>());
      const auto report = optimizer.step(device, 1.0);
      CHECK(report.updated == 1);
      std::istringstream bits(step.at("param_bits").get<std::string>());
      for (std::size_t i = 0; i < 5; ++i) {
        std::uint32_t wanted = 0;
        bits >> std::hex >> wanted;
        worst = std::max(worst, ulps(p.value.as<float>()[i], std::bit_cast<float>(wanted)));
        const auto& state = optimizer.states()[0];
        const auto m = step.at("exp_avg")[i].get<float>();
        const auto v = step.at("exp_avg_sq")[i].get<float>();
        // m + 0.1 (g - m) cancels: its rounding is that of the operands.
        const float operands = std::abs(previous[i]) + std::abs(step.at("grad")[i].get<float>());
        CHECK(std::abs(state.exp_avg.as<float>()[i] - m) <= 6e-8f * operands);
        CHECK(std::abs(state.exp_avg_sq.as<float>()[i] - v) <= 1.2e-7f * v);
        previous[i] = m;
      }
    }
    CHECK(worst == 0);
    CHECK(optimizer.states()[0].step == 5);
  }
}

TEST_CASE("clipping follows torch") {
  const auto json = golden("clip.json");
  if (json.is_null()) {
    MESSAGE("skipped: no shared folder");
    return;
  }
  for (const auto& item : json) {
    Model model;
    Model scaled;  // the same gradients, clipped by hand, without clipping
    const auto& before = item.at("before");
    for (std::size_t t = 0; t < before.size(); ++t) {
      const auto shape = std::vector<std::int64_t>{static_cast<std::int64_t>(before[t].size())};
      set_grad(model.add("p", ParameterRole::kWeight, shape), before[t].get<std::vector<float>>());
      set_grad(scaled.add("p", ParameterRole::kWeight, shape),
               item.at("after")[t].get<std::vector<float>>());
    }
    OptimizerConfig config;
    config.max_grad_norm = item.at("max_norm").get<double>();
    Optimizer optimizer(config, model.pointers);
    config.max_grad_norm = 0.0;
    Optimizer plain(config, scaled.pointers);
    ds::Device device = ds::Device::cpu(1);
    const double norm = item.at("norm").get<double>();
    CHECK(optimizer.step(device, 1.0).grad_norm == doctest::Approx(norm).epsilon(1e-6));
    plain.step(device, 1.0);
    for (std::size_t t = 0; t < before.size(); ++t) {
      // The first moment is 0.1 times the clipped gradient.
      const auto m = values(optimizer.states()[t].exp_avg);
      const auto wanted = values(plain.states()[t].exp_avg);
      for (std::size_t i = 0; i < m.size(); ++i) {
        CHECK(std::abs(m[i] - wanted[i]) <= 3e-7f * std::abs(wanted[i]));
      }
    }
  }
}

TEST_CASE("LoRA+ groups are peft's") {
  const auto shared = ds::test::shared_dir();
  if (shared.empty()) {
    MESSAGE("skipped: no shared folder");
    return;
  }
  const auto json =
      ds::parse_json_file(shared / "goldens" / "tiny-v3" / "train" / "loraplus_groups.json");
  std::size_t checked = 0;
  for (const auto& [variant, keys] : json.items()) {
    for (const auto& [key, group] : keys.items()) {
      Parameter parameter;
      parameter.name = key.substr(std::string("base_model.model.").size());
      const bool magnitude = key.ends_with("lora_magnitude_vector");
      parameter.role = magnitude                        ? ParameterRole::kMagnitude
                       : key.ends_with("lora_A.weight") ? ParameterRole::kLoraA
                                                        : ParameterRole::kLoraB;
      parameter.value = Tensor(
          DType::kF32, magnitude ? std::vector<std::int64_t>{2} : std::vector<std::int64_t>{2, 2});
      const auto wanted = group == "A" ? LrGroup::kA : LrGroup::kB;
      CHECK(ds::lr_group(parameter, true) == wanted);
      CHECK(ds::lr_group(parameter, false) == LrGroup::kA);
      ++checked;
    }
  }
  CHECK(checked == 268);
}

TEST_CASE("groups of embeddings, norms and biases") {
  Model model;
  const Parameter& ea =
      model.add("model.embed_tokens.lora_embedding_A", ParameterRole::kLoraEmbedding, {4, 2});
  const Parameter& eb =
      model.add("model.embed_tokens.lora_embedding_B", ParameterRole::kLoraEmbedding, {4, 2});
  const Parameter& norm = model.add("model.norm.weight", ParameterRole::kNorm, {4});
  const Parameter& bias = model.add("q_a_proj.bias", ParameterRole::kWeight, {4});
  const Parameter& weight = model.add("lm_head.weight", ParameterRole::kWeight, {4, 2});
  CHECK(ds::lr_group(ea, true) == LrGroup::kEmbedding);
  CHECK(ds::lr_group(eb, true) == LrGroup::kEmbedding);
  CHECK(ds::lr_group(norm, true) == LrGroup::kB);
  CHECK(ds::lr_group(bias, true) == LrGroup::kBNoDecay);
  CHECK(ds::lr_group(weight, true) == LrGroup::kA);
  for (const Parameter* p : model.pointers) CHECK(ds::lr_group(*p, false) == LrGroup::kA);

  OptimizerConfig config;
  config.learning_rate = 5e-5;
  config.lora_plus = true;
  config.weight_decay = 0.1;
  CHECK(ds::group_learning_rate(config, LrGroup::kA) == 5e-5);
  CHECK(ds::group_learning_rate(config, LrGroup::kB) == doctest::Approx(8e-4).epsilon(1e-15));
  CHECK(ds::group_learning_rate(config, LrGroup::kBNoDecay) ==
        ds::group_learning_rate(config, LrGroup::kB));
  CHECK(ds::group_learning_rate(config, LrGroup::kEmbedding) == 1e-6);
  CHECK(ds::group_weight_decay(config, LrGroup::kB) == 0.1);
  CHECK(ds::group_weight_decay(config, LrGroup::kEmbedding) == 0.1);
  CHECK(ds::group_weight_decay(config, LrGroup::kBNoDecay) == 0.0);
}

TEST_CASE("the rates of the golden trajectories") {
  const auto shared = ds::test::shared_dir();
  if (shared.empty()) {
    MESSAGE("skipped: no shared folder");
    return;
  }
  for (const bool plus : {false, true}) {
    const auto json = ds::parse_json_file(shared / "goldens" / "tiny-v3" / "train" /
                                          (plus ? "loraplus" : "lora") / "trajectory.json");
    OptimizerConfig config;
    config.learning_rate = 1e-3;
    config.lora_plus = plus;
    const ds::Schedule schedule{ds::ScheduleKind::kLinear, 3, 12};
    const std::vector<LrGroup> groups =
        plus ? std::vector{LrGroup::kA, LrGroup::kEmbedding, LrGroup::kB, LrGroup::kBNoDecay}
             : std::vector{LrGroup::kA};
    Model model;
    Parameter& a = model.add("x.lora_A.weight", ParameterRole::kLoraA, {1, 1});
    Optimizer optimizer(config, model.pointers);
    ds::Device device = ds::Device::cpu(1);
    for (std::size_t s = 0; s < json.at("steps").size(); ++s) {
      const auto& rates = json.at("steps")[s].at("lr");
      const double factor = schedule.factor(static_cast<std::int64_t>(s));
      REQUIRE(rates.size() == groups.size());
      for (std::size_t g = 0; g < groups.size(); ++g) {
        const double wanted = rates[g].get<double>();
        CHECK(std::abs(ds::group_learning_rate(config, groups[g]) * factor - wanted) <=
              4e-16 * wanted);
      }
      set_grad(a, {1.0f});
      const auto report = optimizer.step(device, factor);
      CHECK(report.lr_a == doctest::Approx(rates[0].get<double>()).epsilon(1e-15));
      CHECK(report.lr_b == doctest::Approx(rates[plus ? 2 : 0].get<double>()).epsilon(1e-15));
    }
  }
}

TEST_CASE("each parameter moves at its group's rate") {
  Model model;
  Parameter& a = model.add("x.lora_A.weight", ParameterRole::kLoraA, {1, 1});
  Parameter& b = model.add("x.lora_B.weight", ParameterRole::kLoraB, {1, 1});
  Parameter& e = model.add("e.lora_embedding_A", ParameterRole::kLoraEmbedding, {1, 1});
  OptimizerConfig config;
  config.learning_rate = 1e-3;
  config.lora_plus = true;
  config.loraplus_lr_ratio = 16;
  config.loraplus_lr_embedding = 1e-4;
  config.max_grad_norm = 0.0;
  Optimizer optimizer(config, model.pointers);
  ds::Device device = ds::Device::cpu(1);
  for (Parameter* p : model.pointers) set_grad(*p, {0.5f});
  optimizer.step(device, 0.5);
  // The first AdamW step moves by the rate itself.
  CHECK(a.value.as<float>()[0] == doctest::Approx(-5e-4).epsilon(1e-6));
  CHECK(b.value.as<float>()[0] == doctest::Approx(-8e-3).epsilon(1e-6));
  CHECK(e.value.as<float>()[0] == doctest::Approx(-5e-5).epsilon(1e-6));
}

TEST_CASE("untouched and frozen parameters are skipped, with their own counts") {
  Model model;
  Parameter& seen = model.add("a", ParameterRole::kLoraA, {2});
  Parameter& idle = model.add("b", ParameterRole::kLoraA, {2});
  Parameter& frozen = model.add("c", ParameterRole::kLoraA, {2});
  for (Parameter* p : model.pointers) fill(p->value, {1.0f, -2.0f});
  frozen.trainable = false;
  OptimizerConfig config;
  config.weight_decay = 0.5;
  config.max_grad_norm = 0.0;
  Optimizer optimizer(config, model.pointers);
  ds::Device device = ds::Device::cpu(1);
  set_grad(seen, {3.0f, 4.0f});
  set_grad(frozen, {100.0f, 100.0f});
  const auto report = optimizer.step(device, 1.0);
  CHECK(report.grad_norm == 5.0);  // the frozen gradient does not count
  CHECK(report.updated == 1);
  CHECK(values(idle.value) == std::vector<float>{1.0f, -2.0f});
  CHECK(values(frozen.value) == std::vector<float>{1.0f, -2.0f});
  CHECK(values(seen.value) != std::vector<float>{1.0f, -2.0f});
  CHECK_FALSE(optimizer.states()[1].exp_avg);
  CHECK_FALSE(optimizer.states()[2].exp_avg);
  for (const Parameter* p : model.pointers) {
    CHECK_FALSE(p->touched);
    CHECK(values(p->grad) == std::vector<float>{0.0f, 0.0f});
  }
  // The late one's first update has the bias correction of step 1.
  set_grad(seen, {1.0f, 1.0f});
  set_grad(idle, {1.0f, 1.0f});
  optimizer.step(device, 1.0);
  CHECK(optimizer.states()[0].step == 2);
  CHECK(optimizer.states()[1].step == 1);
  CHECK(optimizer.states()[2].step == 0);
  CHECK(idle.value.as<float>()[0] == doctest::Approx(1.0 - 1e-4 * 0.5 - 1e-4).epsilon(1e-6));
}

TEST_CASE("a non-finite gradient is named and nothing is updated") {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    Model model;
    Parameter& a = model.add("first", ParameterRole::kLoraA, {3});
    Parameter& b = model.add("second", ParameterRole::kLoraA, {3});
    Parameter& c = model.add("third", ParameterRole::kLoraA, {3});
    OptimizerConfig config;
    config.weight_decay = 0.1;
    Optimizer optimizer(config, model.pointers);
    ds::Device device = ds::Device::cpu(1);
    for (Parameter* p : model.pointers) fill(p->value, {1.0f, 2.0f, 3.0f});
    set_grad(a, {1.0f, 1.0f, 1.0f});
    set_grad(b, {1.0f, 1.0f, bad});
    set_grad(c, {bad, 1.0f, 1.0f});
    const auto report = optimizer.step(device, 1.0);
    CHECK(report.non_finite == "second");
    CHECK(report.updated == 0);
    CHECK_FALSE(std::isfinite(report.grad_norm));
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(values(model.pointers[i]->value) == std::vector<float>{1.0f, 2.0f, 3.0f});
      CHECK(optimizer.states()[i].step == 0);
      CHECK(values(model.pointers[i]->grad) == std::vector<float>{0.0f, 0.0f, 0.0f});
    }
    // The run can go on.
    set_grad(a, {1.0f, 1.0f, 1.0f});
    CHECK(optimizer.step(device, 1.0).updated == 1);
  }
}

TEST_CASE("the largest finite gradients are no overflow of the norm") {
  Model model;
  Parameter& a = model.add("a", ParameterRole::kLoraA, {2});
  Optimizer optimizer(OptimizerConfig{}, model.pointers);
  ds::Device device = ds::Device::cpu(1);
  set_grad(a, {3e38f, -3e38f});
  const auto report = optimizer.step(device, 1.0);
  CHECK(report.non_finite.empty());
  CHECK(report.grad_norm == doctest::Approx(3e38 * std::sqrt(2.0)));
  CHECK(std::isfinite(a.value.as<float>()[0]));
}

TEST_CASE("a window without gradients updates nothing") {
  Model model;
  model.add("a", ParameterRole::kLoraA, {2});
  Optimizer optimizer(OptimizerConfig{}, model.pointers);
  ds::Device device = ds::Device::cpu(1);
  const auto report = optimizer.step(device, 1.0);
  CHECK(report.updated == 0);
  CHECK(report.grad_norm == 0.0);
  CHECK(report.non_finite.empty());
}

TEST_CASE("zero_grad and reset") {
  Model model;
  Parameter& a = model.add("a", ParameterRole::kLoraA, {2});
  Parameter& b = model.add("b", ParameterRole::kLoraA, {2});
  Optimizer optimizer(OptimizerConfig{}, model.pointers);
  ds::Device device = ds::Device::cpu(1);
  set_grad(a, {1.0f, 2.0f});
  fill(b.grad, {7.0f, 7.0f});  // not touched: costs no time, so stays
  optimizer.zero_grad();
  CHECK(values(a.grad) == std::vector<float>{0.0f, 0.0f});
  CHECK(values(b.grad) == std::vector<float>{7.0f, 7.0f});
  CHECK_FALSE(a.touched);
  set_grad(a, {1.0f, 2.0f});
  optimizer.step(device, 1.0);
  CHECK(optimizer.states()[0].step == 1);
  optimizer.reset();
  CHECK(optimizer.states()[0].step == 0);
  CHECK_FALSE(optimizer.states()[0].exp_avg);
}

TEST_CASE("a touched parameter without a gradient is a defect") {
  Model model;
  Parameter& a = model.add("a", ParameterRole::kLoraA, {2});
  a.grad = Tensor();
  a.touched = true;
  Optimizer optimizer(OptimizerConfig{}, model.pointers);
  ds::Device device = ds::Device::cpu(1);
  CHECK_THROWS_AS(optimizer.step(device, 1.0), ds::Error);
}

TEST_CASE("updates do not depend on the number of threads") {
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    Model model;
    for (int t = 0; t < 40; ++t) {
      Parameter& p = model.add("p", ParameterRole::kLoraA, {1 + t * 37});
      std::vector<float> gradient(static_cast<std::size_t>(p.value.size()));
      for (std::size_t i = 0; i < gradient.size(); ++i) {
        gradient[i] = std::sin(static_cast<float>(i) * 0.7f + static_cast<float>(t));
      }
      set_grad(p, gradient);
    }
    Optimizer optimizer(OptimizerConfig{}, model.pointers);
    ds::Device device = ds::Device::cpu(threads);
    optimizer.step(device, 1.0);
    std::vector<float> all;
    for (const Parameter* p : model.pointers) {
      const auto v = values(p->value);
      all.insert(all.end(), v.begin(), v.end());
    }
    results.push_back(std::move(all));
  }
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
}

}  // namespace
