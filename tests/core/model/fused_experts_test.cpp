// The fused-expert adapter layout of transformers 5 (reference/formats.md 7.4).
#include "tests/core/model/adapter_fixture.h"

namespace {

using namespace ds::test;
using ds::ExitCode;
using ds::LoraConfig;

constexpr std::int64_t kE = 3;  // experts
constexpr std::int64_t kH = 5;  // hidden
constexpr std::int64_t kI = 2;  // expert width
constexpr std::int64_t kR = 2;  // rank of the per-expert adapters
const std::string kLayer = "model.layers.1.mlp.experts";

std::string module(std::int64_t expert, const std::string& projection) {
  return kLayer + "." + std::to_string(expert) + "." + projection;
}

void add_experts(Parameters& parameters, std::int64_t gate_up_rank, std::int64_t down_rank) {
  for (std::int64_t e = 0; e < kE; ++e) {
    parameters.add_lora(module(e, "gate_proj"), kH, kI, gate_up_rank);
    parameters.add_lora(module(e, "up_proj"), kH, kI, gate_up_rank);
    parameters.add_lora(module(e, "down_proj"), kI, kH, down_rank);
  }
}

// A value that tells where it belongs.
float mark(std::int64_t expert, int what, std::int64_t i, std::int64_t j) {
  return static_cast<float>(1 + expert * 1000 + what * 100 + i * 10 + j);
}
enum { kGateA, kGateB, kUpA, kUpB, kDownA, kDownB };

using Matrix = std::vector<float>;

// A fused pair for `rank` ranks an expert; a(e, k, in) and b(e, out, k) give the values.
template <class FA, class FB>
void set_pair(AdapterFile& file, const std::string& wrapper, std::int64_t in, std::int64_t out,
              std::int64_t rank, FA a, FB b) {
  Matrix av(static_cast<std::size_t>(kE * rank * in));
  Matrix bv(static_cast<std::size_t>(out * rank * kE));
  for (std::int64_t e = 0; e < kE; ++e) {
    for (std::int64_t k = 0; k < rank; ++k) {
      // A: expert slowest. B: reshape(out, rank, E), expert fastest.
      for (std::int64_t i = 0; i < in; ++i) {
        av[static_cast<std::size_t>((e * rank + k) * in + i)] = a(e, k, i);
      }
      for (std::int64_t o = 0; o < out; ++o) {
        bv[static_cast<std::size_t>((o * rank + k) * kE + e)] = b(e, o, k);
      }
    }
  }
  file.set(kPrefix + wrapper + ".lora_A.weight", {kE * rank, in}, av);
  file.set(kPrefix + wrapper + ".lora_B.weight", {out, rank * kE}, bv);
}

void set_down(AdapterFile& file, const std::string& wrapper) {
  set_pair(
      file, wrapper, kI, kH, kR, [](auto e, auto k, auto i) { return mark(e, kDownA, k, i); },
      [](auto e, auto o, auto k) { return mark(e, kDownB, o, k); });
}

// As peft converts per-expert files: ranks of gate, then of up; B block-diagonal.
void set_converted_gate_up(AdapterFile& file, const std::string& wrapper) {
  set_pair(
      file, wrapper, kH, 2 * kI, 2 * kR,
      [](auto e, auto k, auto i) {
        return k < kR ? mark(e, kGateA, k, i) : mark(e, kUpA, k - kR, i);
      },
      [](auto e, auto o, auto k) {
        if (o < kI && k < kR) return mark(e, kGateB, o, k);
        if (o >= kI && k >= kR) return mark(e, kUpB, o - kI, k - kR);
        return 0.0f;
      });
}

void expect_marks(Parameters& parameters, std::int64_t e, const std::string& projection, int a,
                  int b) {
  for (const bool is_a : {true, false}) {
    const ds::Parameter& p =
        parameters.at(module(e, projection) + (is_a ? ".lora_A.weight" : ".lora_B.weight"));
    const std::int64_t cols = p.value.shape()[1];
    for (std::int64_t i = 0; i < p.value.size(); ++i) {
      CHECK(p.value.as<float>()[i] == mark(e, is_a ? a : b, i / cols, i % cols));
    }
  }
}

void load(const AdapterFile& file, Parameters& parameters) {
  TempFolder folder;
  file.write(folder.path);
  ds::load_adapter(folder.path, LoraConfig{}, parameters.pointers);
}

std::string refusal(const AdapterFile& file, Parameters& parameters) {
  return error_of(ExitCode::kBadInput, [&] { load(file, parameters); });
}

TEST_CASE("fused experts as peft converts them are split") {
  Parameters parameters;
  add_experts(parameters, kR, kR);
  AdapterFile file;
  // Which wrapper is the inner one depends on the order of the targets: shapes decide.
  SUBCASE("gate_up inside") {
    set_converted_gate_up(file, kLayer + ".base_layer");
    set_down(file, kLayer);
  }
  SUBCASE("down inside") {
    set_converted_gate_up(file, kLayer);
    set_down(file, kLayer + ".base_layer");
  }
  load(file, parameters);
  for (std::int64_t e = 0; e < kE; ++e) {
    expect_marks(parameters, e, "gate_proj", kGateA, kGateB);
    expect_marks(parameters, e, "up_proj", kUpA, kUpB);
    expect_marks(parameters, e, "down_proj", kDownA, kDownB);
  }
}

TEST_CASE("experts trained fused give gate and up the same A") {
  Parameters parameters;
  add_experts(parameters, 2 * kR, kR);
  AdapterFile file;
  set_pair(
      file, kLayer + ".base_layer", kH, 2 * kI, 2 * kR,
      [](auto e, auto k, auto i) { return mark(e, kGateA, k, i); },
      [](auto e, auto o, auto k) { return mark(e, kGateB, o, k); });
  set_down(file, kLayer);
  load(file, parameters);
  for (std::int64_t e = 0; e < kE; ++e) {
    expect_marks(parameters, e, "gate_proj", kGateA, kGateB);
    const auto& gate_a = parameters.at(module(e, "gate_proj") + ".lora_A.weight");
    const auto& up_a = parameters.at(module(e, "up_proj") + ".lora_A.weight");
    CHECK(values(gate_a) == values(up_a));
    const auto up_b = values(parameters.at(module(e, "up_proj") + ".lora_B.weight"));
    for (std::int64_t i = 0; i < kI * 2 * kR; ++i) {
      CHECK(up_b[static_cast<std::size_t>(i)] == mark(e, kGateB, kI + i / (2 * kR), i % (2 * kR)));
    }
    expect_marks(parameters, e, "down_proj", kDownA, kDownB);
  }
}

TEST_CASE("down alone has one wrapper") {
  Parameters parameters;
  for (std::int64_t e = 0; e < kE; ++e) {
    parameters.add_lora(module(e, "down_proj"), kI, kH, kR);
  }
  AdapterFile file;
  set_down(file, kLayer);
  load(file, parameters);
  for (std::int64_t e = 0; e < kE; ++e) expect_marks(parameters, e, "down_proj", kDownA, kDownB);
}

TEST_CASE("fused tensors that cannot be split are refused by name") {
  Parameters parameters;
  add_experts(parameters, kR, kR);
  AdapterFile file;
  set_converted_gate_up(file, kLayer + ".base_layer");
  set_down(file, kLayer);
  const std::string inner = kPrefix + kLayer + ".base_layer";
  SUBCASE("a full B where halves are needed") {
    set_pair(
        file, kLayer + ".base_layer", kH, 2 * kI, 2 * kR,
        [](auto e, auto k, auto i) { return mark(e, kGateA, k, i); },
        [](auto e, auto o, auto k) { return mark(e, kGateB, o, k); });
    const auto text = refusal(file, parameters);
    CHECK(has(text, inner + ".lora_B.weight' was trained over fused experts"));
    CHECK(has(text, "set rank_pattern to 4"));
  }
  SUBCASE("A without B") {
    file.erase(inner + ".lora_B.weight");
    CHECK(has(refusal(file, parameters), inner + ".lora_A.weight' but not its lora_B"));
  }
  SUBCASE("a rank that is neither") {
    set_pair(
        file, kLayer + ".base_layer", kH, 2 * kI, 3, [](auto, auto, auto) { return 1.0f; },
        [](auto, auto, auto) { return 0.0f; });
    CHECK(has(refusal(file, parameters), "has rank 3 for each fused expert"));
  }
  SUBCASE("another number of experts") {
    file.set_ramp(inner + ".lora_A.weight", {4, kH});
    file.set_ramp(inner + ".lora_B.weight", {2 * kI, 4});
    CHECK(has(refusal(file, parameters), "of 3 fused experts"));
  }
  SUBCASE("another width") {
    file.set_ramp(inner + ".lora_A.weight", {kE * 2 * kR, kH + 1});
    CHECK(has(refusal(file, parameters), "[12, 6]"));
  }
  SUBCASE("fused and per-expert tensors of one module") {
    file.set_ramp(kPrefix + module(1, "down_proj") + ".lora_A.weight", {kR, kI});
    file.set_ramp(kPrefix + module(1, "down_proj") + ".lora_B.weight", {kH, kR});
    CHECK(has(refusal(file, parameters), "twice"));
  }
  SUBCASE("a layer without adapted experts") {
    file.rename_all(
        [](std::string name) { return name.replace(name.find("layers.1"), 8, "layers.2"); });
    CHECK(has(refusal(file, parameters), "adapts no expert"));
  }
  SUBCASE("down missing") {
    file.erase(kPrefix + kLayer + ".lora_A.weight");
    file.erase(kPrefix + kLayer + ".lora_B.weight");
    CHECK(has(refusal(file, parameters), "lacks 6 of 18 adapter tensors"));
  }
  SUBCASE("NaN") {
    auto bad = Matrix(static_cast<std::size_t>(kH * kR * kE), 1.0f);
    bad[7] = std::nanf("");
    file.set(kPrefix + kLayer + ".lora_B.weight", {kH, kR * kE}, bad);
    CHECK(has(refusal(file, parameters), "nan at element 7"));
  }
}

}  // namespace
