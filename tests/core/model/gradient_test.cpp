// Whole tiny models in double precision: the gradient along random directions against central
// differences, for adapters and for all parameters, in every variant of the architecture.
#include <doctest/doctest.h>

#include <cmath>

#include "libcore/base/rng.h"
#include "libcore/config/lora_config.h"
#include "libcore/model/deepseek.h"
#include "libcore/train/lora_init.h"
#include "tests/support/paths.h"
#include "tests/support/tiny_model.h"

using namespace ds;
using namespace ds::test;

namespace {

TokenBatch tiny_batch(std::uint64_t seed) {
  TokenBatch batch;
  const Rng rng(seed, 99);
  std::uint64_t draw = 0;
  for (const int length : {9, 1, 14, 6}) {
    Example example;
    for (int i = 0; i < length; ++i) {
      example.ids.push_back(static_cast<std::int32_t>(rng.bits(draw++) % kTinyVocab));
      example.labels.push_back(rng.bits(draw++) % 4 == 0 ? kNoTarget : example.ids.back());
    }
    append_segment(batch, example);
  }
  return batch;
}

struct Harness {
  ModelConfig config;
  std::unique_ptr<DeepSeekModel> model;
  Device device = Device::cpu(2);
  Arena saved{"saved"};
  Arena scratch{"scratch"};
  Exec exec{.device = device, .saved = saved, .scratch = scratch, .dtype = DType::kF64};

  explicit Harness(const std::filesystem::path& folder)
      : config(load_model_config(folder)),
        model(DeepSeekModel::load(config, Checkpoint::open(folder), DType::kF64, 64)) {}
};

// |analytic - numeric| / |numeric| of the directional derivative of the summed loss.
double directional_error(Harness& h, const TokenBatch& batch, std::uint64_t seed) {
  auto& parameters = h.model->parameters();
  std::vector<std::vector<double>> direction;
  double analytic = 0.0;
  for (Parameter* p : parameters) p->grad.fill_zero();
  const LossSums base = h.model->forward_backward(h.exec, batch, 1.0, Recompute::kNone);
  CHECK(std::isfinite(base.loss));
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    const Rng rng(seed, 1000 + k);
    auto& d = direction.emplace_back(static_cast<std::size_t>(parameters[k]->value.size()));
    for (std::size_t i = 0; i < d.size(); ++i) {
      d[i] = rng.normal(i);
      analytic += d[i] * parameters[k]->grad.as<double>()[i];
    }
  }
  const auto loss_at = [&](double step) {
    for (std::size_t k = 0; k < parameters.size(); ++k) {
      for (std::size_t i = 0; i < direction[k].size(); ++i) {
        parameters[k]->value.as<double>()[i] += step * direction[k][i];
      }
    }
    const double loss = h.model->loss(h.exec, batch).loss;
    for (std::size_t k = 0; k < parameters.size(); ++k) {
      for (std::size_t i = 0; i < direction[k].size(); ++i) {
        parameters[k]->value.as<double>()[i] -= step * direction[k][i];
      }
    }
    return loss;
  };
  // Routing is piecewise constant: the step is small enough not to cross a border.
  constexpr double kStep = 2e-7;
  const double numeric = (loss_at(kStep) - loss_at(-kStep)) / (2.0 * kStep);
  return std::fabs(analytic - numeric) / std::max(1.0, std::fabs(numeric));
}

const std::pair<const char*, TinyModel> kVariants[] = {
    {"v3", {}},
    {"v3 without q_lora, two shared, one group",
     {.q_lora = false, .shared_experts = 2, .groups = 1}},
    {"v2", {.v2 = true}},
    {"tied head, attention bias, MTP tensors", {.tied = true, .attention_bias = true, .mtp = true}},
    {"strongly negative selection bias", {.bias_centre = -5.0f}}};

}  // namespace

TEST_CASE("adapter gradients of whole models") {
  for (const auto& [name, tiny] : kVariants) {
    for (const bool dora : {false, true}) {
      CAPTURE(name);
      CAPTURE(dora);
      const auto folder = make_temp_dir("grad");
      write_tiny_model(folder, tiny);
      Harness h(folder);
      LoraConfig lora;
      lora.r = 3;
      lora.alpha = 6.0;
      lora.use_dora = dora;
      // DoRA takes its weight norm as a constant, so its gradient is not the derivative of the loss
      // by A and B; by the magnitudes it is. Attention alone keeps that case small.
      set_targets(lora, dora ? "attention" : "all", h.config);
      const auto targets = match_targets(lora, h.config);
      h.model->add_lora(lora, targets);
      init_lora(h.model->parameters(), "false", 5);
      h.model->reset_magnitudes();
      h.model->allocate_gradients();
      if (dora) {
        for (Parameter* p : h.model->parameters()) {
          if (p->role != ParameterRole::kMagnitude) p->trainable = false;
        }
      }
      const TokenBatch batch = tiny_batch(3);
      double worst = 0.0;
      for (std::uint64_t seed = 1; seed <= 3; ++seed) {
        if (!dora) {
          worst = std::max(worst, directional_error(h, batch, seed));
          continue;
        }
        // Only magnitudes move: freeze the others' direction by zeroing their gradient and value
        // move.
        double analytic = 0.0;
        for (Parameter* p : h.model->parameters()) p->grad.fill_zero();
        h.model->forward_backward(h.exec, batch, 1.0, Recompute::kNone);
        const auto move = [&](double step) {
          for (std::size_t k = 0; k < h.model->parameters().size(); ++k) {
            Parameter* p = h.model->parameters()[k];
            if (p->role != ParameterRole::kMagnitude) continue;
            const Rng rng(seed, k);
            for (std::int64_t i = 0; i < p->value.size(); ++i) {
              p->value.as<double>()[i] += step * rng.normal(static_cast<std::uint64_t>(i));
            }
          }
        };
        for (std::size_t k = 0; k < h.model->parameters().size(); ++k) {
          Parameter* p = h.model->parameters()[k];
          if (p->role != ParameterRole::kMagnitude) continue;
          const Rng rng(seed, k);
          for (std::int64_t i = 0; i < p->value.size(); ++i) {
            analytic += rng.normal(static_cast<std::uint64_t>(i)) * p->grad.as<double>()[i];
          }
        }
        constexpr double kStep = 2e-7;
        move(kStep);
        const double up = h.model->loss(h.exec, batch).loss;
        move(-2.0 * kStep);
        const double down = h.model->loss(h.exec, batch).loss;
        move(kStep);
        const double numeric = (up - down) / (2.0 * kStep);
        worst = std::max(worst, std::fabs(analytic - numeric) / std::max(1.0, std::fabs(numeric)));
      }
      MESSAGE(std::string(name) << (dora ? " (magnitudes)" : "") << ": " << worst);
      CHECK(worst <= 1e-6);
      std::filesystem::remove_all(folder);
    }
  }
}

TEST_CASE("full-parameter gradients of whole models") {
  for (const auto& [name, tiny] : kVariants) {
    CAPTURE(name);
    const auto folder = make_temp_dir("grad");
    write_tiny_model(folder, tiny);
    Harness h(folder);
    h.model->make_all_trainable();
    h.model->allocate_gradients();
    const double error = directional_error(h, tiny_batch(4), 1);
    MESSAGE(std::string(name) << ": " << error);
    CHECK(error <= 1e-6);
    std::filesystem::remove_all(folder);
  }
}

TEST_CASE("embedding and head adapters") {
  const auto folder = make_temp_dir("grad");
  write_tiny_model(folder, {});
  Harness h(folder);
  LoraConfig lora;
  lora.r = 3;
  set_targets(lora, "embed_tokens,lm_head,o_proj", h.config);
  h.model->add_lora(lora, match_targets(lora, h.config));
  init_lora(h.model->parameters(), "false", 5);
  // A of the embedding starts at zero even then: move it so that B has a gradient.
  for (Parameter* p : h.model->parameters()) {
    if (p->role != ParameterRole::kLoraEmbedding) continue;
    for (std::int64_t i = 0; i < p->value.size(); ++i) {
      p->value.as<double>()[i] += 0.02 * std::sin(static_cast<double>(i));
    }
  }
  h.model->allocate_gradients();
  CHECK(directional_error(h, tiny_batch(5), 1) <= 1e-6);
  std::filesystem::remove_all(folder);
}

TEST_CASE("decoding with the absorbed cache equals the plain forward pass") {
  for (const auto& [name, tiny] : kVariants) {
    for (const bool dora : {false, true}) {
      CAPTURE(name);
      const auto folder = make_temp_dir("decode");
      write_tiny_model(folder, tiny);
      Harness h(folder);
      LoraConfig lora;
      lora.r = 3;
      lora.use_dora = dora;
      set_targets(lora, "attention", h.config);
      h.model->add_lora(lora, match_targets(lora, h.config));
      init_lora(h.model->parameters(), "false", 5);
      h.model->reset_magnitudes();
      // Two sequences of different length, prefix by prefill, the rest token by token.
      const Rng rng(11, 0);
      std::vector<std::vector<std::int32_t>> ids(2);
      for (std::uint64_t i = 0; i < 12; ++i)
        ids[0].push_back(static_cast<std::int32_t>(rng.bits(i) % kTinyVocab));
      for (std::uint64_t i = 0; i < 9; ++i)
        ids[1].push_back(static_cast<std::int32_t>(rng.bits(50 + i) % kTinyVocab));
      std::vector<Sequence> sequences;
      TokenBatch prompts;
      for (std::size_t s = 0; s < 2; ++s) {
        sequences.emplace_back(h.config, 16, DType::kF64);
        Example prompt{
            .ids = {ids[s].begin(), ids[s].begin() + 4 + static_cast<std::ptrdiff_t>(s)}};
        prompt.labels.assign(prompt.ids.size(), kNoTarget);
        append_segment(prompts, prompt);
      }
      Sequence* pointers[] = {&sequences[0], &sequences[1]};
      Tensor logits(DType::kF64, {2, kTinyVocab});
      h.model->prefill(h.exec, prompts, pointers, logits.view());
      for (std::size_t step = 0; step < 4; ++step) {
        const std::int32_t next[] = {ids[0][4 + step], ids[1][5 + step]};
        h.model->decode(h.exec, next, pointers, logits.view());
      }
      for (std::size_t s = 0; s < 2; ++s) {
        TokenBatch whole;
        Example example{
            .ids = {ids[s].begin(), ids[s].begin() + 8 + static_cast<std::ptrdiff_t>(s)}};
        example.labels.assign(example.ids.size(), kNoTarget);
        append_segment(whole, example);
        double worst = 0.0;
        h.model->logits(h.exec, whole, [&](std::int64_t first, const ConstView& rows) {
          if (first + rows.rows() != whole.tokens()) return;
          const double* last = rows.as<double>() + (rows.rows() - 1) * rows.row_stride();
          for (std::int64_t v = 0; v < kTinyVocab; ++v) {
            worst = std::max(
                worst,
                std::fabs(last[v] -
                          logits.as<double>()[static_cast<std::int64_t>(s) * kTinyVocab + v]));
          }
        });
        CHECK(worst <= 1e-11);
      }
      std::filesystem::remove_all(folder);
    }
  }
}
