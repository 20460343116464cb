// Logits and losses of every golden model against transformers (../shared/goldens/README.md gives
// the tolerances and why).
#include "tests/golden/golden_model.h"

using namespace ds;
using namespace ds::test;

namespace {

struct Case {
  std::string name;
  double logits_tolerance;
};
const Case kCases[] = {{"tiny-v3", 3e-5},     {"tiny-v2-lite", 3e-5},
                       {"tiny-v2", 8e-5},     {"tiny-moonlight", 3e-5},
                       {"tiny-v3-fp8", 5e-5}, {"tiny-v3-fp8-ue8m0", 5e-5}};

}  // namespace

TEST_CASE("f32 logits, losses and long positions of every model") {
  const auto root = goldens();
  if (root.empty()) return;
  for (const Case& c : kCases) {
    CAPTURE(c.name);
    GoldenModel golden(root / c.name / c.name);
    const auto file = SafetensorsFile::open(root / c.name / "forward.safetensors");
    const auto facts = read_json(root / c.name / "forward.json");
    const std::int64_t vocab = golden.config.vocab_size;

    const GoldenBatch plain = read_batch(file, "");
    const double d = logits_difference(all_logits(golden, plain.batch),
                                       float_values(file, "logits"), plain.lengths, 24, vocab, 2);
    MESSAGE(c.name << ": logits differ by " << d);
    CHECK(d <= c.logits_tolerance);

    const GoldenBatch ragged = read_batch(file, "ragged.");
    const double dr =
        logits_difference(all_logits(golden, ragged.batch), float_values(file, "ragged.logits"),
                          ragged.lengths, 24, vocab, 4);
    CHECK(dr <= c.logits_tolerance);

    const LossSums sums = golden.model->loss(golden.exec, ragged.batch);
    const double mean = sums.loss / static_cast<double>(sums.targets);
    CHECK(std::fabs(mean - facts["ragged.loss"].get<double>()) <= 5e-6);

    const GoldenBatch lng = read_batch(file, "long.");
    const auto logits = all_logits(golden, lng.batch);
    const auto last8 = float_values(file, "long.logits_last8");
    double worst = 0.0;
    for (std::size_t i = 0; i < last8.size(); ++i) {
      worst = std::max(
          worst,
          std::fabs(static_cast<double>(logits[logits.size() - last8.size() + i]) - last8[i]));
    }
    CHECK(worst <= c.logits_tolerance);
  }
}

TEST_CASE("greedy generation with the latent cache") {
  const auto root = goldens();
  if (root.empty()) return;
  GoldenModel golden(root / "tiny-v3" / "tiny-v3");
  const auto facts = read_json(root / "tiny-v3" / "generation.json");
  const auto prompt = facts["prompt"].get<std::vector<std::int32_t>>();
  const auto wanted = facts["generated"].get<std::vector<std::int32_t>>();
  const auto forbidden = facts["end_token_forbidden"].get<std::int32_t>();

  Example example{.ids = prompt, .labels = std::vector<std::int32_t>(prompt.size(), kNoTarget)};
  TokenBatch batch;
  append_segment(batch, example);
  Sequence sequence(golden.config, 64, DType::kF32);
  Sequence* pointer = &sequence;
  Tensor logits(DType::kF32, {1, golden.config.vocab_size});
  const auto best = [&] {
    std::int32_t arg = -1;
    for (std::int32_t i = 0; i < golden.config.vocab_size; ++i) {
      if (i != forbidden && (arg < 0 || logits.as<float>()[i] > logits.as<float>()[arg])) arg = i;
    }
    return arg;
  };
  golden.model->prefill(golden.exec, batch, {&pointer, 1}, logits.view());
  std::vector<std::int32_t> generated;
  while (generated.size() < wanted.size()) {
    const std::int32_t token = best();
    generated.push_back(token);
    golden.model->decode(golden.exec, {&token, 1}, {&pointer, 1}, logits.view());
  }
  CHECK(generated == wanted);
}

TEST_CASE("bf16 logits stay near the f32 ones") {
  const auto root = goldens();
  if (root.empty()) return;
  // Positions before the first changed expert choice of a row only; a changed choice moves logits
  // freely. tiny-v2-lite and tiny-v3 are compared against their own f32 goldens.
  for (const std::string name : {"tiny-v3", "tiny-v2-lite", "tiny-moonlight"}) {
    CAPTURE(name);
    GoldenModel golden(root / name / name, DType::kBF16);
    const auto file = SafetensorsFile::open(root / name / "forward.safetensors");
    const GoldenBatch plain = read_batch(file, "");
    const auto ours = all_logits(golden, plain.batch);
    const auto reference = float_values(file, "bf16.logits");
    double error = 0.0;
    double norm = 0.0;
    std::int64_t compared = 0;
    for (std::size_t token = 0; token < 48; ++token) {
      double e = 0.0;
      double n = 0.0;
      const auto vocab = static_cast<std::size_t>(golden.config.vocab_size);
      for (std::size_t v = 0; v < vocab; ++v) {
        const double a = ours[token * vocab + v];
        const double b = reference[token * vocab + v];
        e += (a - b) * (a - b);
        n += b * b;
      }
      if (e > 0.02 * n) continue;  // another expert was chosen here
      error += e;
      norm += n;
      ++compared;
    }
    MESSAGE(name << ": bf16 relative squared error " << error / norm << " over " << compared
                 << " of 48 positions");
    CHECK(compared >= 40);
    CHECK(error <= 1e-3 * norm);
  }
}
