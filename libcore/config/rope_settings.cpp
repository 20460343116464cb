#include <algorithm>
#include <cmath>
#include <numbers>

#include "libcore/config/model_config.h"

namespace ds {
namespace {

// transformers computes the tables in f32. Each operation here is done in double and rounded once,
// which gives the same bits as f32 arithmetic and leaves the compiler nothing to fuse.
float multiply(float a, float b) { return static_cast<float>(static_cast<double>(a) * b); }
double multiply_wide(float a, float b) { return static_cast<double>(a) * b; }  // exact
float divide(float a, float b) { return static_cast<float>(static_cast<double>(a) / b); }
float add(double a, float b) { return static_cast<float>(a + b); }
float subtract(float a, float b) { return static_cast<float>(static_cast<double>(a) - b); }

double yarn_mscale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

// base^exponent as PyTorch's f32 power has it: correct to about 0.6 ulp, not correctly rounded, and
// one rounding the other way is visible in the table. The power is exp(exponent ln base); all of
// its error is in the degree-6 polynomial of the exponential, whose f32 coefficients are those of
// the SLEEF library that PyTorch uses. The rest is done in double.
float torch_power(double base, double exponent) {
  const double logarithm = exponent * std::log(base);
  const double octaves = std::nearbyint(logarithm / std::numbers::ln2);
  const double rest = logarithm - octaves * std::numbers::ln2;
  const float x = static_cast<float>(rest);
  float tail = 1.3632464688e-3f;
  for (const float c : {8.3659691736e-3f, 4.1671082377e-2f, 1.6666552424e-1f, 4.9999985099e-1f}) {
    tail = add(multiply_wide(tail, x), c);
  }
  const float mantissa = static_cast<float>(1.0 + (rest + rest * rest * tail));
  return std::ldexp(mantissa, static_cast<int>(octaves));
}

// The index whose wavelength turns `rotations` times within the original context.
double correction_index(double rotations, double dims, double theta, double positions) {
  return dims * std::log(positions / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(theta));
}

}  // namespace

RopeSettings rope_settings(const ModelConfig& config) {
  RopeSettings out;
  const std::int64_t dims = config.qk_rope_head_dim;
  const std::int64_t half = dims / 2;
  std::vector<float> base_power(half);
  for (std::int64_t i = 0; i < half; ++i) {
    const float exponent = divide(static_cast<float>(2 * i), static_cast<float>(dims));
    base_power[i] = torch_power(static_cast<float>(config.rope_theta), exponent);
  }
  out.inv_freq.resize(half);
  for (std::int64_t i = 0; i < half; ++i) out.inv_freq[i] = divide(1.0f, base_power[i]);
  out.softmax_scale = std::pow(static_cast<double>(config.q_head_dim()), -0.5);
  if (!config.yarn) return out;

  const YarnConfig& yarn = *config.yarn;
  const double positions = static_cast<double>(yarn.original_max_position);
  double low = correction_index(yarn.beta_fast, dims, config.rope_theta, positions);
  double high = correction_index(yarn.beta_slow, dims, config.rope_theta, positions);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dims - 1));
  if (low == high) high += 0.001;
  const float span = static_cast<float>(high - low);
  for (std::int64_t i = 0; i < half; ++i) {
    const float ramp = std::clamp(
        divide(subtract(static_cast<float>(i), static_cast<float>(low)), span), 0.0f, 1.0f);
    const float keep = subtract(1.0f, ramp);
    const float scaled = divide(1.0f, multiply(static_cast<float>(yarn.factor), base_power[i]));
    out.inv_freq[i] = add(multiply(scaled, subtract(1.0f, keep)), multiply(out.inv_freq[i], keep));
  }

  if (yarn.attention_factor) {
    out.attention_factor = *yarn.attention_factor;
  } else if (yarn.mscale != 0.0 && yarn.mscale_all_dim != 0.0) {
    out.attention_factor =
        yarn_mscale(yarn.factor, yarn.mscale) / yarn_mscale(yarn.factor, yarn.mscale_all_dim);
  } else {
    out.attention_factor = yarn_mscale(yarn.factor, 1.0);
  }
  if (yarn.mscale_all_dim != 0.0) {
    const double m = yarn_mscale(yarn.factor, yarn.mscale_all_dim);
    out.softmax_scale *= m * m;
  }
  return out;
}

}  // namespace ds
