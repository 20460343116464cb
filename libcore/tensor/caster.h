// Conversion of rows between dtypes in memory of the caller's.
#pragma once

#include <memory>

#include "libcore/tensor/tensor.h"

namespace ds {

// Holds the threads. Not to be used by two threads at once.
class Caster {
 public:
  explicit Caster(int threads);
  ~Caster();
  Caster(Caster&&) noexcept;
  Caster& operator=(Caster&&) noexcept;

  // kernels::Cast: dst = (dst dtype)(src [* block scales]), rounded once.
  void cast(const ConstView& src, const ConstView& scale, const View& dst);
  // kernels::BlockQuantise of F32 or BF16: FP8 codes and multipliers of 128 x 128 blocks; returns
  // the largest |value - code * multiplier| (NaN when a value is not finite).
  enum class Scale { kF32, kPowerOfTwo, kGiven };
  double quantise(const ConstView& src, Scale kind, const View& codes, const View& scale);
  // kernels::CountNonFinite: BF16, F16 and F32 values that are not finite, FP8 codes that are NaN.
  std::uint64_t count_non_finite(const ConstView& values);

 private:
  struct Team;
  std::unique_ptr<Team> team_;
};

}  // namespace ds
