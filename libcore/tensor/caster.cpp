#include "libcore/tensor/caster.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/block_quantise.h"
#include "kernels/cast.h"
#include "kernels/reduce.h"

namespace ds {

struct Caster::Team {
  explicit Team(int threads) : context(threads, kernels::detect_isa()) {}
  kernels::CpuContext context;
  std::vector<float> errors;
};

Caster::Caster(int threads) : team_(std::make_unique<Team>(threads)) {}
Caster::~Caster() = default;
Caster::Caster(Caster&&) noexcept = default;
Caster& Caster::operator=(Caster&&) noexcept = default;

void Caster::cast(const ConstView& src, const ConstView& scale, const View& dst) {
  const kernels::Cast op{.src = src, .scale = scale, .dst = dst};
  kernels::check(op);
  kernels::run(team_->context, op);
}

double Caster::quantise(const ConstView& src, Scale kind, const View& codes, const View& scale) {
  std::vector<float>& errors = team_->errors;
  errors.assign(static_cast<std::size_t>(scale.size()), 0.0f);
  const kernels::BlockQuantise op{
      .src = src,
      .power_of_two = kind == Scale::kPowerOfTwo,
      .given_scale = kind == Scale::kGiven,
      .codes = codes,
      .scale = scale,
      .error = View(errors.data(), DType::kF32, {scale.rows(), scale.cols()})};
  kernels::check(op);
  kernels::run(team_->context, op);
  float worst = 0.0f;
  for (const float error : errors) {
    if (!(error <= worst)) worst = error;
    if (std::isnan(worst)) break;
  }
  return worst;
}

std::uint64_t Caster::count_non_finite(const ConstView& values) {
  std::int64_t count = 0;
  const kernels::CountNonFinite op{.x = values, .count = View(&count, DType::kI64, {1})};
  kernels::check(op);
  kernels::run(team_->context, op);
  return static_cast<std::uint64_t>(count);
}

}  // namespace ds
