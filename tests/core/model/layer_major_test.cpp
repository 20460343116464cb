// Micro-batches that pass every layer together, and weights that come and go with the layers,
// against the usual order with everything in memory: the same bits.
#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>

#include "libcore/base/rng.h"
#include "libcore/config/lora_config.h"
#include "libcore/model/deepseek.h"
#include "tests/support/paths.h"
#include "tests/support/tiny_model.h"

using namespace ds;
using namespace ds::test;
namespace fs = std::filesystem;

namespace {

std::vector<TokenBatch> window_of(int count) {
  std::vector<TokenBatch> batches(static_cast<std::size_t>(count));
  const Rng rng(5, 17);
  std::uint64_t draw = 0;
  for (TokenBatch& batch : batches) {
    for (const int length : {7, 12, 3}) {
      Example example;
      for (int i = 0; i < length; ++i) {
        example.ids.push_back(static_cast<std::int32_t>(rng.bits(draw++) % kTinyVocab));
        example.labels.push_back(rng.bits(draw++) % 3 == 0 ? kNoTarget : example.ids.back());
      }
      append_segment(batch, example);
    }
  }
  return batches;
}

enum class Order { kUsual, kLayerMajor, kStreamed };

struct Result {
  std::vector<double> losses;
  std::vector<Tensor> gradients;
  std::vector<bool> touched;
};

Result gradients(const fs::path& folder, const std::vector<TokenBatch>& window, Order order,
                 Recompute recompute, DType dtype, double& held_out) {
  const ModelConfig config = load_model_config(folder);
  const auto model = DeepSeekModel::load(config, Checkpoint::open(folder), dtype, 64);
  LoraConfig lora;
  lora.r = 3;
  lora.dropout = 0.3;
  set_targets(lora, "all", config);
  model->add_lora(lora, match_targets(lora, config));
  for (Parameter* p : model->parameters()) {
    const Rng rng(11, p->value.size());
    for (std::int64_t i = 0; i < p->value.size(); ++i) {
      p->value.as<float>()[i] =
          0.05f * static_cast<float>(rng.normal(static_cast<std::uint64_t>(i)));
    }
  }
  model->allocate_gradients();
  if (order == Order::kStreamed) model->stream_weights(1);
  Device device = Device::cpu(2);
  Arena saved("saved"), scratch("scratch");
  Exec exec{.device = device,
            .saved = saved,
            .scratch = scratch,
            .dtype = dtype,
            .training = true,
            .seed = 9};
  std::vector<MicroBatch> batches;
  for (const TokenBatch& batch : window) {
    batches.push_back({.tokens = &batch, .step_stream = mix_stream(4, batches.size())});
  }
  Result result;
  const std::size_t together = order == Order::kUsual ? 1 : batches.size();
  for (std::size_t first = 0; first < batches.size(); first += together) {
    std::vector<LossSums> sums(together);
    model->forward_backward(exec, std::span(batches).subspan(first, together), 0.01, recompute,
                            sums);
    for (const LossSums& each : sums) result.losses.push_back(each.loss);
  }
  CHECK(saved.used_bytes() == 0);
  CHECK(scratch.used_bytes() == 0);
  for (Parameter* p : model->parameters()) {
    result.gradients.push_back(std::move(p->grad));
    result.touched.push_back(p->touched);
  }
  exec.training = false;
  held_out = model->loss(exec, window[0]).loss;
  return result;
}

}  // namespace

TEST_CASE("layer-major order and streamed weights give the bits of the usual order") {
  const fs::path folder = make_temp_dir("layer-major");
  for (const bool v2 : {false, true}) {
    write_tiny_model(folder, {.v2 = v2, .q_lora = !v2, .tied = v2});
    std::vector<TokenBatch> window = window_of(3);
    window.push_back(window[1]);
    for (auto& target : window[1].targets) target = kNoTarget;  // nothing to predict in this one
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const Recompute recompute :
           {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
        CAPTURE(static_cast<int>(recompute));
        double expected_loss = 0.0;
        const Result expected =
            gradients(folder, window, Order::kUsual, recompute, dtype, expected_loss);
        for (const Order order : {Order::kLayerMajor, Order::kStreamed}) {
          CAPTURE(static_cast<int>(order));
          double loss = 0.0;
          const Result found = gradients(folder, window, order, recompute, dtype, loss);
          CHECK(found.losses == expected.losses);
          CHECK(found.touched == expected.touched);
          CHECK(loss == expected_loss);
          double squares = 0.0;
          for (std::size_t i = 0; i < expected.gradients.size(); ++i) {
            const Tensor& want = expected.gradients[i];
            CHECK(std::memcmp(found.gradients[i].data(), want.data(),
                              static_cast<std::size_t>(want.bytes())) == 0);
            for (std::int64_t k = 0; k < want.size(); ++k) {
              squares += static_cast<double>(want.as<float>()[k]) *
                         static_cast<double>(want.as<float>()[k]);
            }
          }
          CHECK(squares > 0.0);
        }
      }
    }
  }
  fs::remove_all(folder);
}
