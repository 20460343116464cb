// What a training step allocates once it has run before: nothing, however it is set up.
#include <doctest/doctest.h>

#include <filesystem>
#include <memory>

#include "libcore/base/rng.h"
#include "libcore/train/lora_init.h"
#include "libcore/train/trainer.h"
#include "tests/support/tiny_model.h"
#include "tests/tools/profile/program.h"
#include "tools/profile/allocations.h"

using namespace ds;
using namespace ds::test;
using ds::profile::allocation_counts;
using ds::profile::Uncounted;

namespace {

struct Setup {
  std::string name;
  Recompute recompute = Recompute::kNone;
  DType dtype = DType::kF32;
  bool dora = false;
  double dropout = 0.0;
  bool full_parameters = false;
  bool masked = false;    // prompts that predict nothing
  bool streamed = false;  // the base comes and goes layer by layer
  bool selects = false;   // some layers are left out of most updates
};

Window window_of(bool masked) {
  Window window;
  const Rng rng(5, 17);
  std::uint64_t draw = 0;
  for (int micro = 0; micro < 2; ++micro) {
    TokenBatch batch;
    for (const int length : {7, 12, 3}) {
      Example example;
      for (int i = 0; i < length; ++i) {
        example.ids.push_back(static_cast<std::int32_t>(rng.bits(draw++) % kTinyVocab));
        example.labels.push_back(masked && i < length / 2 ? kNoTarget : example.ids.back());
      }
      append_segment(batch, example);
    }
    window.targets += batch.target_count();
    window.tokens += batch.tokens();
    window.batches.push_back(std::move(batch));
  }
  return window;
}

// Of the fourth update, by operator new.
std::int64_t allocations_of(const Setup& setup, const std::filesystem::path& folder) {
  const ModelConfig config = load_model_config(folder);
  const auto model = DeepSeekModel::load(config, Checkpoint::open(folder), setup.dtype, 64);
  if (setup.full_parameters) {
    model->make_all_trainable();
  } else {
    LoraConfig lora;
    lora.r = 3;
    lora.dropout = setup.dropout;
    lora.use_dora = setup.dora;
    set_targets(lora, "all", config);
    model->add_lora(lora, match_targets(lora, config));
    init_lora(model->parameters(), lora.init, 1);
    model->reset_magnitudes();
  }
  model->allocate_gradients();
  if (setup.streamed) model->stream_weights(1);
  Device device = Device::cpu(2);
  Optimizer optimizer({}, model->parameters());
  Trainer trainer(*model, optimizer, device, 9, setup.recompute, setup.streamed);
  std::unique_ptr<LayerSelection> selection;
  if (setup.selects) {
    selection = std::make_unique<LayerSelection>(SelectionSettings{.threshold = 0.5, .refresh = 2},
                                                 model->parameters());
    trainer.select_layers(selection.get());
  }
  const Window window = window_of(setup.masked);
  std::int64_t counted = 0;
  for (std::int64_t step = 0; step < 4; ++step) {
    const auto before = allocation_counts();
    // At rate 0: an expert that meets its first token gets its moments then, as it must.
    const UpdateReport report = trainer.update(window, step, 0.0);
    counted = (allocation_counts() - before).own;
    CHECK(report.divergence.empty());
    CHECK(report.step.updated > 0);
    if (step == 0) CHECK(counted > 0);
  }
  return counted;
}

}  // namespace

#ifndef __SANITIZE_ADDRESS__
TEST_CASE("a training step that has run before allocates nothing") {
  const Folder f;
  const Setup setups[] = {{.name = "plain"},
                          {.name = "masked prompts", .masked = true},
                          {.name = "selective", .recompute = Recompute::kSelective},
                          {.name = "full", .recompute = Recompute::kFull},
                          {.name = "bf16", .dtype = DType::kBF16},
                          {.name = "dropout", .dropout = 0.3},
                          {.name = "dora", .dora = true},
                          {.name = "all parameters", .full_parameters = true},
                          {.name = "streamed", .streamed = true},
                          {.name = "selective computation", .selects = true}};
  for (const bool v2 : {false, true}) {
    write_tiny_model(f.root(), {.v2 = v2, .q_lora = !v2, .layers = 4});
    for (const Setup& setup : setups) {
      CAPTURE(v2);
      CAPTURE(setup.name);
      CHECK(allocations_of(setup, f.root()) == 0);
    }
  }
}

TEST_CASE("the measuring itself is left out of the count") {
  const auto before = allocation_counts();
  {
    const Uncounted measuring;
    const Tensor hidden(DType::kF32, {100});
    CHECK((allocation_counts() - before).own == 0);
  }
  const Tensor seen(DType::kF32, {100});
  CHECK((allocation_counts() - before).own > 0);
}

TEST_CASE("layers counts what a steady step allocates") {
  const Folder f;
  write_tiny_model(f.root(), {});
  for (const char* mode : {"train", "infer", "decode"}) {
    CAPTURE(mode);
    const nlohmann::json d = profile_json({"layers", "--model", f.root().string(), "--seq_len",
                                           "24", "--steps", "2", "--mode", mode});
    CHECK(d["steady"]["allocations"] == 0);
    CHECK(d["steady"]["library_allocations"] >= 0);
  }
  // One step is "1 steady step".
  const Outcome one = ds::test::profile({"layers", "--model", f.root().string(), "--seq_len", "24",
                                         "--steps", "1", "--threads", "2"});
  CHECK(has(one.out, "\n1 steady step: "));
  CHECK(has(one.out, " 0 allocations ("));
}
#endif
