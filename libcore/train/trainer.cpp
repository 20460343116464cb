#include "libcore/train/trainer.h"

#include <fmt/format.h>

#include "libcore/base/error.h"
#include "libcore/base/rng.h"

namespace ds {

namespace {

std::string lines_text(const TokenBatch& batch) {
  std::string text;
  const std::size_t shown = std::min<std::size_t>(batch.lines.size(), 8);
  for (std::size_t i = 0; i < shown; ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(batch.lines[i]);
  }
  if (batch.lines.size() > shown) {
    text += fmt::format(" and {} more", batch.lines.size() - shown);
  }
  return text;
}

std::string all_lines_text(const Window& window) {
  TokenBatch all;
  for (const TokenBatch& batch : window.batches) {
    all.lines.insert(all.lines.end(), batch.lines.begin(), batch.lines.end());
  }
  return lines_text(all);
}

}  // namespace

Trainer::Trainer(DeepSeekModel& model, Optimizer& optimizer, Device& device, std::uint64_t seed,
                 Recompute recompute, bool layer_major)
    : model_(model),
      optimizer_(optimizer),
      device_(device),
      seed_(seed),
      recompute_(recompute),
      layer_major_(layer_major) {}

void Trainer::add_gradients(const Window& window, std::int64_t step, UpdateReport& report) {
  const double scale = 1.0 / static_cast<double>(window.targets);
  const ArenaScope lists(saved_);
  ArenaList<MicroBatch> batches(saved_, "batch.states", window.batches.size());
  ArenaList<LossSums> sums(saved_, "batch.states", window.batches.size());
  sums.append(window.batches.size());
  for (const TokenBatch& batch : window.batches) {
    batches.push_back(
        {.tokens = &batch,
         .step_stream = mix_stream(static_cast<std::uint64_t>(step), batches.size())});
  }
  Exec exec{.device = device_,
            .saved = saved_,
            .scratch = scratch_,
            .dtype = model_.dtype(),
            .training = true,
            .seed = seed_};
  const std::size_t together = layer_major_ ? batches.size() : 1;
  for (std::size_t first = 0; first < batches.size(); first += together) {
    const auto losses = sums.span().subspan(first, together);
    model_.forward_backward(exec, batches.span().subspan(first, together), scale, recompute_,
                            losses);
    for (std::size_t i = 0; i < losses.size(); ++i) {
      if (losses[i].non_finite >= 0) {
        report.divergence =
            fmt::format("step {}: the loss of target {} in the batch of lines {} is not finite",
                        step + 1, losses[i].non_finite, lines_text(*batches[first + i].tokens));
        return;
      }
      report.loss_sum += losses[i].loss;
    }
  }
}

UpdateReport Trainer::update(const Window& window, std::int64_t step, double lr_factor) {
  UpdateReport report;
  report.targets = window.targets;
  report.tokens = window.tokens;
  if (window.targets == 0) {
    throw Error(ExitCode::kInternal,
                "a training step has no target tokens (lines " + all_lines_text(window) + ")");
  }
  saved_.reset_peak();
  if (selection_ != nullptr) selection_->begin(step);
  add_gradients(window, step, report);
  if (!report.divergence.empty()) {
    optimizer_.zero_grad();
    return report;
  }
  {
    const OpScope scope(device_, "optimizer");
    report.step = optimizer_.step(device_, lr_factor);
  }
  report.activation_bytes = saved_.peak_bytes();
  if (selection_ != nullptr && report.step.non_finite.empty()) {
    selection_->measure(report.step.squared_norms);
  }
  if (!report.step.non_finite.empty()) {
    report.divergence =
        fmt::format("step {}: the gradient of '{}' is not finite (batch of lines {})", step + 1,
                    report.step.non_finite, all_lines_text(window));
  }
  return report;
}

LossSums Trainer::evaluate(const TokenBatch& batch) {
  Exec exec{.device = device_, .saved = saved_, .scratch = scratch_, .dtype = model_.dtype()};
  return model_.loss(exec, batch);
}

}  // namespace ds
