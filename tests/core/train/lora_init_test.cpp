#include "libcore/train/lora_init.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <deque>

#include "libcore/base/error.h"

namespace {

using ds::DType;
using ds::Parameter;
using ds::ParameterRole;
using ds::Tensor;

struct Parameters {
  std::deque<Parameter> storage;
  std::vector<Parameter*> pointers;
  Parameter& add(const std::string& name, ParameterRole role, std::vector<std::int64_t> shape) {
    Parameter& p = storage.emplace_back();
    p.name = name;
    p.role = role;
    p.value = Tensor(DType::kF32, std::move(shape));
    std::fill_n(p.value.as<float>(), p.value.size(), 7.0f);
    pointers.push_back(&p);
    return p;
  }
};

std::vector<float> values(const Parameter& p) {
  return {p.value.as<float>(), p.value.as<float>() + p.value.size()};
}

struct Moments {
  double mean = 0, deviation = 0, smallest = 0, largest = 0;
};
Moments moments(const Parameter& p) {
  const auto v = values(p);
  Moments m;
  for (const float x : v) m.mean += x;
  m.mean /= static_cast<double>(v.size());
  for (const float x : v) m.deviation += (x - m.mean) * (x - m.mean);
  m.deviation = std::sqrt(m.deviation / static_cast<double>(v.size()));
  m.smallest = *std::min_element(v.begin(), v.end());
  m.largest = *std::max_element(v.begin(), v.end());
  return m;
}

bool zero(const Parameter& p) {
  const auto v = values(p);
  return std::all_of(v.begin(), v.end(), [](float x) { return x == 0.0f; });
}

TEST_CASE("initial values follow peft") {
  Parameters p;
  const Parameter& a = p.add("x.lora_A.weight", ParameterRole::kLoraA, {8, 4096});
  const Parameter& b = p.add("x.lora_B.weight", ParameterRole::kLoraB, {4096, 8});
  const Parameter& ea = p.add("e.lora_embedding_A", ParameterRole::kLoraEmbedding, {4096, 8});
  const Parameter& eb = p.add("e.lora_embedding_B", ParameterRole::kLoraEmbedding, {4096, 8});
  const Parameter& m = p.add("x.lora_magnitude_vector", ParameterRole::kMagnitude, {16});
  const auto near = [](double value, double wanted) {
    return std::abs(value - wanted) <= 0.02 * std::abs(wanted);
  };
  const double bound_a = 1.0 / 64.0;
  const double bound_b = 1.0 / std::sqrt(8.0);

  ds::init_lora(p.pointers, "true", 42);
  CHECK(moments(a).smallest >= -bound_a);
  CHECK(moments(a).largest <= bound_a);
  CHECK(near(moments(a).largest, bound_a));
  CHECK(near(moments(a).smallest, -bound_a));
  CHECK(near(moments(a).deviation, bound_a / std::sqrt(3.0)));
  CHECK(std::abs(moments(a).mean) < 0.02 * bound_a);
  CHECK(zero(b));
  CHECK(zero(ea));
  CHECK(near(moments(eb).deviation, 1.0));
  CHECK(values(m) == std::vector<float>(16, 7.0f));

  ds::init_lora(p.pointers, "gaussian", 42);
  CHECK(near(moments(a).deviation, 1.0 / 8.0));
  CHECK(moments(a).largest > 3.0 / 8.0);
  CHECK(zero(b));
  CHECK(zero(ea));
  CHECK(near(moments(eb).deviation, 1.0));

  ds::init_lora(p.pointers, "false", 42);
  CHECK(near(moments(a).deviation, bound_a / std::sqrt(3.0)));
  CHECK(near(moments(b).deviation, bound_b / std::sqrt(3.0)));
  CHECK(moments(b).largest <= bound_b);
  CHECK(near(moments(ea).deviation, 1.0));
  CHECK(near(moments(eb).deviation, 1.0));
  CHECK(values(m) == std::vector<float>(16, 7.0f));

  CHECK_THROWS_AS(ds::init_lora(p.pointers, "pissa", 42), ds::Error);
}

TEST_CASE("a parameter's values depend on seed and index, not on the others") {
  Parameters small;
  small.add("a", ParameterRole::kLoraA, {2, 5});
  Parameter& second = small.add("b", ParameterRole::kLoraA, {4, 16});
  Parameters large;
  large.add("a", ParameterRole::kLoraA, {16, 999});
  Parameter& same = large.add("b", ParameterRole::kLoraA, {4, 16});
  Parameter& third = large.add("c", ParameterRole::kLoraA, {4, 16});
  ds::init_lora(small.pointers, "true", 1);
  ds::init_lora(large.pointers, "true", 1);
  CHECK(values(second) == values(same));
  CHECK(values(same) != values(third));
  const auto before = values(second);
  ds::init_lora(small.pointers, "true", 2);
  CHECK(values(second) != before);
  ds::init_lora(small.pointers, "true", 1);
  CHECK(values(second) == before);
}

TEST_CASE("F64 parameters get the same numbers") {
  Parameters p;
  Parameter& a = p.add("a", ParameterRole::kLoraA, {4, 16});
  ds::init_lora(p.pointers, "true", 3);
  const auto single = values(a);
  a.value = Tensor(DType::kF64, {4, 16});
  ds::init_lora(p.pointers, "true", 3);
  for (std::int64_t i = 0; i < 64; ++i) {
    CHECK(static_cast<float>(a.value.as<double>()[i]) == single[static_cast<std::size_t>(i)]);
  }
}

}  // namespace
