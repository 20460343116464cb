#include "libcore/tensor/caster.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "kernels/block_quantise.h"
#include "kernels/cast.h"

namespace ds {

namespace {

// How many of these codes have all the bits of `mask`.
template <class Code>
std::uint64_t count_masked(const ConstView& values, Code mask) {
  const std::int64_t rows = values.rows(), cols = values.cols();
  std::uint64_t count = 0;
  for (std::int64_t row = 0; row < rows; ++row) {
    const Code* codes = static_cast<const Code*>(values.data()) + row * values.row_stride();
    // Whether there are any at all is the common question, and the cheap one.
    bool any = false;
    for (std::int64_t i = 0; i < cols; ++i) any |= (codes[i] & mask) == mask;
    if (!any) continue;
    for (std::int64_t i = 0; i < cols; ++i) count += (codes[i] & mask) == mask ? 1U : 0U;
  }
  return count;
}

}  // namespace

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
  switch (values.dtype()) {
    case DType::kF8E4M3:
      return count_masked<std::uint8_t>(values, 0x7f);
    case DType::kBF16:
      return count_masked<std::uint16_t>(values, 0x7f80);
    case DType::kF16:
      return count_masked<std::uint16_t>(values, 0x7c00);
    case DType::kF32:
      return count_masked<std::uint32_t>(values, 0x7f800000U);
    default:
      throw std::invalid_argument("count_non_finite: " + std::string(dtype_name(values.dtype())));
  }
}

}  // namespace ds
