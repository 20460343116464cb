// What a run plans to keep, against what the model does keep.
#include "libcore/train/memory_plan.h"

#include <doctest/doctest.h>

#include <filesystem>

#include "libcore/config/lora_config.h"
#include "libcore/data/example.h"
#include "tests/support/paths.h"
#include "tests/support/tiny_model.h"

using namespace ds;
using namespace ds::test;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kTokens = 96;

// Peak of the activation arena over one forward and backward of every attention and expert adapter.
std::size_t peak_of(const fs::path& folder, Recompute recompute) {
  const ModelConfig config = load_model_config(folder);
  const auto model = DeepSeekModel::load(config, Checkpoint::open(folder), DType::kF32, kTokens);
  LoraConfig lora;
  lora.r = 4;
  set_targets(lora, "all", config);
  model->add_lora(lora, match_targets(lora, config));
  model->allocate_gradients();
  Device device = Device::cpu(1);
  Arena saved("saved"), scratch("scratch");
  Exec exec{.device = device, .saved = saved, .scratch = scratch, .training = true};
  Example example;
  for (std::int64_t i = 0; i < kTokens; ++i) {
    example.ids.push_back(static_cast<std::int32_t>(2 + i % (kTinyVocab - 2)));
    example.labels.push_back(example.ids.back());
  }
  TokenBatch batch;
  append_segment(batch, example);
  model->forward_backward(exec, batch, 1.0, recompute);
  return saved.peak_bytes();
}

}  // namespace

TEST_CASE("groups of activations: cheapest to make again first, and all of them") {
  for (const bool q_lora : {true, false}) {
    const fs::path folder = make_temp_dir("plan");
    write_tiny_model(folder, {.q_lora = q_lora});
    const ModelConfig config = load_model_config(folder);
    const auto groups = activation_groups(config, 4, 32);
    for (std::size_t i = 1; i < groups.size(); ++i) {
      CHECK(static_cast<double>(groups[i - 1].elements) / groups[i - 1].flops >=
            static_cast<double>(groups[i].elements) / groups[i].flops);
    }
    CHECK(groups.front().name == "norm outputs");
    // Attention over long rows costs more than it saves.
    CHECK(drops_attention(config, 16));
    CHECK_FALSE(drops_attention(config, 4096));
    for (const ActivationGroup& group : groups) {
      CAPTURE(group.name);
      CHECK(group.elements > 0);
      CHECK(group.flops > 0.0);
      if (group.name == "routed gate, up") CHECK_FALSE(group.dropped_selective);
      if (group.name == "dense gate, up") CHECK(group.dropped_selective);
    }
    fs::remove_all(folder);
  }
}

TEST_CASE("the planned activations are what the model keeps") {
  const fs::path folder = make_temp_dir("plan");
  write_tiny_model(folder, {.layers = 6});
  const ModelConfig config = load_model_config(folder);
  std::size_t before = 0;
  for (const Recompute recompute : {Recompute::kFull, Recompute::kSelective, Recompute::kNone}) {
    CAPTURE(static_cast<int>(recompute));
    const MemoryPlan plan = plan_memory(config, {.trainable = 1,
                                                 .tokens = kTokens,
                                                 .longest = kTokens,
                                                 .lora_rank = 4,
                                                 .recompute = recompute});
    const auto planned = static_cast<double>(plan.parts.at("activations"));
    const std::size_t measured = peak_of(folder, recompute);
    MESSAGE("planned " << planned << ", measured " << measured);
    CHECK(measured > before);
    CHECK(static_cast<double>(measured) <= 1.1 * planned);
    CHECK(static_cast<double>(measured) >= 0.75 * planned);
    before = measured;
  }
  fs::remove_all(folder);
}
