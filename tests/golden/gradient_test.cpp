// Adapter and full-parameter gradients against peft and transformers.
#include "tests/golden/golden_model.h"

using namespace ds;
using namespace ds::test;

namespace {

// Largest |a - b| over the largest |b|.
double relative_difference(const float* ours, const std::vector<float>& golden) {
  double worst = 0.0;
  double largest = 0.0;
  for (std::size_t i = 0; i < golden.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(ours[i]) - golden[i]);
    worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
    largest = std::max(largest, std::fabs(static_cast<double>(golden[i])));
  }
  return largest == 0.0 ? worst : worst / largest;
}

struct Case {
  std::string model;
  std::string variant;
  double logits_tolerance;
};
const Case kCases[] = {{"tiny-v3", "all", 3e-5},        {"tiny-v3", "rslora", 3e-5},
                       {"tiny-v3", "dora", 3e-5},       {"tiny-v3", "patterns", 3e-5},
                       {"tiny-v2-lite", "all", 3e-5},   {"tiny-v2", "all", 8e-5},
                       {"tiny-moonlight", "all", 3e-5}, {"tiny-v3-fp8", "not_routed", 5e-5}};

}  // namespace

TEST_CASE("adapter logits, loss and every A, B and magnitude gradient") {
  const auto root = goldens();
  if (root.empty()) return;
  for (const Case& c : kCases) {
    for (const Recompute recompute : {Recompute::kNone, Recompute::kFull}) {
      CAPTURE(c.model);
      CAPTURE(c.variant);
      const auto folder = root / c.model / "lora" / c.variant;
      GoldenModel golden(root / c.model / c.model);
      golden.load_lora(folder);
      const auto inputs = SafetensorsFile::open(root / c.model / "forward.safetensors");
      const auto file = SafetensorsFile::open(folder / "golden.safetensors");
      const auto facts = read_json(folder / "golden.json");
      const GoldenBatch ragged = read_batch(inputs, "ragged.");

      const auto logits = float_values(file, "ragged.logits");
      const auto rows = static_cast<std::size_t>(file.find("ragged.logits")->shape[0]);
      const double d = logits_difference(all_logits(golden, ragged.batch), logits, ragged.lengths,
                                         24, golden.config.vocab_size, rows);
      CHECK(d <= c.logits_tolerance);

      const double scale = 1.0 / static_cast<double>(ragged.batch.target_count());
      const LossSums sums =
          golden.model->forward_backward(golden.exec, ragged.batch, scale, recompute);
      CHECK(std::fabs(sums.loss * scale - facts["loss"].get<double>()) <= 5e-6);

      double worst = 0.0;
      for (Parameter* parameter : golden.model->parameters()) {
        const std::string key = "grad.base_model.model." + parameter->name;
        const double r = relative_difference(std::as_const(parameter->grad).as<float>(),
                                             float_values(file, key));
        worst = std::max(worst, r);
        CHECK_MESSAGE(r <= 2e-5, key);
      }
      MESSAGE(c.model << "/" << c.variant << ": logits " << d << ", gradients (relative) "
                      << worst);
    }
  }
}

TEST_CASE("full-parameter gradients") {
  const auto root = goldens();
  if (root.empty()) return;
  GoldenModel golden(root / "tiny-moonlight" / "tiny-moonlight");
  golden.model->make_all_trainable();
  golden.model->allocate_gradients();
  const auto inputs = SafetensorsFile::open(root / "tiny-moonlight" / "forward.safetensors");
  const auto file = SafetensorsFile::open(root / "tiny-moonlight" / "train" / "full" /
                                          "ragged_gradients.safetensors");
  const GoldenBatch ragged = read_batch(inputs, "ragged.");
  golden.model->forward_backward(golden.exec, ragged.batch,
                                 1.0 / static_cast<double>(ragged.batch.target_count()),
                                 Recompute::kNone);
  double worst = 0.0;
  std::size_t compared = 0;
  for (Parameter* parameter : golden.model->parameters()) {
    std::string key = parameter->name;
    if (file.find(key) == nullptr) key = "grad." + key;
    const double r =
        relative_difference(std::as_const(parameter->grad).as<float>(), float_values(file, key));
    CHECK_MESSAGE(r <= 2e-5, key);
    worst = std::max(worst, r);
    ++compared;
  }
  CHECK(compared == file.tensors().size());
  MESSAGE("full-parameter gradients (relative): " << worst << " over " << compared << " tensors");
}
