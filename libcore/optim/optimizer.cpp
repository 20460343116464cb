#include "libcore/optim/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/reduce.h"
#include "libcore/base/error.h"

namespace ds {

LrGroup lr_group(const Parameter& parameter, bool lora_plus) {
  if (!lora_plus) return LrGroup::kA;
  if (parameter.role == ParameterRole::kLoraEmbedding) return LrGroup::kEmbedding;
  const bool is_b =
      parameter.role == ParameterRole::kLoraB || parameter.role == ParameterRole::kMagnitude ||
      parameter.role == ParameterRole::kNorm ||
      parameter.name.find("lora_B") != std::string::npos || parameter.value.shape().size() == 1;
  if (!is_b) return LrGroup::kA;
  return parameter.name.find("bias") != std::string::npos ? LrGroup::kBNoDecay : LrGroup::kB;
}

double group_learning_rate(const OptimizerConfig& config, LrGroup group) {
  switch (group) {
    case LrGroup::kA:
      return config.learning_rate;
    case LrGroup::kEmbedding:
      return config.lora_plus ? config.loraplus_lr_embedding : config.learning_rate;
    case LrGroup::kB:
    case LrGroup::kBNoDecay:
      break;
  }
  return config.lora_plus ? config.learning_rate * config.loraplus_lr_ratio : config.learning_rate;
}

double group_weight_decay(const OptimizerConfig& config, LrGroup group) {
  return group == LrGroup::kBNoDecay ? 0.0 : config.weight_decay;
}

Optimizer::Optimizer(OptimizerConfig config, std::vector<Parameter*> parameters)
    : config_(config), parameters_(std::move(parameters)), states_(parameters_.size()) {
  groups_.reserve(parameters_.size());
  for (const Parameter* parameter : parameters_) {
    groups_.push_back(lr_group(*parameter, config_.lora_plus));
  }
}

StepReport Optimizer::step(Device& device, double lr_factor) {
  StepReport report;
  report.lr_a = group_learning_rate(config_, LrGroup::kA) * lr_factor;
  report.lr_b = group_learning_rate(config_, LrGroup::kB) * lr_factor;

  live_.clear();
  gradients_.clear();
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& parameter = *parameters_[i];
    if (!parameter.trainable || parameter.skipped || !parameter.touched) continue;
    if (!parameter.grad) {
      throw Error(ExitCode::kInternal,
                  fmt::format("parameter '{}' was touched but has no gradient", parameter.name));
    }
    live_.push_back(i);
    gradients_.push_back(parameter.grad.view());
  }

  squares_.assign(live_.size(), 0.0);
  if (!live_.empty()) device.run(kernels::SquaredNorm{.tensors = gradients_, .out = squares_});
  double sum = 0.0;
  squared_norms_.assign(parameters_.size(), 0.0);
  report.squared_norms = squared_norms_;
  for (std::size_t k = 0; k < live_.size(); ++k) {
    squared_norms_[live_[k]] = squares_[k];
    // An F32 square never overflows F64, so this finds exactly the non-finite gradients.
    if (!std::isfinite(squares_[k]) && report.non_finite.empty()) {
      report.non_finite = parameters_[live_[k]]->name;
    }
    sum += squares_[k];
  }
  report.grad_norm = std::sqrt(sum);
  if (!report.non_finite.empty()) {
    zero_grad();
    return report;
  }

  const double scale = config_.max_grad_norm > 0.0
                           ? std::min(1.0, config_.max_grad_norm / (report.grad_norm + 1e-6))
                           : 1.0;
  items_.clear();
  for (const std::size_t i : live_) {
    Parameter& parameter = *parameters_[i];
    State& state = states_[i];
    if (!state.exp_avg) {
      state.exp_avg = Tensor(parameter.value.dtype(), parameter.value.shape());
      state.exp_avg_sq = Tensor(parameter.value.dtype(), parameter.value.shape());
    }
    kernels::AdamWItem item;
    item.param = parameter.value.view();
    item.grad = parameter.grad.view();
    item.exp_avg = state.exp_avg.view();
    item.exp_avg_sq = state.exp_avg_sq.view();
    item.lr = group_learning_rate(config_, groups_[i]) * lr_factor;
    item.weight_decay = group_weight_decay(config_, groups_[i]);
    item.step = ++state.step;
    items_.push_back(item);
  }
  if (!items_.empty()) {
    device.run(kernels::AdamW{.items = items_,
                              .beta1 = config_.beta1,
                              .beta2 = config_.beta2,
                              .eps = config_.epsilon,
                              .grad_scale = scale});
  }
  report.updated = static_cast<std::int64_t>(items_.size());
  zero_grad();
  return report;
}

void Optimizer::zero_grad() {
  for (Parameter* parameter : parameters_) {
    if (!parameter->touched) continue;
    if (parameter->grad) parameter->grad.fill_zero();
    parameter->touched = false;
  }
}

void Optimizer::reset() {
  for (State& state : states_) state = State();
}

}  // namespace ds
