#include "libcore/train/layer_selection.h"

#include <doctest/doctest.h>

#include <cstring>
#include <deque>
#include <filesystem>
#include <map>
#include <string>

#include "libcore/base/error.h"
#include "libcore/base/rng.h"
#include "libcore/config/lora_config.h"
#include "libcore/train/trainer.h"
#include "tests/support/paths.h"
#include "tests/support/tiny_model.h"

using namespace ds;
using namespace ds::test;
namespace fs = std::filesystem;

namespace {

// `layers` layers of one A and one B each, and a head that belongs to none.
struct Adapters {
  std::deque<Parameter> storage;
  std::vector<Parameter*> all;
  explicit Adapters(int layers) {
    for (int layer = 0; layer < layers; ++layer) {
      for (const char* tail :
           {".self_attn.o_proj.lora_A.weight", ".self_attn.o_proj.lora_B.weight"}) {
        add("model.layers." + std::to_string(layer) + tail);
      }
    }
    add("lm_head.lora_A.weight");
  }
  void add(const std::string& name) {
    Parameter& parameter = storage.emplace_back();
    parameter.name = name;
    all.push_back(&parameter);
  }
  // Squared norms that give layer l the norm `norms[l]`, shared out over A and B.
  std::vector<double> squares(const std::vector<double>& norms) const {
    std::vector<double> squares;
    for (const double norm : norms) {
      squares.push_back(0.25 * norm * norm);
      squares.push_back(0.75 * norm * norm);
    }
    squares.push_back(1e6);  // outside the layers
    return squares;
  }
};

using Layers = std::vector<std::int64_t>;

TokenBatch batch_of(std::uint64_t seed) {
  TokenBatch batch;
  const Rng rng(seed, 3);
  Example example;
  for (std::uint64_t i = 0; i < 24; ++i) {
    example.ids.push_back(static_cast<std::int32_t>(rng.bits(i) % kTinyVocab));
    example.labels.push_back(example.ids.back());
  }
  append_segment(batch, example);
  return batch;
}

// A model with adapters of known values on `targets`, and its trainer.
struct Run {
  ModelConfig config;
  std::unique_ptr<DeepSeekModel> model;
  std::unique_ptr<Optimizer> optimizer;
  Device device = Device::cpu(2);
  std::unique_ptr<Trainer> trainer;

  Run(const fs::path& folder, Recompute recompute, bool dora = false)
      : config(load_model_config(folder)),
        model(DeepSeekModel::load(config, Checkpoint::open(folder), DType::kF32, 64)) {
    LoraConfig lora;
    lora.r = 3;
    lora.dropout = dora ? 0.0 : 0.2;
    lora.use_dora = dora;
    set_targets(lora, dora ? "attention" : "all", config);
    model->add_lora(lora, match_targets(lora, config));
    for (Parameter* p : model->parameters()) {
      const Rng rng(11, static_cast<std::uint64_t>(p->value.size()));
      for (std::int64_t i = 0; i < p->value.size(); ++i) {
        p->value.as<float>()[i] =
            0.05f * static_cast<float>(rng.normal(static_cast<std::uint64_t>(i)));
      }
    }
    if (dora) model->reset_magnitudes();
    model->allocate_gradients();
    optimizer =
        std::make_unique<Optimizer>(OptimizerConfig{.max_grad_norm = 0.0}, model->parameters());
    trainer = std::make_unique<Trainer>(*model, *optimizer, device, 5, recompute);
  }
  UpdateReport update(std::int64_t step) {
    Window window;
    window.batches = {batch_of(7), batch_of(8)};
    window.targets = window.batches[0].target_count() + window.batches[1].target_count();
    window.tokens = window.batches[0].tokens() + window.batches[1].tokens();
    return trainer->update(window, step, 1.0);
  }
};

bool same(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() &&
         std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.bytes())) == 0;
}

Tensor copy(const Tensor& from) {
  Tensor to(from.dtype(), from.shape());
  std::memcpy(to.data(), from.data(), static_cast<std::size_t>(from.bytes()));
  return to;
}

std::int64_t layer_number(const Parameter& parameter) {
  return parameter.name.rfind("model.layers.", 0) == 0 ? parameter.name[13] - '0' : -1;
}

}  // namespace

TEST_CASE("the quantile, ties, and the refresh") {
  const Adapters adapters(10);
  LayerSelection selection({.threshold = 0.7, .refresh = 4, .decay = 0.5}, adapters.all);
  selection.begin(0);
  CHECK(selection.refreshing());
  CHECK(selection.computed().size() == 10);
  selection.measure(adapters.squares({1, 9, 2, 8, 3, 7, 4, 4, 4, 4}));
  selection.begin(1);
  CHECK_FALSE(selection.refreshing());
  CHECK(selection.computed() == Layers{1, 3, 5});  // three of ten at 0.7
  CHECK(selection.skipped() == Layers{0, 2, 4, 6, 7, 8, 9});
  CHECK(adapters.all[0]->skipped);
  CHECK_FALSE(adapters.all[2]->skipped);
  CHECK_FALSE(adapters.all.back()->skipped);

  // Not measured outside a refresh.
  selection.measure(adapters.squares({100, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  selection.begin(2);
  CHECK(selection.computed() == Layers{1, 3, 5});

  // The mean: (share + share') / 2. Layer 9 rises, and equal layers go by number.
  selection.begin(4);
  CHECK(selection.refreshing());
  CHECK_FALSE(adapters.all[0]->skipped);
  selection.measure(adapters.squares({1, 9, 2, 8, 3, 7, 4, 4, 4, 40}));
  selection.begin(5);
  CHECK(selection.computed() == Layers{1, 3, 9});
  double sum = 0.0;
  for (const double value : selection.importance()) sum += value;
  CHECK(sum == doctest::Approx(1.0));

  CHECK(selected_layers(0.7, 10) == 3);
  CHECK(selected_layers(0.7, 6) == 2);
  CHECK(selected_layers(0.3, 10) == 7);
  CHECK(selected_layers(0.999, 2) == 1);
  CHECK(selected_layers(0.1, 2) == 2);
  CHECK(refreshing_updates({.refresh = 4}, 8) == 2);
  CHECK(refreshing_updates({.refresh = 4}, 9) == 3);

  LayerSelection again({.threshold = 0.7, .refresh = 4, .decay = 0.5}, adapters.all);
  again.set_importance(selection.importance());
  again.begin(5);
  CHECK(again.computed() == selection.computed());
}

TEST_CASE("at least one layer, never measured layers, and stages that narrow the choice") {
  const Adapters adapters(4);
  LayerSelection selection({.threshold = 0.99}, adapters.all);
  selection.begin(1);  // nothing measured: nothing may be left out
  CHECK(selection.computed().size() == 4);
  selection.begin(0);
  selection.measure(adapters.squares({5, 5, 5, 5}));
  selection.begin(1);
  CHECK(selection.computed() == Layers{0});
  adapters.all[0]->trainable = adapters.all[1]->trainable = false;
  selection.begin(2);
  CHECK(selection.computed() == Layers{1});
  CHECK(selection.skipped() == Layers{2, 3});
}

TEST_CASE("what makes no sense is refused by name") {
  const Adapters four(4);
  const Adapters one(1);
  CHECK_THROWS_WITH_AS(LayerSelection({.threshold = 1.0}, four.all),
                       doctest::Contains("threshold 1 "), Error);
  CHECK_THROWS_WITH_AS(LayerSelection({.threshold = 0.0}, four.all),
                       doctest::Contains("threshold 0 "), Error);
  CHECK_THROWS_WITH_AS(LayerSelection({.threshold = 0.5, .refresh = 0}, four.all),
                       doctest::Contains("refresh 0"), Error);
  CHECK_THROWS_WITH_AS(LayerSelection({.threshold = 0.5, .decay = 1.0}, four.all),
                       doctest::Contains("decay 1"), Error);
  CHECK_THROWS_WITH_AS(LayerSelection({.threshold = 0.5}, one.all), doctest::Contains("only one"),
                       Error);
}

TEST_CASE("computed layers get the gradient of the full run; skipped ones stay, to the bit") {
  const fs::path folder = make_temp_dir("selection");
  write_tiny_model(folder, {.layers = 4});
  for (const bool dora : {false, true}) {
    for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
      CAPTURE(dora);
      CAPTURE(static_cast<int>(recompute));
      Run full(folder, recompute, dora);
      Run some(folder, recompute, dora);
      LayerSelection selection({.threshold = 0.5, .refresh = 3}, some.model->parameters());
      some.trainer->select_layers(&selection);
      const UpdateReport first = full.update(0);
      const UpdateReport refresh = some.update(0);
      CHECK(refresh.loss_sum == first.loss_sum);
      CHECK(refresh.activation_bytes == first.activation_bytes);

      std::vector<Tensor> values;
      std::vector<Tensor> moments;
      std::vector<Tensor> squares;
      std::vector<std::int64_t> counts;
      for (std::size_t i = 0; i < some.model->parameters().size(); ++i) {
        CHECK(same(some.model->parameters()[i]->value, full.model->parameters()[i]->value));
        values.push_back(copy(some.model->parameters()[i]->value));
        const Optimizer::State& state = some.optimizer->states()[i];
        moments.push_back(state.exp_avg ? copy(state.exp_avg) : Tensor());
        squares.push_back(state.exp_avg_sq ? copy(state.exp_avg_sq) : Tensor());
        counts.push_back(state.step);
      }
      const UpdateReport all = full.update(1);
      const UpdateReport part = some.update(1);
      CHECK(part.loss_sum == all.loss_sum);
      CHECK(selection.computed().size() == 2);
      int skipped = 0;
      int trained = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        const Parameter& parameter = *some.model->parameters()[i];
        const Optimizer::State& state = some.optimizer->states()[i];
        const std::int64_t layer = layer_number(parameter);
        const auto& out = selection.skipped();
        if (std::find(out.begin(), out.end(), layer) != out.end()) {
          ++skipped;
          CHECK(same(parameter.value, values[i]));
          CHECK(state.step == counts[i]);
          CHECK(static_cast<bool>(state.exp_avg) == (counts[i] > 0));
          if (state.exp_avg) CHECK(same(state.exp_avg, moments[i]));
          if (state.exp_avg_sq) CHECK(same(state.exp_avg_sq, squares[i]));
        } else {
          ++trained;
          CHECK(same(parameter.value, full.model->parameters()[i]->value));
        }
      }
      CHECK(skipped > 0);
      CHECK(trained > 0);
      // Nothing is kept for the gradients of the layers left out.
      if (recompute != Recompute::kFull) CHECK(part.activation_bytes < all.activation_bytes);
    }
  }
  fs::remove_all(folder);
}

TEST_CASE("what only adapter gradients read is kept for trained layers alone") {
  const fs::path folder = make_temp_dir("selection-kept");
  write_tiny_model(folder, {.layers = 4});
  Run run(folder, Recompute::kNone);
  run.update(0);
  const std::map<std::string, std::size_t> whole = run.trainer->saved().peak_by_name();
  // The last layer has a row a target: what it gathers for them exists in no other layer.
  REQUIRE(whole.count("attention.o_wanted") == 1);
  REQUIRE(whole.count("attention.xq") == 1);
  // Layer 0 alone is trained, so that the backward pass reaches every layer.
  for (Parameter* p : run.model->parameters()) p->skipped = layer_number(*p) != 0;
  run.update(1);
  const std::map<std::string, std::size_t> part = run.trainer->saved().peak_by_name();
  for (const char* name : {"attention.xn", "attention.latent"}) {
    CAPTURE(name);
    REQUIRE(part.count(name) == 1);
    CHECK(4 * part.at(name) == whole.at(name));
  }
  for (const char* name : {"attention.o_wanted", "attention.xq"}) {
    CAPTURE(name);
    CHECK(part.count(name) == 0);
  }
  CHECK(part.at("lora.p") < whole.at("lora.p"));
  CHECK(part.at("mlp.xn") < whole.at("mlp.xn"));
  // What the gradient passes through stays.
  for (const char* name : {"attention.o", "attention.q", "attention.kv", "block.h_mid"}) {
    CAPTURE(name);
    CHECK(part.at(name) == whole.at(name));
  }
  fs::remove_all(folder);
}
