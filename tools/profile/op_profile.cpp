#include "tools/profile/op_profile.h"

namespace ds::profile {

OpSums& OpSums::operator+=(const OpSums& other) {
  seconds += other.seconds;
  flops += other.flops;
  weight_gradient_flops += other.weight_gradient_flops;
  bytes += other.bytes;
  calls += other.calls;
  return *this;
}

OpSums OpProfile::Part::total() const {
  OpSums sums;
  for (const auto& [phase, part] : phases) sums += part;
  return sums;
}

void OpProfile::before(std::string_view /*op*/, const OpWork& work) {
  work_ = work;
  begin_ = Clock::now();
}

void OpProfile::after(std::string_view op) {
  end_ = Clock::now();
  const OpSums one{.seconds = std::chrono::duration<double>(end_ - begin_).count(),
                   .flops = work_.cost.flops,
                   .weight_gradient_flops = work_.weight_gradient_flops,
                   .bytes = work_.cost.bytes,
                   .calls = 1};
  const Scope scope = scopes_.empty() ? Scope{} : scopes_.back();
  parts_[scope.part.empty() ? "other" : scope.part]
      .phases[scope.phase.empty() ? "forward" : scope.phase] += one;
  ops_[std::string(op)] += one;
}

void OpProfile::enter(std::string_view scope, std::int64_t index) {
  Scope inner = scopes_.empty() ? Scope{} : scopes_.back();
  if (scope == "backward" || scope == "recompute") {
    inner.phase = scope;
  } else if (scope == "layer") {
    inner.layer = "layers." + std::to_string(index) + ".";
    // A layer inside the head's C++ scope begins its own forward pass.
    if (inner.phase != "recompute") inner.phase.clear();
  } else {
    inner.part = (scope == "attention" || scope == "mlp" ? inner.layer : "") + std::string(scope);
  }
  scopes_.push_back(std::move(inner));
}

void OpProfile::leave() { scopes_.pop_back(); }

void OpProfile::reset() {
  parts_.clear();
  ops_.clear();
}

OpSums OpProfile::total() const {
  OpSums sums;
  for (const auto& [name, op] : ops_) sums += op;
  return sums;
}

}  // namespace ds::profile
